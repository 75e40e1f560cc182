import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import { readVersion, type VersionTableName } from '../alembic/version-table.ts';
import type { BlockerRegister } from './blocker-register.ts';
import { type IndexBuild, readIndexBuilds } from './catalog/index-builds.ts';
import { withConnection } from './connection.ts';
import type { ConnectionTarget } from './connection-url.ts';
import { type BlockingSession, type LockWait, lookAtMigration, type MigrationSession } from './lock-waits.ts';

/** Time limits, milliseconds; 0 = none. */
export interface WatchLimits {
  /** Waiting for a lock in front of the application. */
  readonly lock: number;
  /** Waiting for a lock, or for older transactions, beside it: CONCURRENTLY, VALIDATE CONSTRAINT. */
  readonly concurrentLock: number;
  /** Running, but not CONCURRENTLY or VALIDATE CONSTRAINT. */
  readonly statement: number;
}

/** Why the watch has stopped a statement. */
export type WatchStop =
  | { readonly kind: 'lock-timeout' | 'beyond-footprint'; readonly wait: LockWait }
  | { readonly kind: 'statement-timeout'; readonly session: MigrationSession };

/** What one look has shown. */
export interface WatchedMigration {
  readonly blockers: readonly BlockingSession[];
  readonly running: readonly MigrationSession[];
  /** The longest wait. */
  readonly wait: LockWait | undefined;
  /** `public.jobs 45 %, building index: scanning table`. */
  readonly index: string | undefined;
  /** Version rows as they are committed. */
  readonly versionRows: readonly string[];
}

export interface WatchOptions {
  /** Leads to the migration's database; of a role with pg_monitor and pg_signal_backend. */
  readonly administrator: ConnectionTarget;
  readonly runId: string;
  readonly step: string;
  /** Login role that only the migration uses. */
  readonly role: string;
  readonly versionTable: VersionTableName;
  readonly limits: WatchLimits;
  /** Does the migration keep these limits itself? Then the watch steps in a second after them, otherwise at them. */
  readonly limitsInside: () => 'kept' | 'not-known';
  /** Is this wait surely for a lock that the rehearsal did not take? */
  readonly isBeyond: (wait: LockWait) => boolean;
  readonly register: BlockerRegister;
  /** Number of the try that is watched. */
  readonly inTry: number;
  readonly signal: AbortSignal;
  readonly onLook: (seen: WatchedMigration) => void;
  /** It cannot look, and tries again: until it can, only what the migration keeps itself holds. */
  readonly onBlind: (why: string) => void;
}

export interface MigrationWatch {
  /** The statement it has stopped; none once the migration has got on after that. */
  readonly stopped: WatchStop | undefined;
  /**
   * The migration itself tells how a statement ended: well, or by a failure that no stop brings about.
   * @param at when it ended, milliseconds since the epoch
   */
  readonly gotOn: (at: number) => void;
  /** Ends the watch; never throws. */
  readonly end: () => Promise<void>;
}

const INTERVAL = 250;
/** A statement's own time-out comes first. */
const GRACE = 1_000;
const EARLY = 100;
/** Between two connections, where one was lost. */
const RECONNECT = 500;
/** Every so many looks the version table and index builds are read too. */
const SELDOM = 4;

/**
 * Looks at a running migration four times a second from a session of its own: who stands in its way, and since when. Stops
 * statements that wait or run longer than they may, and those that wait for a lock beyond the rehearsed ones. It is there
 * with every driver and every wrapper; a connection that is lost is opened again.
 */
export function watchMigration(options: WatchOptions): MigrationWatch {
  const ended = new AbortController();
  const signal = AbortSignal.any([options.signal, ended.signal]);
  const watch = new Watch(options);
  const watching = (async () => {
    while (!signal.aborted) {
      await withConnection(
        options.administrator,
        // A look that has to wait itself is no look.
        { runId: options.runId, step: `${options.step}/watch`, signal, lockTimeout: 100, statementTimeout: 10_000 },
        (client) => watch.run(client, signal),
      ).catch((error: unknown) => {
        if (!signal.aborted) options.onBlind(error instanceof Error ? error.message : String(error));
      });
      await pause(RECONNECT, undefined, { signal }).catch(() => undefined);
    }
  })();
  return {
    get stopped() {
      return watch.stopped;
    },
    gotOn: (at) => watch.gotOn(at),
    end: async () => {
      ended.abort();
      await watching.catch(() => undefined);
    },
  };
}

class Watch {
  stopped: WatchStop | undefined;
  /** By this process's clock. */
  private stoppedAt = 0;
  private gotOnAt = 0;
  private readonly options: WatchOptions;
  private looks = 0;
  private index: string | undefined;
  private versionRows: readonly string[] = [];

  constructor(options: WatchOptions) {
    this.options = options;
  }

  async run(client: Client, signal: AbortSignal): Promise<void> {
    for (;;) {
      const next = await this.look(client);
      await pause(next, undefined, { signal });
    }
  }

