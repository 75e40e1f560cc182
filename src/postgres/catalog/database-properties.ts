import { escapeLiteral, type Client } from 'pg';
import {
  applySettings,
  readSettings as readFenceSettings,
  settingStatements as fenceStatements,
} from '../fence/fence-settings.ts';
import { sqlName } from '../identifier.ts';

/**
 * What belongs to a database as a whole and is in no dump of it: it stays with the OID, so a database that takes another's
 * name has to be given it (PostgreSQL documentation, "pg_dump", on `--create`).
 */
export interface DatabaseProperties {
  readonly owner: string;
  readonly encoding: string;
  readonly collate: string;
  readonly ctype: string;
  /** `c`, `i` (ICU), `b` (builtin); null before PostgreSQL 15. */
  readonly provider: string | null;
  readonly locale: string | null;
  readonly icuRules: string | null;
  readonly tablespace: string;
  readonly connectionLimit: number;
  readonly comment: string | null;
  readonly grants: readonly DatabaseGrant[];
  readonly settings: readonly DatabaseSetting[];
}

export interface DatabaseGrant {
  /** null = PUBLIC. */
  readonly grantee: string | null;
  readonly privilege: string;
  readonly grantable: boolean;
}

/** `ALTER DATABASE SET`, and with a role `ALTER ROLE ... IN DATABASE SET`. Values may be secrets. */
export interface DatabaseSetting {
  readonly role: string | null;
  readonly name: string;
  readonly value: string;
}

/** Reads them in any database of the server: they are in shared catalogs. */
export async function readDatabaseProperties(client: Client, database: string): Promise<DatabaseProperties> {
  const { rows } = await client.query<Omit<DatabaseProperties, 'grants' | 'settings'>>(
    // daticulocale became datlocale with PostgreSQL 17; older servers have neither.
    `SELECT pg_get_userbyid(d.datdba) AS "owner", pg_encoding_to_char(d.encoding) AS "encoding",
            d.datcollate AS "collate", d.datctype AS "ctype", j->>'datlocprovider' AS "provider",
            coalesce(j->>'datlocale', j->>'daticulocale') AS "locale", j->>'daticurules' AS "icuRules",
            t.spcname AS "tablespace", d.datconnlimit AS "connectionLimit",
            shobj_description(d.oid, 'pg_database') AS "comment"
     FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace, LATERAL to_jsonb(d) j
     WHERE d.datname = $1`,
    [database],
  );
  const [properties] = rows;
  if (properties === undefined) throw new Error(`database "${database}" does not exist`);
  return { ...properties, grants: await readGrants(client, database), settings: await readSettings(client, database) };
}

async function readGrants(client: Client, database: string): Promise<DatabaseGrant[]> {
  const { rows } = await client.query<DatabaseGrant>(
    `SELECT r.rolname AS "grantee", a.privilege_type AS "privilege", a.is_grantable AS "grantable"
     FROM pg_database d, LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
     LEFT JOIN pg_roles r ON r.oid = a.grantee
     WHERE d.datname = $1 AND (a.grantee = 0 OR r.oid IS NOT NULL)
     ORDER BY r.rolname COLLATE "C" NULLS FIRST, a.privilege_type COLLATE "C", a.is_grantable`,
    [database],
  );
  return rows;
}

async function readSettings(client: Client, database: string): Promise<DatabaseSetting[]> {
  const { rows } = await client.query<DatabaseSetting>(
    `SELECT r.rolname AS "role", split_part(a, '=', 1) AS "name", substr(a, strpos(a, '=') + 1) AS "value"
     FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole,
          LATERAL unnest(s.setconfig) a
     WHERE d.datname = $1 AND (s.setrole = 0 OR r.oid IS NOT NULL)
     ORDER BY r.rolname COLLATE "C" NULLS FIRST, a COLLATE "C"`,
    [database],
  );
  return rows;
}

/**
 * Every role that something in this database depends on. The server's first superuser depends on nothing and is listed only
 * where it owns a schema, a relation, a function or a type, or the database.
 */
