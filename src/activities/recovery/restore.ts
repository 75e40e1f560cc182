import type { RecoveryActivities } from '../../contract/activities.ts';
import type { RestoreEvidence, RestoreInput } from '../../contract/evidence/restore.ts';
import { findPrograms } from '../../archive/programs.ts';
import { fetchLedger, openBackup } from '../../archive/stored-backup.ts';
import { restoreFresh } from '../../postgres/restore/restore.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import { freeBytesReading } from '../capacity.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { withMigrationLock } from '../migration-lock.ts';
import { type RunStore, withRunStore } from '../run-store.ts';
import { standbyAccess } from '../standby-access.ts';
import { SWAP, swapIn } from './swap.ts';

type Needed = Pick<ActivityDependencies, 'secrets' | 'stateDirectory'>;

const RESTORE = 'recovery.restore';

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
          swapIn(dependencies, input, { ...tools, signal }, url),
        ),
      ),
  };
}

async function restoreFromBackup(
  dependencies: Needed,
  input: RestoreInput,
  tools: StepTools,
  { store }: RunStore,
  url: string,
): Promise<RestoreEvidence> {
  const { secrets } = dependencies;
  const { run, profile, backup } = input;
  const { signal, progress } = tools;
  const { production } = profile.databases;
  const identity = await secrets.resolve(profile.backup.identity, profile, signal);
  const { redactor } = secrets;
  const programs = await findPrograms(profile, { signal, redactor, serverMajor: backup.database.serverMajor });
  const ledger = await fetchLedger(store, backup, identity, signal);
  let silent: { readonly storeSilentSince?: string } = {};
  const storeSilent = (since: Date | undefined): void => {
    silent = since === undefined ? {} : { storeSilentSince: since.toISOString() };
  };
  return restoreFresh({
    url,
    maintenanceDatabase: production.maintenanceDatabase,
    runId: run.runId,
    step: RESTORE,
    ledger,
    openBackup: () => openBackup({ store, backup, identity, signal, storeSilent }),
    dumpBytes: backup.dumpBytes,
    jobs: profile.restore.jobs,
    pgRestore: programs.pg_restore,
    mark: {
      service: run.service,
      workflowId: run.workflowId,
      expiresAt: new Date(Date.now() + profile.restore.quarantine).toISOString(),
    },
    standbys: await standbyAccess(secrets, profile, signal),
    room: {
      capacity: profile.restore.capacity,
      freeBytes: freeBytesReading(dependencies, input, tools),
    },
    redactor,
    signal,
    progress: (now) => progress({ ...now, ...silent }),
  });
}
