import type { Client } from 'pg';
import type { Blocker } from '../contract/evidence/upgrade.ts';
import { qualifiedName } from './identifier.ts';
import { classFromOutside, getsOnFromOutside, withoutLiterals } from './statement-text.ts';

/** A session of the migration as one look sees it. */
export interface MigrationSession {
  readonly pid: number;
  /** Backend start: the process id may belong to somebody else later. */
  readonly since: string;
  /** When the statement that runs, or ran last, began; null where there was none. */
  readonly statementSince: string | null;
  /** Literals struck out; empty where nothing runs. */
  readonly statement: string;
  readonly class: 'concurrent' | 'exclusive';
  /** It has a lock that keeps readers out: while it waits for another one, they wait too. */
  readonly keepsOut: boolean;
  /** Milliseconds since the running statement began; null where none runs. */
  readonly running: number | null;
  /** `got-on`: the statement that runs, or ran last, is more than cleaning up after one that failed, and no failure ended its transaction. */
  readonly standing: 'got-on' | 'not-told';
}

/** A session of the migration that waits for a lock. */
export interface LockWait {
  readonly session: MigrationSession;
  /** `relation`: a lock on it; `snapshots`: transactions that began earlier (CONCURRENTLY); `rows`: somebody's change of rows; `other` as in pg_locks. */
  readonly kind: 'relation' | 'snapshots' | 'rows' | 'other';
  /** As people write it; null where it is not told, or not yet to be seen by others. */
  readonly relation: string | null;
  /** As in pg_locks. */
  readonly mode: string;
  /** Milliseconds it has waited for this lock. */
  readonly waited: number;
  /** `AccessExclusiveLock on public.jobs`. */
  readonly waitedFor: string;
  readonly blockers: readonly BlockingSession[];
}

/** Who stands in the way, with what is needed to tell it from a later one and to judge whether it may be ended. */
export interface BlockingSession extends Blocker {
  /** Process, its start, and its transaction's: another transaction of the same session is another blocker. */
  readonly key: string;
  /** As `pg_stat_activity.backend_type`; `prepared transaction` for one without a session, whose pid is 0. */
  readonly backendType: string;
  readonly backendStart: string | null;
  readonly superuser: boolean;
  /** Name of a prepared transaction. */
  readonly prepared: string | null;
}

export interface MigrationLook {
  readonly sessions: readonly MigrationSession[];
  readonly waits: readonly LockWait[];
}

const STAMP = `'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'`;
const stamp = (column: string): string => `to_char(${column} AT TIME ZONE 'UTC', ${STAMP})`;
const age = (column: string): string => `(extract(epoch FROM clock_timestamp() - ${column}) * 1000)::float8`;

/**
 * The sessions of a login role in this database, those of them that wait for a lock, and who is in their way. Two statements,
 * the second only while somebody waits; no transaction stays open, so that nobody has to wait for this session.
 *
 * @param client in the migration's database, of a role that sees the sessions of others (pg_monitor)
 */
