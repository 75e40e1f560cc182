import type { Client } from 'pg';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { sqlState } from '../postgres/database-error.ts';
import { sqlName } from '../postgres/identifier.ts';

/** A snapshot that other sessions can import while the exporting transaction is open. */
export interface ExportedSnapshot {
  /** For `SET TRANSACTION SNAPSHOT` and `pg_dump --snapshot`. */
  readonly id: string;
  /** Write-ahead log position read right after: all that the snapshot shows was written before it. */
  readonly lsn: string;
}

const ATTEMPTS = 5;

/**
 * Opens a REPEATABLE READ transaction with every table locked (ACCESS SHARE) before its snapshot is taken, and exports the
 * snapshot. The order matters: TRUNCATE and rewriting ALTER TABLE are not MVCC-safe (PostgreSQL documentation, "Caveats"),
 * so a table changed between snapshot and lock would look empty. The transaction is left open; it ends with the session.
 *
 * @param client a session without time-outs
 */
export async function exportSnapshot(client: Client, signal: AbortSignal): Promise<ExportedSnapshot> {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    signal.throwIfAborted();
    const before = await lockableTables(client);
    // The snapshot is taken by the first query, not by BEGIN; LOCK TABLE needs none.
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    if (await lockAll(client, before)) {
      const { rows } = await client.query<ExportedSnapshot>(
        `SELECT pg_export_snapshot() AS "id",
                CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text AS "lsn"`,
      );
      const after = await lockableTables(client);
      if (isSameList(before, after)) return rows[0]!;
    }
    await client.query('ROLLBACK');
  }
  throw new StepError(
    STEP_ERRORS.unavailable,
    `Tables were created or dropped during each of ${ATTEMPTS} attempts to take a consistent snapshot: wait until whoever does so has finished.`,
  );
}

interface Table {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
}

/** Extensions' tables are left out: a dump recreates them by CREATE EXTENSION, and the backup role may not read them. */
async function lockableTables(client: Client): Promise<Table[]> {
  const { rows } = await client.query<Table>(
    `SELECT c.oid::int8::float8 AS "oid", n.nspname AS "schema", c.relname AS "name"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_depend d
                       WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
     ORDER BY c.oid`,
  );
  return rows;
}

/** False where a table has gone meanwhile. */
async function lockAll(client: Client, tables: readonly Table[]): Promise<boolean> {
  if (tables.length === 0) return true;
  const names = tables.map(({ schema, name }) => `ONLY ${sqlName(schema, name)}`);
  try {
    await client.query(`LOCK TABLE ${names.join(', ')} IN ACCESS SHARE MODE`);
    return true;
  } catch (error) {
    // undefined_table, invalid_schema_name
    if (sqlState(error) === '42P01' || sqlState(error) === '3F000') return false;
    throw error;
  }
}

const isSameList = (before: readonly Table[], after: readonly Table[]): boolean =>
  before.length === after.length &&
  before.every((table, index) => {
    const other = after[index];
    return table.oid === other?.oid && table.schema === other.schema && table.name === other.name;
  });
