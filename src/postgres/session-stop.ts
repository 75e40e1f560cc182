import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { migrationLockHolder } from './advisory-lock.ts';
import { type OpenConnection, openConnection } from './connection.ts';
import type { ConnectionTarget } from './connection-url.ts';
import { currentLock, withoutLock } from './lock-scope.ts';
import { describeSession, listSessions, type Session, signalBackend } from './sessions.ts';

/** Whose sessions are to be stopped, and by whom. */
export interface SessionStopOptions {
  /** Leads to the database that is migrated, by a role with pg_signal_backend. */
  readonly administrator: ConnectionTarget;
  /** Where the migration lock is held, and where the connection stays: out of the way of the migration's own locks. */
  readonly maintenanceDatabase: string;
  /** The migrator's login role. */
  readonly role: string;
  readonly runId: string;
  readonly step: string;
}

/** What was seen when everything had stopped. */
export interface SessionsStopped {
  readonly endedSessions: number;
  /** From the call until none was left and none could come back. */
  readonly milliseconds: number;
}

/** Stands ready to stop a migration's sessions, over a connection that is there before it is needed. */
export interface SessionStop {
  /**
   * Cancels the sessions at once, terminates them shortly after, and goes on with whoever connects, until `silenced` has
   * settled and none is left then.
   *
   * @param silenced settles when nobody can open sessions any more: the process group is gone
   * @param onNoneLeft called whenever no session is left before that
   * @param within milliseconds
   * @throws StepError `StateUnexpected` naming who remains, or `OutsideUnavailable` when the server could not be asked
   */
  stop(silenced: Promise<void>, onNoneLeft: () => void, within: number): Promise<SessionsStopped>;
  /** Ends the connection; never throws. */
  close(): Promise<void>;
}

/** The migration may still hear that its statement was cancelled; then its session goes, whatever it does about that. */
const CANCEL_TO_TERMINATE = 100;
const POLL = 25;
/** A server that does not answer for so long is asked over another connection. */
const PATIENCE = 1_500;
/** A connection that is merely idle tells nothing about the server behind it. */
const PROBE_INTERVAL = 5_000;

/** @throws StepError when the first connection cannot be opened, or the migration lock is not held */
export async function prepareSessionStop(options: SessionStopOptions): Promise<SessionStop> {
  const connection = await lastingConnection(options);
  try {
    const { database } = options.administrator;
    const holder = await connection.ask((client) => migrationLockHolder({ client }, database));
    const own = currentLock();
    if (holder === undefined || (own !== undefined && own.pid !== holder.pid)) {
      throw new StepError(STEP_ERRORS.unavailable, 'the migration lock was lost before the migration began');
    }
    return {
      stop: (silenced, onNoneLeft, within) =>
        stopSessions(connection, { ...options, lockPid: holder.pid, silenced, onNoneLeft, within }),
      close: () => connection.close(),
    };
  } catch (error) {
    await connection.close();
    throw error;
  }
}

interface StopInstructions extends SessionStopOptions {
  /** Backend that held the migration lock when the migration began. */
  readonly lockPid: number;
  readonly silenced: Promise<void>;
  readonly onNoneLeft: () => void;
  readonly within: number;
}

async function stopSessions(connection: LastingConnection, options: StopInstructions): Promise<SessionsStopped> {
  const began = performance.now();
  const elapsed = (): number => performance.now() - began;
  const seen = new Set<string>();
  const quiet = { silenced: false };
  void options.silenced.then(() => {
    quiet.silenced = true;
  });
  let emptyReadings = 0;
  let left: readonly Session[] = [];
  let unanswered: string | undefined;
  for (;;) {
    const { silenced } = quiet;
    try {
      left = await connection.ask((client) => stopRound(client, options, elapsed(), seen));
      unanswered = undefined;
      if (left.length === 0) options.onNoneLeft();
      // Who was still logging in when its process died may show in the second reading.
      emptyReadings = left.length === 0 && silenced ? emptyReadings + 1 : 0;
      if (emptyReadings === 2) return { endedSessions: seen.size, milliseconds: Math.round(elapsed()) };
    } catch (error) {
      unanswered = error instanceof Error ? error.message : 'no answer';
    }
    if (elapsed() > options.within) throw notStopped(left, unanswered);
    await pause(POLL);
  }
}

/** @returns who was there before the round */
async function stopRound(
  client: Client,
  { role, administrator, lockPid }: StopInstructions,
  elapsed: number,
  seen: Set<string>,
): Promise<readonly Session[]> {
  const present = await listSessions(client, { role });
  if (present.length === 0) return present;
  const holder = await migrationLockHolder({ client }, administrator.database);
  // A later attempt holds production: it has seen our sessions gone before it began, and those there now are its own.
  if (holder !== undefined && holder.pid !== lockPid) return [];
  for (const session of present) {
    const key = `${session.pid} ${session.backendStart ?? ''}`;
    if (!seen.has(key)) await signalBackend(client, session, 'pg_cancel_backend');
    if (elapsed >= CANCEL_TO_TERMINATE) await signalBackend(client, session, 'pg_terminate_backend');
    seen.add(key);
  }
  return present;
}

function notStopped(left: readonly Session[], unanswered: string | undefined): StepError {
  if (unanswered !== undefined) {
    return new StepError(
      STEP_ERRORS.unavailable,
      `the server cannot be asked whether sessions of the migration are left: ${unanswered}`,
    );
  }
  return new StepError(
    STEP_ERRORS.stateUnexpected,
    left.length === 0
      ? 'processes of the migration could not be stopped; none of its sessions is left'
      : `${left.length} session(s) of the migration could not be ended: ${left.slice(0, 8).map(describeSession).join('; ')}`,
    { sessions: left.slice(0, 50) },
  );
}

interface LastingConnection {
  /** Asks over the connection, and over another one where that does not answer. */
  ask<T>(question: (client: Client) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

async function lastingConnection(options: SessionStopOptions): Promise<LastingConnection> {
  const open = (): Promise<OpenConnection> =>
    openConnection(options.administrator, {
      runId: options.runId,
      step: `${options.step}/stop`,
      signal: new AbortController().signal,
      database: options.maintenanceDatabase,
      statementTimeout: 5_000,
    });
  // The first one is bound to the migration lock; those after it are to stop what is left once that is lost.
  const first = await open();
  let current = Promise.resolve(first);
  let state: 'open' | 'closed' = 'open';
  /** Of those who find the same connection silent at the same time the first one opens another: none is left behind. */
  const insteadOf = (silent: Promise<OpenConnection>): Promise<OpenConnection> => {
    if (current !== silent || state === 'closed') return current;
    void silent.then((connection) => connection.end()).catch(() => undefined);
    current = withoutLock(open);
    return current;
  };
  const ask = async <T>(question: (client: Client) => Promise<T>): Promise<T> => {
    const asked = current;
    try {
      return await answerWithin(question((await asked).client));
    } catch {
      return answerWithin(question((await insteadOf(asked)).client));
    }
  };
  const probe = setInterval(() => {
    ask((client) => client.query('SELECT 1')).catch(() => undefined);
  }, PROBE_INTERVAL);
  probe.unref();
  return {
    ask,
    close: async () => {
      clearInterval(probe);
      state = 'closed';
      await current.then((connection) => connection.end()).catch(() => undefined);
    },
  };
}

async function answerWithin<T>(answer: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new StepError(STEP_ERRORS.unavailable, 'the server does not answer')),
    PATIENCE,
  );
  try {
    return await Promise.race([answer, late.promise]);
  } finally {
    clearTimeout(timer);
    answer.catch(() => undefined);
  }
}