export async function lookAtMigration(client: Client, role: string): Promise<MigrationLook> {
  const { rows } = await client.query<SessionRow>(
    `SELECT a.pid, ${stamp('a.backend_start')} AS "since", coalesce(a.query, '') AS "query",
            CASE WHEN a.state = 'active' THEN ${age('a.query_start')} END AS "running",
            ${stamp('a.query_start')} AS "statementSince",
            coalesce(a.state LIKE '%(aborted)', true) AS "aborted",
            EXISTS (SELECT FROM pg_locks h WHERE h.pid = a.pid AND h.granted AND h.locktype = 'relation'
                    AND h.mode = 'AccessExclusiveLock') AS "keepsOut",
            l.locktype AS "lockType", l.mode,
            -- waitstart came with PostgreSQL 14
            greatest(0, coalesce(${age(`(to_jsonb(l) ->> 'waitstart')::timestamptz`)}, 0)) AS "waited",
            n.nspname AS "schema", c.relname AS "name",
            CASE WHEN l.pid IS NOT NULL THEN pg_blocking_pids(a.pid) END AS "blocking"
     FROM pg_stat_activity a
     LEFT JOIN pg_locks l ON l.pid = a.pid AND NOT l.granted
     -- Who waits for another transaction's row holds its place in the queue by a lock on the tuple.
     LEFT JOIN pg_locks t ON t.pid = a.pid AND l.locktype = 'transactionid' AND t.locktype = 'tuple' AND t.granted
     LEFT JOIN pg_class c ON c.oid = coalesce(l.relation, t.relation)
                         AND coalesce(l.database, t.database) = (SELECT oid FROM pg_database WHERE datname = current_database())
     LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE a.usename = $1 AND a.datname = current_database() AND a.backend_type = 'client backend'
       AND a.pid <> pg_backend_pid()
     ORDER BY a.backend_start, a.pid`,
    [role],
  );
  const blocking = [...new Set(rows.flatMap((row) => row.blocking ?? []))];
  const found = blocking.length === 0 ? [] : await readBlockers(client, blocking);
  return {
    sessions: rows.map(asSession),
    waits: rows.flatMap((row) => (row.lockType === null ? [] : [asWait(row, row.lockType, found)])),
  };
}

interface SessionRow {
  readonly pid: number;
  readonly since: string;
  readonly query: string;
  readonly running: number | null;
  readonly statementSince: string | null;
  readonly aborted: boolean;
  readonly keepsOut: boolean;
  readonly lockType: string | null;
  readonly mode: string | null;
  readonly waited: number;
  readonly schema: string | null;
  readonly name: string | null;
  readonly blocking: readonly number[] | null;
}

const asSession = ({
  pid,
  since,
  query,
  running,
  statementSince,
  aborted,
  keepsOut,
}: SessionRow): MigrationSession => ({
  pid,
  since,
  statementSince,
  statement: running === null ? '' : withoutLiterals(query),
  class: classFromOutside(query),
  keepsOut,
  running,
  standing: !aborted && getsOnFromOutside(query) ? 'got-on' : 'not-told',
});

type Found = Omit<BlockingSession, 'waitedFor'>;

function asWait(row: SessionRow, lockType: string, found: readonly Found[]): LockWait {
  const relation = row.schema !== null && row.name !== null ? qualifiedName(row.schema, row.name) : null;
  const kind = kindOf(lockType);
  const mode = row.mode ?? '';
  const waitedFor = describeWait(kind, lockType, mode, relation);
  const blockers = found.filter(({ pid }) => row.blocking?.includes(pid)).map((blocker) => ({ ...blocker, waitedFor }));
  return { session: asSession(row), kind, relation, mode, waited: row.waited, waitedFor, blockers };
}

function kindOf(lockType: string): LockWait['kind'] {
  switch (lockType) {
    case 'relation':
      return 'relation';
    case 'virtualxid':
      return 'snapshots';
    case 'transactionid':
    case 'tuple':
      return 'rows';
    default:
      return 'other';
  }
}

function describeWait(kind: LockWait['kind'], lockType: string, mode: string, relation: string | null): string {
  switch (kind) {
    case 'relation':
      return `${mode} on ${relation ?? 'a relation of this migration'}`;
    case 'snapshots':
      return 'the end of older transactions';
    case 'rows':
      return relation === null ? 'rows that another transaction has changed' : `rows of ${relation}`;
    case 'other':
      return `${mode} on ${lockType}`;
  }
}

/** Prepared transactions have no session; `pg_blocking_pids` names them all as 0. */
const readBlockers = (client: Client, pids: readonly number[]): Promise<Found[]> =>
  readOthers(client, 'a.pid = ANY ($1)', '0 = ANY ($1)', [pids]);

/**
 * Other sessions' transactions in this database that are open longer than `milliseconds`, those of `role` left out. A lock
 * that the migration wants would wait for them, and the application would wait behind that lock.
 */
