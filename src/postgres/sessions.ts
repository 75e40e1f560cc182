import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { sqlState } from './database-error.ts';

/** One client session. What the asking role may not see (it lacks pg_monitor) is null. */
export interface Session {
  readonly pid: number;
  readonly role: string;
  readonly database: string;
  readonly application: string;
  /** ISO 8601. */
  readonly backendStart: string | null;
  readonly state: string | null;
  /** Milliseconds since the open transaction, and the running or last statement, began. */
  readonly transactionAge: number | null;
  readonly queryAge: number | null;
  readonly superuser: boolean;
  /** As `pg_stat_activity.backend_type`: `client backend`, `walsender`, `background worker`, `logical replication worker`. */
  readonly backendType: string | null;
}

/** Whose sessions: all of a login role on the server, or all in a database. */
export type SessionsOf = { readonly role: string } | { readonly database: string };

/** Sessions of clients, replication of logical slots included; the asking session left out. */
export async function listSessions(client: Client, of: SessionsOf): Promise<Session[]> {
  const [column, value] = 'role' in of ? ['a.usename', of.role] : ['a.datname', of.database];
  const { rows } = await client.query<Session>(
    `SELECT a.pid,
            a.usename AS "role",
            coalesce(a.datname, '') AS "database",
            coalesce(a.application_name, '') AS "application",
            to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "backendStart",
            a.state,
            (extract(epoch FROM clock_timestamp() - a.xact_start) * 1000)::float8 AS "transactionAge",
            (extract(epoch FROM clock_timestamp() - a.query_start) * 1000)::float8 AS "queryAge",
            coalesce(r.rolsuper, false) AS "superuser", a.backend_type AS "backendType"
     FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
     WHERE ${column} = $1 AND a.pid <> pg_backend_pid()
       AND coalesce(a.backend_type, 'client backend') IN ('client backend', 'walsender', 'background worker', 'logical replication worker')
     ORDER BY a.backend_start, a.pid`,
    [value],
  );
  return rows;
}

export interface EndSessionsOptions {
  readonly of: SessionsOf;
  /** Backends to leave alone. */
  readonly except?: readonly number[];
  /** Default: all of them. */
  readonly only?: (session: Session) => boolean;
  /** Milliseconds until whoever is left is reported. Default 15 s. */
  readonly within?: number;
  readonly signal: AbortSignal;
}

export interface EndedSessions {
  readonly ended: readonly Session[];
}

/**
 * Ends sessions on the server and returns once none is left. Each is cancelled first, so that its transaction ends in an
 * orderly way, then terminated; whoever connects meanwhile is ended too.
 *
 * @param client of a role with pg_signal_backend, in a database that is not being emptied
 * @throws StepError `StateUnexpected`, naming who remains and why
 */
export async function endSessions(client: Client, options: EndSessionsOptions): Promise<EndedSessions> {
  const deadline = Date.now() + (options.within ?? 15_000);
  const seen = new Map<string, Session>();
  const refused = new Map<number, string>();
  for (;;) {
    options.signal.throwIfAborted();
    const present = (await listSessions(client, options.of)).filter(
      (session) => !options.except?.includes(session.pid) && (options.only?.(session) ?? true),
    );
    if (present.length === 0) return { ended: [...seen.values()] };
    for (const session of present) {
      const first = !seen.has(keyOf(session));
      seen.set(keyOf(session), session);
      // One statement each: a superuser's session fails the statement and would shield those behind it.
      if (first) await signalBackend(client, session, 'pg_cancel_backend');
      const failure = await signalBackend(client, session, 'pg_terminate_backend');
      if (failure !== undefined) refused.set(session.pid, failure);
    }
    if (Date.now() > deadline) throw remaining(present, refused);
    await pause(100, undefined, { signal: options.signal });
  }
}

const keyOf = (session: Session): string => `${session.pid} ${session.backendStart ?? ''}`;

/**
 * Backend start beside the process id: the id may belong to somebody else by now.
 *
 * @returns why it is not permitted; undefined when the signal was sent or there was nobody to send it to
 */
export async function signalBackend(
  client: Client,
  session: Pick<Session, 'pid' | 'backendStart' | 'superuser'>,
  how: 'pg_cancel_backend' | 'pg_terminate_backend',
): Promise<string | undefined> {
  try {
    await client.query(
      `SELECT ${how}(pid) FROM pg_stat_activity
       WHERE pid = $1
         AND to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') IS NOT DISTINCT FROM $2`,
      [session.pid, session.backendStart],
    );
    return undefined;
  } catch (error) {
    if (sqlState(error) !== '42501') throw error;
    return session.superuser
      ? 'a superuser, whom only a superuser may end'
      : 'not permitted: pg_signal_backend is missing';
  }
}

function remaining(sessions: readonly Session[], refused: ReadonlyMap<number, string>): StepError {
  const names = sessions
    .slice(0, 8)
    .map((session) => `${describeSession(session)}${refused.has(session.pid) ? ` (${refused.get(session.pid)})` : ''}`);
  return new StepError(
    STEP_ERRORS.stateUnexpected,
    `${sessions.length} session(s) could not be ended: ${names.join('; ')}${sessions.length > 8 ? ' ...' : ''}`,
    { sessions: sessions.slice(0, 50) },
  );
}

export const describeSession = (session: Session): string =>
  `pid ${session.pid}, role "${session.role}", application "${session.application}", since ${session.backendStart ?? 'unknown'}`;