export async function readRoles(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT DISTINCT r.rolname COLLATE "C" AS "name"
     FROM pg_roles r, pg_database d
     WHERE d.datname = current_database() AND (
       EXISTS (SELECT FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid
               AND (s.dbid = d.oid OR (s.dbid = 0 AND s.classid = 'pg_database'::regclass AND s.objid = d.oid)))
       OR EXISTS (SELECT FROM pg_db_role_setting s WHERE s.setdatabase = d.oid AND s.setrole = r.oid)
       OR d.datdba = r.oid
       OR (r.oid < 16384 AND (
         EXISTS (SELECT FROM pg_namespace n WHERE n.nspowner = r.oid AND n.oid >= 16384 AND n.nspname !~ '^pg_')
         OR EXISTS (SELECT FROM pg_class c WHERE c.relowner = r.oid AND c.oid >= 16384 AND c.relpersistence <> 't')
         OR EXISTS (SELECT FROM pg_proc p WHERE p.proowner = r.oid AND p.oid >= 16384)
         OR EXISTS (SELECT FROM pg_type t WHERE t.typowner = r.oid AND t.oid >= 16384))))
     ORDER BY 1`,
  );
  return rows.map(({ name }) => name);
}

/**
 * Creates an empty database: owner, encoding, locale, tablespace. Nobody but owner and administrator may connect to it yet.
 *
 * @param like properties, or the name of a database of this server that has them
 */
export async function createDatabaseLike(
  client: Client,
  like: DatabaseProperties | string,
  name: string,
): Promise<void> {
  const properties = typeof like === 'string' ? await readDatabaseProperties(client, like) : like;
  const options = [
    `OWNER ${sqlName(properties.owner)}`,
    'TEMPLATE template0',
    `ENCODING ${escapeLiteral(properties.encoding)}`,
    `LC_COLLATE ${escapeLiteral(properties.collate)}`,
    `LC_CTYPE ${escapeLiteral(properties.ctype)}`,
    ...localeOptions(properties),
    ...(properties.tablespace === 'pg_default' ? [] : [`TABLESPACE ${sqlName(properties.tablespace)}`]),
  ];
  await client.query(`CREATE DATABASE ${sqlName(name)} ${options.join(' ')}`);
  await client.query(`REVOKE ALL ON DATABASE ${sqlName(name)} FROM PUBLIC`);
}

function localeOptions({ provider, locale, icuRules }: DatabaseProperties): string[] {
  if (provider === 'i') {
    return [
      'LOCALE_PROVIDER icu',
      `ICU_LOCALE ${escapeLiteral(locale ?? 'und')}`,
      ...(icuRules === null ? [] : [`ICU_RULES ${escapeLiteral(icuRules)}`]),
    ];
  }
  if (provider === 'b') return ['LOCALE_PROVIDER builtin', `BUILTIN_LOCALE ${escapeLiteral(locale ?? 'C')}`];
  return provider === 'c' ? ['LOCALE_PROVIDER libc'] : [];
}

/**
 * Gives a database the rights, settings, connection limit and comment of another. May be done again.
 *
 * @returns what could not be carried over, in words; empty = all was
 */
export const carryProperties = async (client: Client, from: string, to: string): Promise<string[]> =>
  applyProperties(client, await readDatabaseProperties(client, from), to);

/**
 * Gives a database recorded rights, settings and connection limit; it loses those it has. Not its comment: that is a mark of
 * ours until the database is in its place, see `commentStatement`. May be done again.
 *
 * @returns what could not be given, in words; empty = all was
 */
export async function applyProperties(client: Client, properties: DatabaseProperties, name: string): Promise<string[]> {
  const findings: string[] = [];
  const attempt = async (what: string, sql: string): Promise<void> => {
    await client.query(sql).catch((error: unknown) => {
      findings.push(`${what} of database "${name}" cannot be set: ${(error as Error).message.slice(0, 300)}`);
    });
  };
  const present = await readDatabaseProperties(client, name);
  for (const sql of grantStatements(properties.grants, present.grants, name)) await attempt('a right', sql);
  for (const sql of settingStatements(properties.settings, present.settings, name)) await attempt('a setting', sql);
  const { connectionLimit } = properties;
  await attempt('the connection limit', `ALTER DATABASE ${sqlName(name)} CONNECTION LIMIT ${connectionLimit}`);
  return findings;
}

/** The one setting a fence changes, for as long as it is up. Whose turn it is to set it back is not a restore's affair. */
const OF_THE_FENCE = 'default_transaction_read_only';

const isOfFence = ({ name }: DatabaseSetting): boolean => name === OF_THE_FENCE;

/**
 * What a database gets that takes production's place: its properties as the backup recorded them, so that what a migration
 * did by ALTER DATABASE is taken back too; the fence as it stands in production now.
 */
export const restoredProperties = (recorded: DatabaseProperties, current: DatabaseProperties): DatabaseProperties => ({
  ...recorded,
  settings: [...recorded.settings.filter((entry) => !isOfFence(entry)), ...current.settings.filter(isOfFence)],
});

/**
 * Gives a database the fence of another, which may have been raised or lowered meanwhile, and touches nothing else: all at
 * once, for a database that has lost its rights half way would be given them by nobody.
 *
 * @returns what could not be carried over, in words
 */
export async function carryFence(client: Client, from: string, to: string): Promise<string[]> {
  const [wanted, present] = [await readFenceSettings(client, from), await readFenceSettings(client, to)];
  try {
    await applySettings(client, fenceStatements(to, present, wanted));
    return [];
  } catch (error) {
    return [`the fence of database "${from}" cannot be carried over: ${(error as Error).message.slice(0, 300)}`];
  }
}

/**
 * Has a database the properties that were recorded? Not looked at: the fence, the comment (a mark of ours while a database
 * waits), the tablespace, which may not exist elsewhere. Values of settings are not shown: they may be secrets.
 *
 * @returns differences in words; empty = the same
 */
export function compareProperties(recorded: DatabaseProperties, found: DatabaseProperties): string[] {
  const findings: string[] = [];
  for (const name of ['owner', 'encoding', 'collate', 'ctype', 'provider', 'locale', 'connectionLimit'] as const) {
    if (recorded[name] !== found[name]) findings.push(`${name}: ${recorded[name]} recorded, ${found[name]} found`);
  }
  const grantsOf = ({ grants }: DatabaseProperties): string[] =>
    grants.map(({ grantee, privilege, grantable }) => `${privilege}${grantable ? '*' : ''} for ${grantee ?? 'PUBLIC'}`);
  findings.push(...compareLists('grant', grantsOf(recorded), grantsOf(found)));
  const settingsOf = ({ settings }: DatabaseProperties): Map<string, string> =>
    new Map(
      settings
        .filter((entry) => !isOfFence(entry))
        .map(({ role, name, value }) => [`${name}${role === null ? '' : ` of role ${role}`}`, value]),
    );
  const [first, second] = [settingsOf(recorded), settingsOf(found)];
  findings.push(...compareLists('setting', [...first.keys()], [...second.keys()]));
  for (const [name, value] of first) {
    if (second.has(name) && second.get(name) !== value)
      findings.push(`setting ${name}: another value than was recorded`);
  }
  return findings;
}

const compareLists = (what: string, recorded: readonly string[], found: readonly string[]): string[] => [
  ...recorded.filter((entry) => !found.includes(entry)).map((entry) => `${what} ${entry}: recorded, not found`),
  ...found.filter((entry) => !recorded.includes(entry)).map((entry) => `${what} ${entry}: found, not recorded`),
];

/** The comment of a database, as SQL that gives it to another. For the transaction that swaps the names. */
export async function commentStatement(client: Client, from: string, to: string): Promise<string> {
  const { comment } = await readDatabaseProperties(client, from);
  return `COMMENT ON DATABASE ${sqlName(to)} IS ${comment === null ? 'NULL' : escapeLiteral(comment)}`;
}

function grantStatements(wanted: readonly DatabaseGrant[], present: readonly DatabaseGrant[], name: string): string[] {
  const target = sqlName(name);
  const named = (grantee: string | null): string => (grantee === null ? 'PUBLIC' : sqlName(grantee));
  return [
    ...[...new Set(present.map(({ grantee }) => named(grantee)))].map(
      (grantee) => `REVOKE ALL ON DATABASE ${target} FROM ${grantee}`,
    ),
    ...wanted.map(
      ({ grantee, privilege, grantable }) =>
        `GRANT ${privilege} ON DATABASE ${target} TO ${named(grantee)}${grantable ? ' WITH GRANT OPTION' : ''}`,
    ),
  ];
}

/** Settings whose stored value is already a list of quoted identifiers (GUC_LIST_QUOTE): quoting it again would break it. */
const QUOTED_LISTS = new Set([
  'search_path',
  'temp_tablespaces',
  'local_preload_libraries',
  'session_preload_libraries',
]);

function settingStatements(
  wanted: readonly DatabaseSetting[],
  present: readonly DatabaseSetting[],
  name: string,
): string[] {
  const subject = (role: string | null): string =>
    role === null ? `ALTER DATABASE ${sqlName(name)}` : `ALTER ROLE ${sqlName(role)} IN DATABASE ${sqlName(name)}`;
  return [
    ...[...new Set(present.map(({ role }) => role))].map((role) => `${subject(role)} RESET ALL`),
    ...wanted.map(({ role, name: setting, value }) => `${subject(role)} SET ${settingAssignment(setting, value)}`),
  ];
}

/** `name = value`, for `SET`: the value as the catalogs hold it. */
export function settingAssignment(name: string, value: string): string {
  const text = QUOTED_LISTS.has(name) && value !== '' ? value : escapeLiteral(value);
  return `${sqlName(...name.split('.'))} = ${text}`;
}
