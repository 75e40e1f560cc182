import type { BackupActivities } from '../contract/activities.ts';
import { captureDump } from '../archive/dump.ts';
import { findPrograms } from '../archive/programs.ts';
import { verifyStoredBackup } from '../archive/verify.ts';
import { runStep } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { withRunStore } from './run-store.ts';

export function createBackupActivities({ secrets }: Pick<ActivityDependencies, 'secrets'>): BackupActivities {
  return {
    captureBackup: (input) =>
      runStep(secrets, ({ signal, progress }) =>
        withRunStore(secrets, input, signal, async ({ store, folder }) => {
          const { profile, run, step } = input;
          const url = await secrets.resolve(profile.databases.production.backup, profile, signal);
          const { redactor } = secrets;
          const programs = await findPrograms(profile, { signal, redactor });
          return captureDump({
            url,
            versionTable: profile.alembic.versionTable,
            pgDump: programs.pg_dump,
            store,
            folder,
            runId: run.runId,
            step,
            recipients: profile.backup.recipients,
            redactor,
            signal,
            progress: (now) => progress({ ...now }),
          });
        }),
      ),

    verifyBackup: (input) =>
      runStep(secrets, ({ signal, progress }) =>
        withRunStore(secrets, input, signal, async ({ store }) => {
          const { profile, backup } = input;
          const identity = await secrets.resolve(profile.backup.identity, profile, signal);
          const { redactor } = secrets;
          const programs = await findPrograms(profile, { signal, redactor, serverMajor: backup.database.serverMajor });
          return verifyStoredBackup({
            store,
            backup,
            identity,
            pgRestore: programs.pg_restore,
            redactor,
            signal,
            progress: (now) => progress({ ...now }),
          });
        }),
      ),
  };
}
