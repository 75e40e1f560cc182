import { setTimeout as pause } from 'node:timers/promises';
import { type Client, escapeLiteral } from 'pg';
import type { SwapEvidence } from '../contract/evidence.ts';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import { findSwapBlockers } from './blockers.ts';
import { type ConnectionOptions, runTag, withConnection } from './connection.ts';
import { type ConnectionTarget, inDatabase, parseConnectionUrl } from './connection-url.ts';
import { sqlState } from './database-error.ts';
import { carryProperties, commentStatement } from './database-properties.ts';
import { boundedIdentifier, sqlName } from './identifier.ts';
import { endSessions } from './sessions.ts';

export interface SwapRequest {
  /** libpq URL of production's administrator, resolved; leads to the production database. */
  readonly url: string;
  readonly maintenanceDatabase: string;
  /** The restored and compared database that takes production's name. */
  readonly fresh: string;
  readonly runId: string;
  readonly step: string;
  readonly signal: AbortSignal;
  readonly progress: (phase: SwapPhase) => void;
}

/** `shut-out`: nobody can connect from here until `swapped` or until connections are let in again. */
export type SwapPhase = 'prepare' | 'shut-out' | 'sessions-ended' | 'swapped';

interface DatabaseState {
  readonly oid: number;
  readonly name: string;
  readonly open: boolean;
  readonly comment: string | null;
}

/** Milliseconds nobody may connect before the swap gives up and lets everybody in again. */
const SHUT_OUT_LIMIT = 30_000;

/**
 * Puts the restored database in production's place: connections are shut out, all sessions ended, both names changed in
 * one transaction. The old database is kept aside, closed, under a name that tells the run.
 *
 * Nothing that can be prepared is left for the time of the shut-out. If anything fails before the names have changed,
 * connections are let in again; an attempt that died in between left a mark in the fresh database's comment, by which the
 * next attempt knows that the closed door is this run's own doing. Sessions on standbys survive and go on reading the old
 * database: they cannot be ended from the primary.
 */
export async function swapDatabases(request: SwapRequest): Promise<Omit<SwapEvidence, 'versionRows'>> {
  const administrator = parseConnectionUrl(request.url);
  const maintenance = inDatabase(administrator, request.maintenanceDatabase);
  const production = administrator.database;

  const prepared = await withConnection(maintenance, sessionOf(request), (client) =>
    prepare(client, production, request),
  );
  if (prepared.kind === 'swapped') return prepared.evidence;

  request.progress('prepare');
  try {
    return await withConnection(maintenance, sessionOf(request), (client) =>
      exchange(client, prepared, production, request),
    );
  } catch (error) {
    const after = await afterFailure(maintenance, prepared, production, request);
    if (after !== undefined) return after;
    throw error;
  }
}

const sessionOf = ({ runId, step, signal }: SwapRequest): ConnectionOptions => ({ runId, step, signal });

interface Prepared {
  readonly kind: 'prepared';
  readonly original: DatabaseState;
  readonly fresh: DatabaseState;
  readonly keptAside: string;
  /** SQL that gives production's comment to the fresh database. */
  readonly comment: string;
}

type Preparation = Prepared | { readonly kind: 'swapped'; readonly evidence: Omit<SwapEvidence, 'versionRows'> };

async function prepare(client: Client, production: string, request: SwapRequest): Promise<Preparation> {
  const original = await databaseNamed(client, production);
  if (original === undefined) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `there is no database "${production}": was it renamed by somebody else?`,
      {
        database: production,
      },
    );
  }
  const fresh = await databaseNamed(client, request.fresh);
  if (fresh === undefined) return alreadySwapped(client, original, request);
  await letInAgain(client, original, fresh, request);

  const findings = [
    ...(await findSwapBlockers(client, production)),
    ...(await carryProperties(client, production, request.fresh)),
  ];
  if (findings.length > 0) throw refusal(findings);
  return {
    kind: 'prepared',
    original,
    fresh,
    keptAside: await freeName(client, production, request.runId),
    comment: await commentStatement(client, production, production),
  };
}

