import { createHash } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import { applicationPrefix, type OpenConnection, openConnection } from './connection.ts';
import type { ConnectionTarget } from './connection-url.ts';
import { SESSION_NAMESPACE, underLock, withoutLock } from './lock-scope.ts';

/** First key of every lock of this project ("mrlk"): people find the locks in `pg_locks.classid` by it. */
export const MIGRATION_LOCK_NAMESPACE = 0x6d72_6c6b;

/** Second key: by the database's name, since a swap gives the name to another database. */
export const migrationLockKey = (database: string): number =>
  createHash('sha256').update(database).digest().readInt32BE(0);

export interface MigrationLockOptions {
  readonly database: string;
  /** Advisory locks are per database; held in the maintenance database one does not stand in the way of a rename. */
  readonly maintenanceDatabase: string;
  readonly runId: string;
  readonly step: string;
  readonly signal: AbortSignal;
  /**
   * Throws where a later attempt has begun: asked before the lock is taken from another session of the run, and again once it
   * is held. Who was current then, and goes on later, finds the lock taken from him.
   */
  readonly requireCurrent?: () => Promise<void>;
}

export interface MigrationLock {
  readonly pid: number;
  readonly target: ConnectionTarget;
  /** Settles when the connection is gone, and the lock with it; never rejects. Whoever holds the lock stops then. */
  readonly lost: Promise<StepError>;
  /** Ends the connection, and with it the lock; never throws. */
  readonly release: () => Promise<void>;
}

interface Holder {
  readonly pid: number;
  readonly role: string | null;
  readonly application: string | null;
  readonly since: string | null;
}

/** A connection that is merely idle tells nothing about the server behind it. */
const PROBE_INTERVAL = 5_000;

/**
 * Takes the one lock that every migration of this database holds while it writes, against those who do not come through
 * the workflow. A lock left by an earlier attempt of the same run is taken over: its session is ended first, and so is
 * every session opened under it. Prefer `underMigrationLock`.
 *
 * @param url of the administrator
 * @throws StepError `StepRefused` naming the holder
 */
export async function holdMigrationLock(
  url: string | ConnectionTarget,
  options: MigrationLockOptions,
): Promise<MigrationLock> {
  const connection = await withoutLock(() =>
    openConnection(url, {
      runId: options.runId,
      step: `${options.step}/lock`,
      signal: options.signal,
      database: options.maintenanceDatabase,
      idleTimeout: 0,
    }),
  );
  try {
    await acquire(connection, options);
    await options.requireCurrent?.();
    await endBoundSessions(connection, options);
  } catch (error) {
    await connection.end();
    throw error;
  }
  return watched(connection);
}

/**
 * Does the work under the lock, and stops it when the lock is lost. The sessions it opens on that server are bound to the lock.
 *
 * @throws as `holdMigrationLock`, and what the work threw
 */
export async function underMigrationLock<T>(
  url: string | ConnectionTarget,
  options: MigrationLockOptions,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const lock = await holdMigrationLock(url, options);
  const { pid, target } = lock;
  const key = migrationLockKey(options.database);
  const lost = new AbortController();
  void lock.lost.then((reason) => lost.abort(reason));
  try {
    return await underLock(
      { host: target.host, port: target.port, namespace: MIGRATION_LOCK_NAMESPACE, key, pid },
      () => work(AbortSignal.any([options.signal, lost.signal])),
    );
  } finally {
    await lock.release();
  }
}

/** Who holds the lock of this database; undefined when nobody does. For status and refusals. */
export async function migrationLockHolder(
  connection: Pick<OpenConnection, 'client'>,
  database: string,
): Promise<Holder | undefined> {
  const { rows } = await connection.client.query<Holder>(
    `SELECT l.pid, a.usename AS "role", a.application_name AS "application",
            to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS "since"
     FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
       AND l.classid::int8 = $1 AND l.objid::int8 = $2
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    // pg_locks shows the signed key as an unsigned OID.
    [MIGRATION_LOCK_NAMESPACE, migrationLockKey(database) >>> 0],
  );
  return rows[0];
}

async function acquire(connection: OpenConnection, options: MigrationLockOptions): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    options.signal.throwIfAborted();
    const { rows } = await connection.client.query<{ locked: boolean }>(
      'SELECT pg_try_advisory_lock($1, $2) AS locked',
      [MIGRATION_LOCK_NAMESPACE, migrationLockKey(options.database)],
    );
    if (rows[0]!.locked) return;
    const holder = await migrationLockHolder(connection, options.database);
    if (holder !== undefined) {
      if (holder.application?.startsWith(applicationPrefix(options.runId)) !== true || Date.now() > deadline) {
        throw refusal([
          `the migration lock of database "${options.database}" is held by pid ${holder.pid}, role "${holder.role ?? 'unknown'}", application "${holder.application ?? 'unknown'}", since ${holder.since ?? 'unknown'}: let it finish, or end that session`,
        ]);
      }
      await options.requireCurrent?.();
      await connection.client.query('SELECT pg_terminate_backend($1)', [holder.pid]);
    }
    await pause(100, undefined, { signal: options.signal });
  }
}

/** Sessions that attempts before have opened under the lock. Gone before anything else is done: they may be in the midst of it. */
async function endBoundSessions(connection: OpenConnection, options: MigrationLockOptions): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    options.signal.throwIfAborted();
    const { rows } = await connection.client.query<{ pid: number }>(
      `SELECT DISTINCT pid FROM pg_locks
       WHERE locktype = 'advisory' AND objsubid = 2 AND classid::int8 = $1 AND objid::int8 = $2`,
      [SESSION_NAMESPACE, migrationLockKey(options.database) >>> 0],
    );
    if (rows.length === 0) return;
    const pids = rows.map(({ pid }) => pid);
    if (Date.now() > deadline) {
      throw new StepError(
        STEP_ERRORS.unavailable,
        `sessions of an earlier attempt on database "${options.database}" could not be ended: pid ${pids.join(', ')}`,
      );
    }
    await connection.client.query('SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid', [pids]);
    await pause(50, undefined, { signal: options.signal });
  }
}

/** Also notices a server that vanished without a goodbye. */
function watched(connection: OpenConnection): MigrationLock {
  const lost = Promise.withResolvers<StepError>();
  void connection.lost.then(lost.resolve);
  let answered = true;
  const timer = setInterval(() => {
    if (!answered) {
      lost.resolve(
        new StepError(STEP_ERRORS.unavailable, 'the connection that holds the migration lock no longer answers'),
      );
      return;
    }
    answered = false;
    connection.client.query('SELECT 1').then(
      () => {
        answered = true;
      },
      () => undefined,
    );
  }, PROBE_INTERVAL);
  timer.unref();
  return {
    pid: connection.pid,
    target: connection.target,
    lost: lost.promise,
    release: async () => {
      clearInterval(timer);
      await connection.end();
    },
  };
}
