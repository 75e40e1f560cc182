/** What the object map looks at: SQL fragments that its queries share. */

export const USER_SCHEMA = `n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`;

export const notExtensionMember = (catalog: string, oid: string): string =>
  `NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = '${catalog}'::regclass AND x.objid = ${oid} AND x.deptype = 'e')`;

export const RELATION = `pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace`;
export const USER_RELATION = `${USER_SCHEMA} AND c.relpersistence <> 't' AND ${notExtensionMember('pg_class', 'c.oid')}`;

/** OIDs from here on are the user's own (PostgreSQL documentation, "System Catalog Initial Data"). */
export const FIRST_USER_OID = 16384;

/** `name=<digest of the value>, ...`: options of foreign servers and their like may be secrets. */
export const hashedOptions = (options: string): string => `(
  SELECT string_agg(split_part(o, '=', 1) || '=' || left(encode(sha256(convert_to(substr(o, strpos(o, '=') + 1), 'UTF8')), 'hex'), 16),
                    ', ' ORDER BY o COLLATE "C")
  FROM unnest(${options}) o)`;

/** Of `pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid`: no row types of tables, no array types, no multiranges. */
export const USER_TYPE = `${USER_SCHEMA} AND t.typtype IN ('b', 'e', 'c', 'd', 'r') AND coalesce(c.relkind, 'c') = 'c'
  AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) AND ${notExtensionMember('pg_type', 't.oid')}`;
