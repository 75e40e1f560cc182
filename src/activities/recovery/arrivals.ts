import { countArrivals as count } from '../../archive/arrivals.ts';
import type { RecoveryActivities } from '../../contract/activities.ts';
import { runStep } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { withMigrationLock } from '../migration-lock.ts';
import { rowsArchiveName, withRunStore } from '../run-store.ts';
import { readRecordedCounters } from '../apply/upgrade-record.ts';

const STEP = 'recovery.arrivals';

/** Counts and exports what came into objects that the downgrade drops: see `countArrivals` of the archive. */
export const countArrivals =
  (deps: Pick<ActivityDependencies, 'secrets'>): RecoveryActivities['countArrivals'] =>
  (input) =>
    runStep(deps.secrets, (tools) =>
      withRunStore(deps.secrets, input, tools.signal, (runStore) =>
        withMigrationLock(deps, input, STEP, tools.signal, async (url, signal) => {
          const { run, profile, dropped } = input;
          const { service, releaseTag, changeTicket } = run;
          const { store, folder } = runStore;
          const since = await readRecordedCounters(runStore, signal);
          return count({
            url,
            dropped,
            ...(since && { since }),
            runId: run.runId,
            step: STEP,
            store,
            folder,
            name: rowsArchiveName('arrivals'),
            recipients: profile.backup.recipients,
            facts: { service, releaseTag, changeTicket },
            signal,
            progress: (now) => tools.progress({ ...now }),
          });
        }),
      ),
    );
