import { findPrograms } from '../archive/programs.ts';
import { fetchLedger, openBackup } from '../archive/stored-backup.ts';
import type { RecoveryActivities } from '../contract/activities.ts';
import type { RestoreInput } from '../contract/evidence.ts';
import { withConnection } from '../postgres/connection.ts';
import { readProductionState } from '../postgres/production-state.ts';
import { restoreFresh } from '../postgres/restore.ts';
import { swapDatabases } from '../postgres/swap.ts';
import { runStep, type StepTools } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { type GuardedProduction, withGuardedProduction } from './production-guard.ts';
import { withRunStore } from './run-store.ts';

/** The way back by backup: into a fresh database, compared with the backup's ledger, then swapped in. */
export function createRestoreActivities(
  deps: ActivityDependencies,
): Pick<RecoveryActivities, 'restoreFreshDatabase' | 'swapDatabases'> {
  const { secrets } = deps;
  const guarded = <T>(
    input: RestoreInput,
    step: string,
    work: (tools: StepTools, production: GuardedProduction) => Promise<T>,
  ): Promise<T> =>
    runStep(secrets, (tools) =>
      withGuardedProduction(
        deps,
        input,
        { step, signal: tools.signal, invalidBefore: input.before.invalidIndexes, progress: tools.progress },
        (production) => work(tools, production),
      ),
    );
  const administratorUrl = ({ profile }: RestoreInput, signal: AbortSignal): Promise<string> =>
    secrets.resolve(profile.databases.production.administrator, profile, signal);

  return {
    restoreFreshDatabase: (input) =>
      guarded(input, 'recovery.restore', (tools, { signal }) =>
        withRunStore(secrets, input, signal, async ({ store }) => {
          const { backup, profile, run } = input;
          const identity = await secrets.resolve(profile.backup.identity, profile, signal);
          const { redactor } = secrets;
          const serverMajor = input.before.identity.serverMajor;
          const programs = await findPrograms(profile, { signal, redactor, serverMajor });
          return restoreFresh({
            url: await administratorUrl(input, signal),
            maintenanceDatabase: profile.databases.production.maintenanceDatabase,
            runId: run.runId,
            step: 'recovery.restore',
            ledger: await fetchLedger(store, backup, signal),
            openBackup: () => openBackup({ store, backup, identity, signal }),
            dumpBytes: backup.dumpBytes,
            pgRestore: { file: programs.pg_restore.file, major: programs.pg_restore.major },
            redactor,
            signal,
            progress: (now) => tools.progress({ ...now }),
          });
        }),
      ),

    swapDatabases: (input) =>
      guarded(input, 'recovery.restore/swap', async (tools, { administrator, migrator, signal }) => {
        const { profile, restored, run } = input;
        const swapped = await swapDatabases({
          url: await administratorUrl(input, signal),
          maintenanceDatabase: profile.databases.production.maintenanceDatabase,
          fresh: restored.freshDatabase,
          runId: run.runId,
          step: 'recovery.restore/swap',
          signal,
          progress: (phase) => tools.progress({ phase }),
        });
        const { state } = await withConnection(
          administrator,
          { runId: run.runId, step: 'recovery.restore/swap', signal },
          (client) =>
            readProductionState(client, { versionTable: profile.alembic.versionTable, migratorRole: migrator.user }),
        );
        return { ...swapped, versionRows: state.versionRows };
      }),
  };
}
