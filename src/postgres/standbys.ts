import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Standby } from '../contract/profile.ts';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import { type ConnectionOptions, withConnection } from './connection.ts';
import { inDatabase, parseConnectionUrl } from './connection-url.ts';
import { emptyDatabases } from './restore/emptying.ts';
import { isInRecovery, readIdentity } from './identity.ts';

/** A standby of the profile with its administrator's address resolved; undefined where the profile gives none. */
export interface StandbyAccess {
  readonly name: string;
  readonly sessions: Standby['sessions'];
  readonly url?: string | undefined;
}

export interface StandbyInspection {
  readonly database: string;
  readonly maintenanceDatabase: string;
  readonly standbys: readonly StandbyAccess[];
  readonly session: ConnectionOptions;
}

/**
 * Before anything is swapped: can the sessions of every standby be ended once production's name leads elsewhere? They
 * survive a swap on the primary and would go on reading the database put aside.
 *
 * @param client of the administrator, on the primary, in any database
 * @returns findings, in words; empty = nothing stands in the way
 */
export async function findStandbyBlockers(
  client: Client,
  { database, maintenanceDatabase, standbys, session }: StandbyInspection,
): Promise<string[]> {
  const findings = await unnamedStandbys(client, standbys);
  const { systemIdentifier } = await readIdentity(client);
  for (const standby of standbys) {
    if (standby.sessions === 'none') continue;
    if (standby.url === undefined) {
      findings.push(
        `standby "${standby.name}": give databases.production.standbys[].administrator, or say sessions: none. Its sessions would go on reading the old database after a restore`,
      );
      continue;
    }
    const found = await onStandby(standby.url, maintenanceDatabase, session, (there) =>
      inspectStandby(there, database, systemIdentifier),
    ).catch((error: unknown) => {
      session.signal.throwIfAborted();
      if (!(error instanceof StepError)) throw error;
      return [error.message];
    });
    findings.push(...found.map((text) => `standby "${standby.name}": ${text}`));
  }
  return findings;
}

/** Other receivers have no sessions: pg_receivewal, base backups, logical subscribers. */
async function unnamedStandbys(client: Client, standbys: readonly StandbyAccess[]): Promise<string[]> {
  const { rows } = await client.query<{ name: string; address: string }>(
    `SELECT r.application_name AS "name", coalesce(host(r.client_addr), 'a local socket') AS "address"
     FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
     WHERE r.state IN ('streaming', 'catchup')
       -- A receiver without a database replays nothing and reports no position of its own.
       AND r.replay_lsn IS NOT NULL
       AND coalesce(s.slot_type, 'physical') = 'physical'
       AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = r.pid AND a.datid IS NOT NULL)
       AND r.application_name <> ALL ($1)
     ORDER BY 1`,
    [standbys.map(({ name }) => name)],
  );
  const hidden = await client.query('SELECT FROM pg_stat_replication WHERE state IS NULL');
  if (hidden.rows.length > 0) {
    return ['which standbys stream from production cannot be seen: the administrator lacks pg_monitor'];
  }
  return rows.map(
    ({ name, address }) =>
      `standby "${name}" (${address}) streams from production and is not named in the profile: add it to databases.production.standbys, for its sessions would go on reading the old database after a restore`,
  );
}

/** Whose sessions are ended must be the standby, never a primary that took its address. */
async function requireStandby(there: Client, systemIdentifier: string): Promise<void> {
  if ((await isInRecovery(there)) === 'primary') {
    throw refusal([
      'its administrator address leads to a server that is not in recovery: give the address of the standby itself',
    ]);
  }
  const found = await readIdentity(there);
  if (found.systemIdentifier !== systemIdentifier) {
    throw refusal([`its administrator address leads to a standby of another system (${found.systemIdentifier})`]);
  }
}

async function inspectStandby(there: Client, database: string, systemIdentifier: string): Promise<string[]> {
  await requireStandby(there, systemIdentifier);
  const { rows } = await there.query<{ superuser: boolean; signal: boolean; monitor: boolean; role: string }>(
    `SELECT rolname AS "role", rolsuper AS "superuser", pg_has_role('pg_signal_backend', 'USAGE') AS "signal",
            pg_has_role('pg_monitor', 'USAGE') AS "monitor"
     FROM pg_roles WHERE rolname = current_user`,
  );
  const { role, superuser, signal, monitor } = rows[0]!;
  if (superuser) return [];
  const untouchable = await there.query<{ pid: number; role: string | null; application: string | null }>(
    `SELECT a.pid, a.usename AS "role", a.application_name AS "application"
     FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE a.datname = $1 AND r.rolsuper ORDER BY a.pid`,
    [database],
  );
  return [
    ...(signal ? [] : [`role "${role}" lacks pg_signal_backend: GRANT pg_signal_backend TO ${role} on the primary`]),
    ...(monitor ? [] : [`role "${role}" lacks pg_monitor: GRANT pg_monitor TO ${role} on the primary`]),
    ...untouchable.rows.map(
      (session) =>
        `a superuser is connected to database "${database}" there (pid ${session.pid}, role "${session.role}", application "${session.application}"), whom "${role}" cannot end: close that session`,
    ),
  ];
}

