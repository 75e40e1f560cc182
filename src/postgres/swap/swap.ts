import { setTimeout as pause } from 'node:timers/promises';
import { type Client, escapeLiteral } from 'pg';
import type { SwapEvidence } from '../../contract/evidence/restore.ts';
import { refusal, STEP_ERRORS, StepError } from '../../contract/errors.ts';
import { type ConnectionOptions, runTag, withConnection } from '../connection.ts';
import { type ConnectionTarget, inDatabase, parseConnectionUrl } from '../connection-url.ts';
import { databaseMark, markDatabase } from '../restore/database-mark.ts';
import { findPreparedTransactions } from './blockers.ts';
import { sqlState } from '../database-error.ts';
import { carryFence, carryProperties, commentStatement } from '../catalog/database-properties.ts';
import { withoutLock } from '../lock-scope.ts';
import { emptyDatabases } from '../restore/emptying.ts';
import { boundedIdentifier, sqlName } from '../identifier.ts';
import { readIdentity } from '../identity.ts';
import { endSessions } from '../sessions.ts';
import { endStandbySessions, type StandbyAccess } from '../standbys.ts';
import {
  closingMark,
  databaseNamed,
  type DatabaseState,
  findSwapRecord,
  keptAsideMark,
  reopenAfterInterruptedSwap,
  requireOpen,
  type SwapIdentity,
} from './swap-record.ts';
import { findWayBackBlockers } from './way-back-blockers.ts';

export interface SwapRequest extends SwapIdentity {
  /** libpq URL of production's administrator, resolved, or its parts; leads to the production database. */
  readonly url: string | ConnectionTarget;
  readonly maintenanceDatabase: string;
  /** The restored and compared database that takes production's name. */
  readonly fresh: string;
  readonly step: string;
  readonly standbys: readonly StandbyAccess[];
  /**
   * What the restored database gets from production's rights and settings: `fence` where the restore gave it the backup's own
   * already, for a fence may have been raised or lowered since. @default 'everything'
   */
  readonly carry?: 'everything' | 'fence';
  /** Milliseconds each standby may take to replay the swap and lose its sessions. Default 20 s. */
  readonly standbyLimit?: number;
  /** A last look at the restored database, before anybody is shut out. @returns findings; empty = it may take the place */
  readonly inspectFresh?: (client: Client) => Promise<readonly string[]>;
  readonly signal: AbortSignal;
  readonly progress: (phase: SwapPhase) => void;
}

/** `shut-out`: nobody can connect from here until `swapped` or until connections are let in again. */
export type SwapPhase = 'prepare' | 'shut-out' | 'sessions-ended' | 'swapped' | 'standbys';

export type SwapResult = Omit<SwapEvidence, 'versionRows'>;

/** The part on the primary. */
type Swapped = Pick<SwapEvidence, 'database' | 'keptAside' | 'endedSessions' | 'shutOut' | 'quarantineUntil'> & {
  /** OID of the database put aside. */
  readonly oid: number;
};

/** Milliseconds nobody may connect before the swap gives up and lets everybody in again. */
const SHUT_OUT_LIMIT = 30_000;
const STANDBY_LIMIT = 20_000;

/**
 * Puts the restored database in production's place: connections are shut out, all sessions ended, both names changed in
 * one transaction. The old database is kept aside, closed, under a name that tells the run. Then sessions that are still in
 * the old database on standbys are ended there.
 *
 * Nothing that can be prepared is left for the time of the shut-out. If anything fails before the names have changed,
 * connections are let in again; an attempt that died in between left a mark in the fresh database's comment, by which the
 * next attempt knows that the closed door is this run's own doing. Where commits wait for a synchronous standby, so do the
 * two of the swap. What fails on a standby does not undo the swap: it is told among the evidence's open items.
 */
export async function swapDatabases(request: SwapRequest): Promise<SwapResult> {
  const administrator = typeof request.url === 'string' ? parseConnectionUrl(request.url) : request.url;
  const maintenance = inDatabase(administrator, request.maintenanceDatabase);
  const swapped = await swapOnPrimary(request, administrator, maintenance);
  request.progress('standbys');
  const { oid, ...evidence } = swapped;
  const standbys = await endOnStandbys(request, maintenance, { oid, name: swapped.keptAside }).catch(
    (error: unknown) => {
      request.signal.throwIfAborted();
      // The deed is done: whoever reads of it must not be told otherwise.
      const why = error instanceof Error ? error.message.slice(0, 300) : String(error);
      return { ended: 0, open: [`sessions on standbys may still be reading the replaced database: ${why}`] };
    },
  );
  return { ...evidence, standbySessions: standbys.ended, openItems: standbys.open };
}

