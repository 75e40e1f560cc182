import type { RecoveryActivities } from '../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { RestoreEvidence, RestoreInput, SwapEvidence, SwapInput } from '../contract/evidence.ts';
import { findPrograms } from '../archive/programs.ts';
import { fetchLedger, openBackup } from '../archive/stored-backup.ts';
import { readVersion } from '../alembic/version-table.ts';
import { withConnection } from '../postgres/connection.ts';
import { restoreFresh } from '../postgres/restore.ts';
import { swapDatabases } from '../postgres/swap.ts';
import { runStep, type StepTools } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { withMigrationLock } from './migration-lock.ts';
import { type RunStore, withRunStore } from './run-store.ts';

type Needed = Pick<ActivityDependencies, 'secrets'>;

const RESTORE = 'recovery.restore';
const SWAP = 'recovery.restore/swap';

export function createRestoreActivities(
  dependencies: Needed,
): Pick<RecoveryActivities, 'restoreFreshDatabase' | 'swapDatabases'> {
  const { secrets } = dependencies;
  return {
    restoreFreshDatabase: (input) =>
      runStep(secrets, (tools) =>
        withRunStore(secrets, input, tools.signal, (store) =>
          withMigrationLock(dependencies, input, RESTORE, tools.signal, (url, signal) =>
            restoreFromBackup(dependencies, input, { ...tools, signal }, store, url),
          ),
        ),
      ),

    swapDatabases: (input) =>
      runStep(secrets, (tools) =>
        withMigrationLock(dependencies, input, SWAP, tools.signal, (url, signal) =>
          swap(input, { ...tools, signal }, url),
        ),
      ),
  };
}

async function restoreFromBackup(
  { secrets }: Needed,
  { run, profile, backup }: RestoreInput,
  { signal, progress }: StepTools,
  { store }: RunStore,
  url: string,
): Promise<RestoreEvidence> {
  const identity = await secrets.resolve(profile.backup.identity, profile, signal);
  const { redactor } = secrets;
  const programs = await findPrograms(profile, { signal, redactor, serverMajor: backup.database.serverMajor });
  const ledger = await fetchLedger(store, backup, signal);
  return restoreFresh({
    url,
    maintenanceDatabase: profile.databases.production.maintenanceDatabase,
    runId: run.runId,
    step: RESTORE,
    ledger,
    openBackup: () => openBackup({ store, backup, identity, signal }),
    dumpBytes: backup.dumpBytes,
    pgRestore: programs.pg_restore,
    redactor,
    signal,
    progress: (now) => progress({ ...now }),
  });
}

async function swap(
  { run, profile, backup, restored }: SwapInput,
  { signal, progress }: StepTools,
  url: string,
): Promise<SwapEvidence> {
  const swapped = await swapDatabases({
    url,
    maintenanceDatabase: profile.databases.production.maintenanceDatabase,
    fresh: restored.freshDatabase,
    runId: run.runId,
    step: SWAP,
    signal,
    progress: (phase) => progress({ phase }),
  });
  // Read through the name the application uses.
  const version = await withConnection(url, { runId: run.runId, step: SWAP, signal }, (client) =>
    readVersion(client, profile.alembic.versionTable),
  );
  const versionRows = version.kind === 'versioned' ? version.rows : [];
  if (versionRows.join() !== [...backup.versionRows].sort().join()) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `the names were swapped, but production stands at ${versionRows.join(', ') || 'no revision'} and the backup at ${backup.versionRows.join(', ') || 'no revision'}; the old database is "${swapped.keptAside}"`,
      { versionRows, keptAside: swapped.keptAside },
    );
  }
  return { ...swapped, versionRows };
}
