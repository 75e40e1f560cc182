import type { ClientBase } from 'pg';

export interface VersionTableName {
  /** @default 'public' */
  readonly schema?: string;
  /** @default 'alembic_version' */
  readonly table?: string;
}

export type DatabaseVersion =
  /** The version rows, sorted; none after a downgrade to base. */
  | { readonly kind: 'versioned'; readonly rows: readonly string[] }
  /** No version table and no tables: an upgrade starts at base. */
  | { readonly kind: 'unversioned-empty' }
  /** Tables but no version table: whoever made them has not said what they are. `tables` names at most 10 of them. */
  | { readonly kind: 'unversioned-full'; readonly tables: readonly string[] };

/** Ordinary, partitioned and foreign tables that are neither the system's nor an extension's. */
const userTables = `
  SELECT format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'f')
     AND c.relpersistence <> 't'
     AND n.nspname NOT IN ('pg_catalog', 'information_schema')
     AND n.nspname !~ '^pg_(toast|temp)'
     AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.objid = c.oid AND d.deptype = 'e')
   ORDER BY 1
   LIMIT 10`;

/** Where the database is, by its own version table: the only truth about it. */
export async function readVersion(client: ClientBase, name: VersionTableName = {}): Promise<DatabaseVersion> {
  const { schema = 'public', table = 'alembic_version' } = name;
  const found = await client.query(
    `SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v')`,
    [schema, table],
  );
  if (found.rows.length > 0) {
    const { rows } = await client.query<{ version_num: string }>(
      `SELECT version_num FROM ${client.escapeIdentifier(schema)}.${client.escapeIdentifier(table)}`,
    );
    return { kind: 'versioned', rows: rows.map((row) => row.version_num).sort() };
  }
  const { rows } = await client.query<{ name: string }>(userTables);
  return rows.length === 0
    ? { kind: 'unversioned-empty' }
    : { kind: 'unversioned-full', tables: rows.map((row) => row.name) };
}