async function swapOnPrimary(
  request: SwapRequest,
  administrator: ConnectionTarget,
  maintenance: ConnectionTarget,
): Promise<Swapped> {
  request.progress('prepare');
  const production = administrator.database;
  const prepared = await withConnection(maintenance, sessionOf(request), (client) =>
    prepare(client, administrator, request),
  );
  if (prepared.kind === 'swapped') return prepared.swapped;
  try {
    return await withConnection(maintenance, sessionOf(request), (client) =>
      exchange(client, prepared, production, request),
    );
  } catch (error) {
    const after = await withoutLock(() => settleAfterFailure(maintenance, prepared, production, request));
    if (after !== undefined) return after;
    throw error;
  }
}

const sessionOf = ({ runId, step, signal }: SwapRequest): ConnectionOptions => ({
  runId,
  step,
  signal,
  statementTimeout: 20_000,
});

interface Prepared {
  readonly kind: 'prepared';
  readonly original: DatabaseState;
  readonly fresh: DatabaseState;
  readonly keptAside: string;
  /** SQL that gives production's comment to the fresh database. */
  readonly comment: string;
}

type Preparation = Prepared | { readonly kind: 'swapped'; readonly swapped: Swapped };

async function prepare(client: Client, administrator: ConnectionTarget, request: SwapRequest): Promise<Preparation> {
  const production = administrator.database;
  const original = await databaseNamed(client, production);
  if (original === undefined) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `there is no database "${production}": was it renamed by somebody else?`,
      { database: production },
    );
  }
  if ((await databaseNamed(client, request.fresh)) === undefined) {
    return { kind: 'swapped', swapped: await alreadySwapped(client, original, request) };
  }
  await reopenAfterInterruptedSwap(client, production, request);
  const fresh = (await databaseNamed(client, request.fresh))!;
  requireOpen((await databaseNamed(client, production))!);
  requireOpen(fresh);

  const { maintenanceDatabase, standbys, inspectFresh } = request;
  const session = sessionOf(request);
  const { findings } = await findWayBackBlockers({ administrator, maintenanceDatabase, standbys, session });
  const inspected =
    inspectFresh === undefined
      ? []
      : await withConnection(inDatabase(administrator, request.fresh), session, inspectFresh);
  const carry = request.carry === 'fence' ? carryFence : carryProperties;
  const uncarried = await carry(client, production, request.fresh);
  const all = [...findings, ...inspected, ...uncarried];
  if (all.length > 0) throw refusal(all);
  return {
    kind: 'prepared',
    original,
    fresh,
    keptAside: await freeName(client, production, request.runId),
    comment: await commentStatement(client, production, production),
  };
}

/** The names were swapped by an attempt whose answer was lost. Its record is the comment of the database kept aside. */
async function alreadySwapped(client: Client, production: DatabaseState, request: SwapRequest): Promise<Swapped> {
  const record = await findSwapRecord(client, production, request.runId);
  if (record === undefined) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `the restored database "${request.fresh}" is gone and no database kept aside tells that it took the place of "${production.name}": restore again`,
      { database: production.name, fresh: request.fresh },
    );
  }
  const { oid, keptAside, shutOut, endedSessions, quarantineUntil } = record;
  return { oid, database: production.name, keptAside, shutOut, endedSessions, quarantineUntil };
}

async function exchange(
  client: Client,
  prepared: Prepared,
  production: string,
  request: SwapRequest,
): Promise<Swapped> {
  const { original, fresh } = prepared;
  await markDatabase(client, fresh.name, closingMark(request, production));
  // Whoever is in the fresh database, such as a curious psql, would stop its renaming; it is opened with its new name.
  await client.query(`ALTER DATABASE ${sqlName(fresh.name)} ALLOW_CONNECTIONS false`);
  await endSessions(client, { of: { database: fresh.name }, signal: request.signal });

  const started = performance.now();
  await client.query(`ALTER DATABASE ${sqlName(production)} ALLOW_CONNECTIONS false`);
  request.progress('shut-out');
  let endedSessions = 0;
  for (;;) {
    const left = SHUT_OUT_LIMIT - (performance.now() - started);
    endedSessions += await emptyDatabases(client, {
      databases: [original.oid, fresh.oid],
      within: Math.max(0, Math.min(15_000, left)),
      signal: request.signal,
    });
    request.progress('sessions-ended');
    // The last moment at which it is certain that nothing has happened.
    request.signal.throwIfAborted();
    try {
      const swapped = await rename(client, prepared, production, request, { started, endedSessions });
      request.progress('swapped');
      return swapped;
    } catch (error) {
      // object_in_use: somebody was just logging in as the door was closed.
      if (sqlState(error) !== '55006' || left <= 0) throw error;
      // Prepared before the door was closed, it will not go away by itself.
      const prepared = await findPreparedTransactions(client, production);
      if (prepared.length > 0) throw refusal(prepared);
    }
  }
}

