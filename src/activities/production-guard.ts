import type { StepInput } from '../contract/evidence.ts';
import { holdMigrationLock } from '../postgres/advisory-lock.ts';
import { type ConnectionTarget, inDatabase, parseConnectionUrl } from '../postgres/connection-url.ts';
import { type DroppedIndexes, dropInvalidIndexes } from '../postgres/leftover-indexes.ts';
import { withConnection } from '../postgres/connection.ts';
import { freshDatabaseName } from '../postgres/restore.ts';
import { reopenAfterInterruptedSwap } from '../postgres/swap-record.ts';
import { endSessions } from '../postgres/sessions.ts';
import type { ActivityDependencies } from './dependencies.ts';

/** Production as a step that may write holds it: under the migration lock, with nobody of an earlier attempt left. */
export interface GuardedProduction {
  readonly administrator: ConnectionTarget;
  readonly migrator: ConnectionTarget;
  /** Aborted with the step, and when the migration lock is lost. */
  readonly signal: AbortSignal;
  readonly endedSessions: number;
  readonly indexes: DroppedIndexes;
}

export interface GuardOptions {
  readonly step: string;
  readonly signal: AbortSignal;
  /** Names of indexes that were invalid before the upgrade: left alone. */
  readonly invalidBefore: readonly string[];
  readonly progress: (details: { readonly phase: string }) => void;
}

/**
 * Takes the migration lock, opens production again where an interrupted swap of this run had closed it, ends every session of the migrator role and sees them gone, drops indexes the migration left
 * invalid, and only then hands production over. A step that was interrupted anywhere starts here again.
 */
export async function withGuardedProduction<T>(
  deps: ActivityDependencies,
  { run, profile }: StepInput,
  options: GuardOptions,
  work: (production: GuardedProduction) => Promise<T>,
): Promise<T> {
  const { secrets } = deps;
  const { production } = profile.databases;
  const administrator = parseConnectionUrl(await secrets.resolve(production.administrator, profile, options.signal));
  const migrator = parseConnectionUrl(await secrets.resolve(production.migrator, profile, options.signal));
  options.progress({ phase: 'taking the migration lock' });
  const lock = await holdMigrationLock(administrator, {
    database: administrator.database,
    maintenanceDatabase: production.maintenanceDatabase,
    runId: run.runId,
    step: options.step,
    signal: options.signal,
  });
  try {
    const lost = new AbortController();
    void lock.lost.then((reason) => lost.abort(reason));
    const signal = AbortSignal.any([options.signal, lost.signal]);
    await withConnection(
      inDatabase(administrator, production.maintenanceDatabase),
      { runId: run.runId, step: options.step, signal },
      (client) =>
        reopenAfterInterruptedSwap(client, administrator.database, {
          fresh: freshDatabaseName(administrator.database, run.runId),
          runId: run.runId,
        }),
    );
    options.progress({ phase: 'ending sessions of the migrator' });
    const leftovers = await withConnection(
      administrator,
      { runId: run.runId, step: options.step, signal, statementTimeout: 180_000 },
      async (client) => {
        const { ended } = await endSessions(client, { of: { role: migrator.user }, signal });
        return { ended: ended.length, indexes: await dropInvalidIndexes(client, options.invalidBefore) };
      },
    );
    return await work({
      administrator,
      migrator,
      signal,
      endedSessions: leftovers.ended,
      indexes: leftovers.indexes,
    });
  } finally {
    await lock.release();
  }
}