export interface StandbySessions {
  /** Sessions that were still in the old database. */
  readonly ended: number;
  /** What could not be done, in words, with what to do; empty = nobody reads the old database any more. */
  readonly open: readonly string[];
}

export interface EndStandbySessions {
  readonly standbys: readonly StandbyAccess[];
  readonly maintenanceDatabase: string;
  /** The database put aside: by OID, for the standby may not have replayed its new name. */
  readonly old: { readonly oid: number; readonly name: string };
  readonly systemIdentifier: string;
  /** A position of the primary's WAL behind the swap's commit. */
  readonly swappedAt: string;
  /** Milliseconds for each standby. */
  readonly within: number;
  readonly session: ConnectionOptions;
}

/**
 * After the swap: ends all sessions in the old database on every standby, until the standby has replayed the swap and none
 * is left. From then on none can come in: that the database is closed is replayed with its name. Standbys are done side by
 * side; what fails on one does not keep the others from being done.
 *
 * @throws nothing of the standbys' troubles: the swap has happened, so they are told as open matters
 */
export async function endStandbySessions(request: EndStandbySessions): Promise<StandbySessions> {
  const done = await Promise.all(
    request.standbys
      .filter(({ sessions }) => sessions === 'end')
      .map(
        (standby): Promise<StandbySessions> =>
          endOnOne(standby, request).then(
            (ended) => ({ ended, open: [] }),
            (error: unknown) => {
              request.session.signal.throwIfAborted();
              const { oid, name } = request.old;
              const why = error instanceof Error ? error.message : String(error);
              return {
                ended: 0,
                open: [
                  `standby "${standby.name}": sessions may go on reading the old database "${name}" (${why}). Once it answers, end them there: SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datid = ${oid}`,
                ],
              };
            },
          ),
      ),
  );
  return {
    ended: done.reduce((sum, { ended }) => sum + ended, 0),
    open: done.flatMap(({ open }) => open),
  };
}

/** Pause before the second look: a login that was let in just before the closed door was replayed shows itself by then. */
const SECOND_LOOK = 200;

async function endOnOne(standby: StandbyAccess, request: EndStandbySessions): Promise<number> {
  const { url } = standby;
  if (url === undefined) throw new StepError(STEP_ERRORS.refused, 'the profile gives no administrator for it');
  const { maintenanceDatabase, session, old, swappedAt, systemIdentifier, within } = request;
  const deadline = performance.now() + within;
  const limited = { ...session, signal: AbortSignal.any([session.signal, AbortSignal.timeout(within + 15_000)]) };
  return onStandby(url, maintenanceDatabase, limited, async (client) => {
    const { signal } = limited;
    let ended = 0;
    for (;;) {
      await requireStandby(client, systemIdentifier);
      // From the start: a long query in the old database may be what keeps the standby from replaying.
      ended += await emptyDatabases(client, {
        databases: [old.oid],
        within: Math.max(1_000, deadline - performance.now()),
        signal,
      });
      const { rows } = await client.query<{ replayed: boolean }>(
        'SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS "replayed"',
        [swappedAt],
      );
      if (rows[0]?.replayed === true) break;
      if (performance.now() > deadline) {
        throw new StepError(
          STEP_ERRORS.unavailable,
          `it has not replayed the swap (${swappedAt}) within ${Math.round(within / 1000)} s`,
        );
      }
      await pause(50, undefined, { signal });
    }
    await pause(SECOND_LOOK, undefined, { signal });
    return ended + (await emptyDatabases(client, { databases: [old.oid], within: 5_000, signal }));
  });
}

const onStandby = <T>(
  url: string,
  maintenanceDatabase: string,
  session: ConnectionOptions,
  work: (client: Client) => Promise<T>,
): Promise<T> => withConnection(inDatabase(parseConnectionUrl(url), maintenanceDatabase), session, work);
