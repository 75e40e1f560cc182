import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import { sqlState } from '../database-error.ts';

export interface EmptyingOptions {
  /** OIDs of the databases: names may be changing meanwhile. */
  readonly databases: readonly number[];
  /** Milliseconds until whoever is left is reported. */
  readonly within: number;
  readonly signal: AbortSignal;
}

interface Occupant {
  readonly pid: number;
  readonly role: string | null;
  readonly application: string | null;
  readonly start: string | null;
  readonly kind: string | null;
  readonly allowed: boolean;
}

/** Milliseconds for a session that may not be ended to leave by itself, such as a monitoring query of a superuser. */
const GRACE = 1_500;

/**
 * Ends every session in these databases at once and returns when none is left. For when nobody can connect any more and each
 * millisecond counts: no cancelling first, and a look every few milliseconds. Where time does not press, `endSessions` is
 * the gentler way. Autovacuum gives way to a rename by itself.
 *
 * @param client of a role with pg_signal_backend, in another database
 * @returns how many different sessions were there
 * @throws StepError `StateUnexpected`, naming who remains and why
 */
export async function emptyDatabases(client: Client, options: EmptyingOptions): Promise<number> {
  const started = performance.now();
  const seen = new Set<string>();
  for (let wait = 2; ; wait = Math.min(wait * 1.5, 50)) {
    options.signal.throwIfAborted();
    const present = await endAllIn(client, options.databases);
    if (present.length === 0) return seen.size;
    for (const { pid, start } of present) seen.add(`${pid} ${start ?? ''}`);
    const elapsed = performance.now() - started;
    const untouchable = present.filter(({ allowed }) => !allowed);
    if (elapsed > options.within || (untouchable.length > 0 && elapsed > GRACE)) throw remaining(present);
    await pause(wait, undefined, { signal: options.signal });
  }
}

/** Looks and ends in one statement. */
async function endAllIn(client: Client, databases: readonly number[]): Promise<Occupant[]> {
  // A superuser's session is ended by a superuser only, and the attempt would fail the whole statement.
  const select = (ending: string): string => `
    SELECT a.pid, a.usename AS "role", a.application_name AS "application", a.backend_start::text AS "start",
           a.backend_type AS "kind", may.be_ended AS "allowed"${ending}
    FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid,
         LATERAL (SELECT NOT coalesce(r.rolsuper, true) OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)) AS may(be_ended)
    WHERE a.datid = ANY ($1::int8[]::oid[]) AND a.pid <> pg_backend_pid()
      AND coalesce(a.backend_type, '') <> 'autovacuum worker'`;
  try {
    const { rows } = await client.query<Occupant>(
      select(', CASE WHEN may.be_ended THEN pg_terminate_backend(a.pid) END'),
      [databases],
    );
    return rows;
  } catch (error) {
    if (sqlState(error) !== '42501') throw error;
  }
  const { rows } = await client.query<Occupant>(select(''), [databases]);
  const ended: Occupant[] = [];
  for (const occupant of rows) {
    const allowed = await client.query('SELECT pg_terminate_backend($1)', [occupant.pid]).then(
      () => true,
      (error: unknown) => {
        if (sqlState(error) !== '42501') throw error;
        return false;
      },
    );
    ended.push({ ...occupant, allowed });
  }
  return ended;
}

function remaining(present: readonly Occupant[]): StepError {
  const names = present
    .slice(0, 8)
    .map(
      ({ pid, role, application, kind, allowed }) =>
        `pid ${pid}, ${kind ?? 'session'} of role "${role ?? 'none'}", application "${application ?? ''}"${allowed ? '' : ' (the administrator may not end it: a superuser, or pg_signal_backend is missing)'}`,
    );
  return new StepError(
    STEP_ERRORS.stateUnexpected,
    `${present.length} session(s) could not be ended: ${names.join('; ')}${present.length > 8 ? ' ...' : ''}`,
    { sessions: present.slice(0, 50) },
  );
}