/** The names were swapped by an attempt whose answer was lost. Its record is the comment of the database kept aside. */
async function alreadySwapped(client: Client, original: DatabaseState, request: SwapRequest): Promise<Preparation> {
  const { rows } = await client.query<{ name: string; comment: string }>(
    `SELECT datname AS "name", shobj_description(oid, 'pg_database') AS "comment" FROM pg_database
     WHERE strpos(shobj_description(oid, 'pg_database'), $1) > 0`,
    [replacedBy(request, original.oid)],
  );
  const kept = rows[0];
  const numbers = /\((\d+) ms without connections, (\d+) sessions ended\)/.exec(kept?.comment ?? '');
  if (kept === undefined || numbers === null) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `the restored database "${request.fresh}" is gone and no database kept aside tells that it took the place of "${original.name}": restore again`,
      { database: original.name, fresh: request.fresh },
    );
  }
  return {
    kind: 'swapped',
    evidence: {
      database: original.name,
      keptAside: kept.name,
      shutOut: Number(numbers[1]),
      endedSessions: Number(numbers[2]),
    },
  };
}

/**
 * Lets connections in again that an interrupted swap of this run had shut out: asked in the maintenance database before
 * anything needs to look into production.
 *
 * @param client of the administrator, in the maintenance database
 */
export async function reopenAfterInterruptedSwap(
  client: Client,
  production: string,
  request: Pick<SwapRequest, 'fresh' | 'runId'>,
): Promise<void> {
  const original = await databaseNamed(client, production);
  const fresh = await databaseNamed(client, request.fresh);
  if (original === undefined || original.open || fresh?.comment?.startsWith(closedBy(request)) !== true) return;
  await client.query(`ALTER DATABASE ${sqlName(production)} ALLOW_CONNECTIONS true`);
}

const replacedBy = ({ runId }: SwapRequest, oid: number): string =>
  `Put aside by run ${runId} of migration-runbook, replaced by the database with OID ${oid}`;

const closedBy = ({ runId }: Pick<SwapRequest, 'runId'>): string => `Run ${runId} of migration-runbook has closed `;

/** A production database that is closed was closed by an earlier attempt of this run, or is none of our business. */
async function letInAgain(
  client: Client,
  original: DatabaseState,
  fresh: DatabaseState,
  request: SwapRequest,
): Promise<void> {
  if (original.open) return;
  if (fresh.comment?.startsWith(closedBy(request)) !== true) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `database "${original.name}" accepts no connections (ALLOW_CONNECTIONS false), and it was not this run that closed it`,
      { database: original.name },
    );
  }
  await client.query(`ALTER DATABASE ${sqlName(original.name)} ALLOW_CONNECTIONS true`);
}

async function exchange(
  client: Client,
  prepared: Prepared,
  production: string,
  request: SwapRequest,
): Promise<Omit<SwapEvidence, 'versionRows'>> {
  const { fresh, keptAside } = prepared;
  // Whoever is in the fresh database, such as a curious psql, would stop its renaming.
  await endSessions(client, { of: { database: fresh.name }, signal: request.signal });
  // The mark comes before the deed.
  const mark = `${closedBy(request)}database "${production}" at ${new Date().toISOString()} to put this one in its place`;
  await client.query(`COMMENT ON DATABASE ${sqlName(fresh.name)} IS ${escapeLiteral(mark)}`);

  const started = performance.now();
  await client.query(`ALTER DATABASE ${sqlName(production)} ALLOW_CONNECTIONS false`);
  request.progress('shut-out');
  const ended = new Set<string>();
  for (;;) {
    const left = SHUT_OUT_LIMIT - (performance.now() - started);
    const { ended: sessions } = await endSessions(client, {
      of: { database: production },
      within: Math.max(0, Math.min(15_000, left)),
      signal: request.signal,
    });
    for (const session of sessions) ended.add(`${session.pid} ${session.backendStart ?? ''}`);
    request.progress('sessions-ended');
    try {
      const shutOut = await rename(client, prepared, production, request, { started, endedSessions: ended.size });
      request.progress('swapped');
      return { database: production, keptAside, endedSessions: ended.size, shutOut };
    } catch (error) {
      // object_in_use: somebody was just logging in as the door was closed.
      if (sqlState(error) !== '55006' || left <= 0) throw error;
      await pause(100, undefined, { signal: request.signal });
    }
  }
}