export async function openTransactions(client: Client, milliseconds: number, role: string): Promise<BlockingSession[]> {
  const found = await readOthers(
    client,
    `a.datname = current_database() AND a.usename <> $2 AND a.backend_type <> 'autovacuum worker'
     AND a.xact_start < clock_timestamp() - $1 * interval '1 millisecond' AND a.pid <> pg_backend_pid()`,
    `p.owner <> $2 AND p.prepared < clock_timestamp() - $1 * interval '1 millisecond'`,
    [milliseconds, role],
  );
  return found.map((one) => ({ ...one, waitedFor: 'the start of Alembic' }));
}

async function readOthers(
  client: Client,
  sessions: string,
  prepared: string,
  values: readonly unknown[],
): Promise<Found[]> {
  const { rows } = await client.query<Found>(
    `SELECT concat_ws(' ', a.pid, ${stamp('a.backend_start')}, ${stamp('a.xact_start')}) AS "key", a.pid,
            coalesce(a.usename, '') AS "role", left(coalesce(a.application_name, ''), 63) AS "application",
            coalesce(a.state, a.backend_type, 'unknown') AS "state",
            coalesce(${age('a.xact_start')}, 0) AS "transactionAge",
            coalesce(${age("CASE WHEN a.state = 'active' THEN a.query_start ELSE a.state_change END")}, 0) AS "queryAge",
            coalesce(a.backend_type, 'unknown') AS "backendType", ${stamp('a.backend_start')} AS "backendStart",
            coalesce(r.rolsuper, false) AS "superuser", NULL AS "prepared"
     FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
     WHERE ${sessions}
     UNION ALL
     SELECT 'prepared ' || p.gid, 0, p.owner, left('prepared transaction ' || p.gid, 63), 'prepared',
            ${age('p.prepared')}, ${age('p.prepared')}, 'prepared transaction', NULL, false, p.gid
     FROM pg_prepared_xacts p WHERE p.database = current_database() AND ${prepared}
     ORDER BY 6 DESC`,
    [...values],
  );
  return rows;
}

/** A lock on a relation of this database; `relation` is qualified and quoted as in the object map. */
export interface HeldLock {
  readonly relation: string;
  readonly mode: string;
}

/** The locks on relations that these sessions hold now, by their keys. Prepared transactions have no session: nothing is told of them. */
export async function heldLocks(
  client: Client,
  sessions: readonly BlockingSession[],
): Promise<ReadonlyMap<string, readonly HeldLock[]>> {
  const { rows } = await client.query<{ key: string; schema: string; name: string; mode: string }>(
    `SELECT k.key, n.nspname AS "schema", c.relname AS "name", l.mode
     FROM (SELECT concat_ws(' ', a.pid, ${stamp('a.backend_start')}, ${stamp('a.xact_start')}) AS key, a.pid
           FROM pg_stat_activity a) k
     JOIN pg_locks l ON l.pid = k.pid AND l.granted AND l.locktype = 'relation'
                    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
     JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE k.key = ANY ($1)`,
    [sessions.map(({ key }) => key)],
  );
  const byKey = Map.groupBy(rows, ({ key }) => key);
  return new Map(
    [...byKey].map(([key, locks]) => [
      key,
      locks.map(({ schema, name, mode }) => ({ relation: qualifiedName(schema, name), mode })),
    ]),
  );
}

/** Which of these transactions are still open: the keys that are left. */
export async function stillOpen(client: Client, keys: readonly string[]): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ key: string }>(
    `SELECT k.key FROM unnest($1::text[]) AS k(key)
     WHERE k.key IN (SELECT concat_ws(' ', a.pid, ${stamp('a.backend_start')}, ${stamp('a.xact_start')}) FROM pg_stat_activity a
                     WHERE a.xact_start IS NOT NULL)
        OR k.key IN (SELECT 'prepared ' || p.gid FROM pg_prepared_xacts p)`,
    [keys],
  );
  return new Set(rows.map(({ key }) => key));
}
