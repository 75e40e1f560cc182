import { setTimeout as delay } from 'node:timers/promises';
import { type Client, escapeLiteral } from 'pg';
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

/** How long tables that somebody has locked for himself are waited for. Milliseconds. */
export interface LockPatience {
  /** At a time. Meanwhile the tables locked already are kept from whoever wants to change them, and from all behind him. */
  readonly atOnce: number;
  readonly inAll: number;
}

const LOCK_PATIENCE: LockPatience = { atOnce: 2_000, inAll: 120_000 };
const PAUSE = 1_000;

/**
 * Opens a REPEATABLE READ transaction with every table locked (ACCESS SHARE) before its snapshot is taken, and exports the
 * snapshot. The order matters: TRUNCATE and rewriting ALTER TABLE are not MVCC-safe (PostgreSQL documentation, "Caveats"),
 * so a table changed between snapshot and lock would look empty. The transaction is left open; it ends with the session.
 *
 * @param client a session without time-outs
 * @throws StepError `OutsideUnavailable`, naming who holds a lock or that tables come and go
 */
export async function exportSnapshot(
  client: Client,
  signal: AbortSignal,
  patience = LOCK_PATIENCE,
): Promise<ExportedSnapshot> {
  const began = Date.now();
  const { rows: settings } = await client.query<{ timeout: string }>(
    `SELECT current_setting('lock_timeout') AS "timeout"`,
  );
  const lockTimeout = settings[0]!.timeout;
  for (let attempt = 1; attempt <= ATTEMPTS; ) {
    signal.throwIfAborted();
    const before = await lockableTables(client);
    // The snapshot is taken by the first query, not by BEGIN; LOCK TABLE needs none.
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    await client.query(`SET LOCAL lock_timeout = ${patience.atOnce}`);
    const outcome = await lockAll(client, before);
    if (outcome === 'locked') {
      await client.query(`SET LOCAL lock_timeout = ${escapeLiteral(lockTimeout)}`);
      const { rows } = await client.query<ExportedSnapshot>(
        `SELECT pg_export_snapshot() AS "id",
                CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text AS "lsn"`,
      );
      const after = await lockableTables(client);
      if (isSameList(before, after)) return rows[0]!;
    }
    await client.query('ROLLBACK');
    if (outcome !== 'busy') attempt += 1;
    else if (Date.now() - began >= patience.inAll) throw busy(await lockHolders(client));
    else await delay(PAUSE, undefined, { signal });
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

/** `gone`: a table is there no more. `busy`: somebody has one for himself. */
async function lockAll(client: Client, tables: readonly Table[]): Promise<'locked' | 'gone' | 'busy'> {
  if (tables.length === 0) return 'locked';
  const names = tables.map(({ schema, name }) => `ONLY ${sqlName(schema, name)}`);
  try {
    await client.query(`LOCK TABLE ${names.join(', ')} IN ACCESS SHARE MODE`);
    return 'locked';
  } catch (error) {
    // lock_not_available
    if (sqlState(error) === '55P03') return 'busy';
    // undefined_table, invalid_schema_name
    if (sqlState(error) === '42P01' || sqlState(error) === '3F000') return 'gone';
    throw error;
  }
}

/** Who has a table of this database for himself, in words. */
async function lockHolders(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ who: string }>(
    `SELECT format('%s (%s, pid %s)', l.relation::regclass, a.usename, a.pid) AS "who"
     FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid JOIN pg_class c ON c.oid = l.relation
     WHERE l.mode = 'AccessExclusiveLock' AND l.granted AND c.relkind IN ('r', 'p') AND l.pid <> pg_backend_pid()
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
     ORDER BY 1 LIMIT 10`,
  );
  return rows.map(({ who }) => who);
}

const busy = (holders: readonly string[]): StepError =>
  new StepError(
    STEP_ERRORS.unavailable,
    `Nothing was read: a table is locked by somebody who changes it${holders.length === 0 ? '' : `: ${holders.join(', ')}`}. Wait until that is through, or end it.`,
    { holders },
  );

const isSameList = (before: readonly Table[], after: readonly Table[]): boolean =>
  before.length === after.length &&
  before.every((table, index) => {
    const other = after[index];
    return table.oid === other?.oid && table.schema === other.schema && table.name === other.name;
  });
