import type { StepInput } from '../../contract/evidence/step.ts';
import { type ConnectionTarget, inDatabase, parseConnectionUrl } from '../../postgres/connection-url.ts';
import { type DroppedIndexes, dropInvalidIndexes, indexesGone } from '../../postgres/catalog/leftover-indexes.ts';
import { withConnection } from '../../postgres/connection.ts';
import { freshDatabaseName } from '../../postgres/restore/restore.ts';
import { reopenAfterInterruptedSwap } from '../../postgres/swap/swap-record.ts';
import { endSessions } from '../../postgres/sessions.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { withMigrationLock } from '../migration-lock.ts';
import type { RunStore } from '../run-store.ts';
import { readDrops, recordDrop } from './upgrade-record.ts';

/** Production as a step that may write holds it: under the migration lock, with nobody of an earlier attempt left. */
export interface GuardedProduction {
  readonly administrator: ConnectionTarget;
  readonly migrator: ConnectionTarget;
  /** Aborted with the step, and when the migration lock is lost. */
  readonly signal: AbortSignal;
  readonly endedSessions: number;
  readonly indexes: DroppedIndexes;
  /** Indexes that earlier attempts of the run, of whatever step, have dropped and that have not come back. */
  readonly droppedEarlier: readonly string[];
}

export interface GuardOptions {
  readonly step: string;
  readonly signal: AbortSignal;
  /** Names of indexes that were invalid before the upgrade: left alone. */
  readonly invalidBefore: readonly string[];
  /** Of the run: what is dropped is written down there first. */
  readonly store: RunStore;
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
  const { production } = profile.databases;
  const migrator = parseConnectionUrl(await deps.secrets.resolve(production.migrator, profile, options.signal));
  options.progress({ phase: 'taking the migration lock' });
  return withMigrationLock(deps, { run, profile }, options.step, options.signal, async (url, signal) => {
    const administrator = parseConnectionUrl(url);
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
        const droppedEarlier = await indexesGone(client, await readDrops(options.store, signal));
        const beforeDrop = recordDrop(options.store, options.step);
        const indexes = await dropInvalidIndexes(client, options.invalidBefore, beforeDrop);
        return { ended: ended.length, indexes, droppedEarlier };
      },
    );
    return work({
      administrator,
      migrator,
      signal,
      endedSessions: leftovers.ended,
      indexes: leftovers.indexes,
      droppedEarlier: leftovers.droppedEarlier,
    });
  });
}