/**
 * Both names, or neither; the comments change with them, so that the record cannot differ from the deed. The old database
 * is closed once more: an earlier attempt that was given up for lost may have let connections in meanwhile. Sent in
 * one message: a round trip to a distant server costs as much as the renaming.
 */
async function rename(
  client: Client,
  { original, fresh, keptAside, comment }: Prepared,
  production: string,
  request: SwapRequest,
  measured: { readonly started: number; readonly endedSessions: number },
): Promise<Swapped> {
  const { started, endedSessions } = measured;
  const shutOut = (): number => Math.ceil(performance.now() - started);
  const mark = keptAsideMark(request, production, {
    keptAside,
    replacedBy: fresh.oid,
    shutOut: shutOut(),
    endedSessions,
  });
  try {
    await client.query(`
      BEGIN;
      ALTER DATABASE ${sqlName(production)} RENAME TO ${sqlName(keptAside)};
      ALTER DATABASE ${sqlName(keptAside)} ALLOW_CONNECTIONS false;
      ALTER DATABASE ${sqlName(fresh.name)} RENAME TO ${sqlName(production)};
      ALTER DATABASE ${sqlName(production)} ALLOW_CONNECTIONS true;
      COMMENT ON DATABASE ${sqlName(keptAside)} IS ${escapeLiteral(databaseMark(mark, original.oid))};
      ${comment};
      COMMIT`);
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
  return {
    oid: original.oid,
    database: production,
    keptAside,
    endedSessions,
    shutOut: shutOut(),
    quarantineUntil: mark.expiresAt,
  };
}

/** Milliseconds between tries to let connections in again: clients that log in by the dozen may hold every slot. */
const REOPEN_PAUSES = [0, 250, 500, 1_000, 2_000, 4_000] as const;

/**
 * Reads what really happened, by OID: a lost answer to COMMIT does not say. Names swapped: the record. Not swapped:
 * connections are let in again, even when the step was cancelled.
 */
async function settleAfterFailure(
  maintenance: ConnectionTarget,
  { original, fresh }: Prepared,
  production: string,
  request: SwapRequest,
): Promise<Swapped | undefined> {
  let last: unknown;
  for (const wait of REOPEN_PAUSES) {
    await pause(wait);
    const session = { ...sessionOf(request), signal: AbortSignal.timeout(20_000) };
    try {
      return await withConnection(maintenance, session, async (client) => {
        const successor = await databaseNamed(client, production);
        if (successor?.oid === fresh.oid) return alreadySwapped(client, successor, request);
        if (successor?.oid === original.oid) await reopenAfterInterruptedSwap(client, production, request);
        return undefined;
      });
    } catch (error) {
      last = error;
    }
  }
  throw new StepError(
    STEP_ERRORS.unavailable,
    `the swap was interrupted and database "${production}" may still be closed to connections; another attempt looks and lets them in again. By hand: ALTER DATABASE ${sqlName(production)} ALLOW_CONNECTIONS true. ${last instanceof Error ? last.message : ''}`,
  );
}

async function endOnStandbys(
  request: SwapRequest,
  maintenance: ConnectionTarget,
  old: { readonly oid: number; readonly name: string },
): Promise<{ readonly ended: number; readonly open: readonly string[] }> {
  if (request.standbys.every(({ sessions }) => sessions === 'none')) return { ended: 0, open: [] };
  const { maintenanceDatabase, standbys, standbyLimit: within = STANDBY_LIMIT } = request;
  const position = await withConnection(maintenance, sessionOf(request), async (client) => {
    const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
    return { swappedAt: rows[0]!.lsn, systemIdentifier: (await readIdentity(client)).systemIdentifier };
  });
  return endStandbySessions({
    standbys,
    maintenanceDatabase,
    old,
    ...position,
    within,
    session: sessionOf(request),
  });
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
