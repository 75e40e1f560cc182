import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import { endSessions } from '../sessions.ts';
import { hasStatisticsCollector, readCounters, type TableCounters } from './write-counters.ts';

export interface SettledCounters {
  readonly counters: TableCounters;
  /** Sessions that may have written what is not counted yet, in words. Empty = the counters tell everything. */
  readonly unsettled: readonly string[];
}

export interface SettleOptions {
  readonly signal: AbortSignal;
  readonly progress: (details: { readonly phase: string; readonly sessions: number }) => void;
  /** Milliseconds to wait for sessions to come to rest by themselves. Default 12.5 s, enough for one that idles. */
  readonly patience?: number;
}

/** PGSTAT_IDLE_INTERVAL: an idle session reports what it kept back after 10 s. Until PostgreSQL 14 it never does. */
const IDLE_REPORT = 10_500;
/** PGSTAT_MIN_INTERVAL: a busy session reports as a transaction ends, at most once a second (until 14: twice). */
const BUSY_REPORT = 1_100;
const PATIENCE = 12_500;

/**
 * The counters once every session has reported what it committed before now. A session whose one transaction outlasts that
 * is ended, unless it writes: a session that ends reports. So is, until PostgreSQL 14, one that idles instead of reporting.
 * Takes no time where nobody else is connected.
 *
 * @param client of the administrator, in the database itself
 */
export async function settledCounters(client: Client, options: SettleOptions): Promise<SettledCounters> {
  const deadline = Date.now() + (options.patience ?? PATIENCE);
  const beginning = await serverClock(client);
  const idleSessions = (await hasStatisticsCollector(client)) ? 'keep back' : 'report';
  /** When each session was last seen to write; what it wrote before is what it has to report. */
  const written = new Map<string, number>();
  const reported = new Set<string>();
  for (;;) {
    options.signal.throwIfAborted();
    const { clock, sessions } = await openSessions(client);
    const waiting = sessions.filter((session) => {
      const key = keyOf(session);
      if (session.writes) {
        written.set(key, clock);
        reported.delete(key);
        return true;
      }
      const since = written.get(key) ?? (session.start > beginning ? undefined : beginning);
      if (since === undefined || hasReported(session, { since, clock, idleSessions })) reported.add(key);
      return !reported.has(key);
    });
    if (waiting.length === 0) return { counters: await readCounters(client), unsettled: [] };
    if (Date.now() > deadline) {
      const unsettled = [
        ...waiting.filter(({ writes }) => writes).map((session) => `${describe(session)}, writes`),
        ...(await endThose(client, new Set(waiting.filter(({ writes }) => !writes).map(keyOf)), options.signal)),
      ];
      return { counters: await readCounters(client), unsettled };
    }
    if (idleSessions === 'keep back') await endThose(client, idleTooLong(waiting, clock), options.signal);
    options.progress({ phase: 'waiting until every session has reported what it wrote', sessions: waiting.length });
    await pause(250, undefined, { signal: options.signal });
  }
}

interface OpenSession {
  readonly pid: number;
  readonly role: string;
  readonly application: string;
  /** As `Session.backendStart`. */
  readonly backendStart: string;
  /** Milliseconds since the epoch, by the server's clock. */
  readonly start: number;
  readonly idleSince: number | null;
  /** Its transaction has written: it has an id. */
  readonly writes: boolean;
}

const hasReported = (
  { idleSince }: OpenSession,
  { since, clock, idleSessions }: { since: number; clock: number; idleSessions: 'report' | 'keep back' },
): boolean =>
  idleSince !== null &&
  (idleSince >= since + BUSY_REPORT || (idleSessions === 'report' && clock - idleSince >= IDLE_REPORT));

const idleTooLong = (sessions: readonly OpenSession[], clock: number): ReadonlySet<string> =>
  new Set(sessions.filter(({ idleSince }) => idleSince !== null && clock - idleSince >= IDLE_REPORT).map(keyOf));

const keyOf = ({ pid, backendStart }: { readonly pid: number; readonly backendStart: string | null }): string =>
  `${pid} ${backendStart ?? ''}`;

const describe = ({ pid, role, application, backendStart }: OpenSession): string =>
  `pid ${pid}, role "${role}", application "${application}", since ${backendStart}`;

async function serverClock(client: Client): Promise<number> {
  const { rows } = await client.query<{ clock: number }>(
    `SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS "clock"`,
  );
  return rows[0]!.clock;
}

/** Whoever may write to this database: clients, background workers, logical replication. */
async function openSessions(client: Client): Promise<{ clock: number; sessions: OpenSession[] }> {
  const { rows } = await client.query<OpenSession>(
    `SELECT a.pid, coalesce(a.usename, '') AS "role", coalesce(a.application_name, '') AS "application",
            to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "backendStart",
            (extract(epoch FROM a.backend_start) * 1000)::float8 AS "start",
            CASE WHEN a.state = 'idle' THEN (extract(epoch FROM a.state_change) * 1000)::float8 END AS "idleSince",
            a.backend_xid IS NOT NULL AS "writes"
     FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
       AND a.backend_type IN ('client backend', 'background worker', 'logical replication worker')
     ORDER BY a.backend_start, a.pid`,
  );
  return { clock: await serverClock(client), sessions: rows };
}

/** @returns those that could not be ended */
async function endThose(client: Client, keys: ReadonlySet<string>, signal: AbortSignal): Promise<readonly string[]> {
  if (keys.size === 0) return [];
  const { rows } = await client.query<{ database: string }>('SELECT current_database() AS "database"');
  try {
    await endSessions(client, {
      of: { database: rows[0]!.database },
      only: (session) => keys.has(keyOf(session)),
      within: 5_000,
      signal,
    });
    return [];
  } catch (error) {
    if (!(error instanceof StepError) || error.type !== STEP_ERRORS.stateUnexpected) throw error;
    return [error.message];
  }
}