  /** @returns milliseconds until something may be due */
  private async look(client: Client): Promise<number> {
    const { register, role, inTry } = this.options;
    const { sessions, waits } = await lookAtMigration(client, role);
    this.forgetWhatWasGotOver(sessions);
    await this.readSeldom(client, sessions);
    const wait = waits.toSorted((a, b) => b.waited - a.waited)[0];
    const blockers = uniqueBlockers(waits);
    const running = sessions.filter(({ running: since }) => since !== null);
    this.options.onLook({ blockers, running, wait, index: this.index, versionRows: this.versionRows });
    await register.meet(client, blockers, inTry);
    let next = INTERVAL;
    for (const one of waits) next = Math.min(next, await this.judgeWait(client, one));
    for (const session of running) await this.judgeStatement(client, session);
    return next;
  }

  /** @returns milliseconds until this wait is over its limit */
  private async judgeWait(client: Client, wait: LockWait): Promise<number> {
    if (this.options.isBeyond(wait)) {
      await this.stop(client, { kind: 'beyond-footprint', wait });
      return INTERVAL;
    }
    const { limits } = this.options;
    const limit = classOf(wait) === 'concurrent' ? limits.concurrentLock : limits.lock;
    if (limit === 0) return INTERVAL;
    const left = limit + this.grace(limit) - wait.waited;
    if (left > 0) return Math.max(1, left);
    await this.stop(client, { kind: 'lock-timeout', wait });
    return INTERVAL;
  }

  private async judgeStatement(client: Client, session: MigrationSession): Promise<void> {
    const { statement } = this.options.limits;
    if (statement === 0 || session.class === 'concurrent' || session.running === null) return;
    if (session.running > statement + this.grace(statement))
      await this.stop(client, { kind: 'statement-timeout', session });
  }

  /** Where nobody else keeps the limit it is kept a little early: to end a wait takes its time too. */
  private grace(limit: number): number {
    return this.options.limitsInside() === 'kept' ? GRACE : -Math.min(EARLY, limit / 20);
  }

  gotOn(at: number): void {
    this.gotOnAt = Math.max(this.gotOnAt, at);
    if (at >= this.stoppedAt) this.stopped = undefined;
  }

  /** Where the migration tells nothing itself, what its session did next tells. */
  private forgetWhatWasGotOver(sessions: readonly MigrationSession[]): void {
    if (this.stopped === undefined) return;
    const { pid, since, statementSince } = sessionOf(this.stopped);
    const now = sessions.find((session) => session.pid === pid && session.since === since);
    if (now?.standing === 'got-on' && now.statementSince !== statementSince) this.stopped = undefined;
  }

  /**
   * Only what still waits, or still runs: the statement may have come through meanwhile, and the next one must not be hit for
   * it. What was not hit counts as not stopped.
   */
  private async stop(client: Client, stop: WatchStop): Promise<void> {
    const { pid, since, statementSince } = sessionOf(stop);
    const condition =
      stop.kind === 'statement-timeout'
        ? `a.state = 'active'`
        : 'EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted)';
    const at = Date.now();
    const { rows } = await client.query<{ hit: boolean }>(
      `SELECT pg_cancel_backend(a.pid) AS "hit" FROM pg_stat_activity a
       WHERE a.pid = $1 AND to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') = $2
         AND to_char(a.query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') = $3 AND ${condition}`,
      [pid, since, statementSince],
    );
    // The migration may have told of it before the server's answer was here.
    if (this.stopped !== undefined || !rows.some(({ hit }) => hit) || this.gotOnAt >= at) return;
    this.stopped = stop;
    this.stoppedAt = at;
  }

  /** For people: what cannot be read is left as it was. */
  private async readSeldom(client: Client, sessions: readonly MigrationSession[]): Promise<void> {
    this.looks += 1;
    if (this.looks % SELDOM !== 1) return;
    const pids = new Set(sessions.map(({ pid }) => pid));
    try {
      this.index =
        (await readIndexBuilds(client))
          .filter(({ pid }) => pids.has(pid))
          .map(describeBuild)
          .join('; ') || undefined;
      const version = await readVersion(client, this.options.versionTable);
      this.versionRows = version.kind === 'versioned' ? version.rows : [];
    } catch {
      // Somebody has a lock on the version table, or the connection is gone: the next look tells.
    }
  }
}

const sessionOf = (stop: WatchStop): MigrationSession =>
  stop.kind === 'statement-timeout' ? stop.session : stop.wait.session;

/**
 * Waits for older transactions come from CONCURRENTLY only. A wait for ACCESS EXCLUSIVE keeps readers waiting behind it,
 * whichever statement waits; and so does every wait of a transaction that has such a lock already, as VALIDATE CONSTRAINT after
 * the ADD CONSTRAINT in one revision.
 */
function classOf({ kind, mode, session }: LockWait): 'concurrent' | 'exclusive' {
  if (kind === 'snapshots') return 'concurrent';
  return mode === 'AccessExclusiveLock' || session.keepsOut ? 'exclusive' : session.class;
}

function uniqueBlockers(waits: readonly LockWait[]): BlockingSession[] {
  const byKey = new Map<string, BlockingSession>();
  for (const { blockers } of waits) for (const blocker of blockers) byKey.set(blocker.key, blocker);
  return [...byKey.values()];
}

const describeBuild = ({ table, phase, share, awaited }: IndexBuild): string =>
  [
    share === null ? table : `${table} ${Math.round(share * 100)} %`,
    phase,
    ...(awaited > 0 ? [`${awaited} transaction(s) to be waited for`] : []),
  ].join(', ');