/** Both names, or neither. The comments change with them, so that the record cannot differ from the deed. */
async function rename(
  client: Client,
  { fresh, keptAside, comment }: Prepared,
  production: string,
  request: SwapRequest,
  measured: { readonly started: number; readonly endedSessions: number },
): Promise<number> {
  await client.query('BEGIN');
  try {
    await client.query(`ALTER DATABASE ${sqlName(production)} RENAME TO ${sqlName(keptAside)}`);
    await client.query(`ALTER DATABASE ${sqlName(fresh.name)} RENAME TO ${sqlName(production)}`);
    const shutOut = Math.ceil(performance.now() - measured.started);
    const record = `${replacedBy(request, fresh.oid)} at ${new Date().toISOString()} (${shutOut} ms without connections, ${measured.endedSessions} sessions ended). Closed to connections; drop it once nothing in it is needed any more.`;
    await client.query(`COMMENT ON DATABASE ${sqlName(keptAside)} IS ${escapeLiteral(record)}`);
    await client.query(comment);
    await client.query('COMMIT');
    return Math.ceil(performance.now() - measured.started);
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

/**
 * Reads what really happened, by OID: a lost answer to COMMIT does not say. Names swapped: the evidence. Not swapped:
 * connections are let in again, even when the step was cancelled.
 */
async function afterFailure(
  maintenance: ConnectionTarget,
  { original }: Prepared,
  production: string,
  request: SwapRequest,
): Promise<Omit<SwapEvidence, 'versionRows'> | undefined> {
  const session = { ...sessionOf(request), signal: AbortSignal.timeout(20_000) };
  return withConnection(maintenance, session, async (client) => {
    const { rows } = await client.query<{ name: string }>('SELECT datname AS "name" FROM pg_database WHERE oid = $1', [
      original.oid,
    ]);
    if (rows[0]?.name === production) {
      await client.query(`ALTER DATABASE ${sqlName(production)} ALLOW_CONNECTIONS true`);
      return undefined;
    }
    const successor = await databaseNamed(client, production);
    if (successor === undefined) return undefined;
    const found = await alreadySwapped(client, successor, request);
    return found.kind === 'swapped' ? found.evidence : undefined;
  }).catch((error: unknown) => {
    throw new StepError(
      STEP_ERRORS.unavailable,
      `the swap was interrupted and database "${production}" may still be closed to connections; another attempt looks and lets them in again. ${error instanceof Error ? error.message : ''}`,
    );
  });
}

async function databaseNamed(client: Client, name: string): Promise<DatabaseState | undefined> {
  const { rows } = await client.query<DatabaseState>(
    `SELECT oid::int8::float8 AS "oid", datname AS "name", datallowconn AS "open", shobj_description(oid, 'pg_database') AS "comment"
     FROM pg_database WHERE datname = $1`,
    [name],
  );
  return rows[0];
}

/** `<database>_before_<run>`, numbered where one run restores more than once. */
async function freeName(client: Client, production: string, runId: string): Promise<string> {
  const { rows } = await client.query<{ name: string }>('SELECT datname AS "name" FROM pg_database');
  const taken = new Set(rows.map(({ name }) => name));
  for (let number = 1; ; number += 1) {
    const name = boundedIdentifier(production, `_before_${runTag(runId)}${number === 1 ? '' : `_${number}`}`);
    if (!taken.has(name)) return name;
  }
}
