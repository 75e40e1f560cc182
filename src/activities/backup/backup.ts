import type { BackupActivities } from '../../contract/activities.ts';
import { drillFolder, serviceFolder } from '../../archive/backup-names.ts';
import { captureDump } from '../../archive/dump.ts';
import { latestManifest, recordVerification } from '../../archive/manifest.ts';
import { findPrograms } from '../../archive/programs.ts';
import { predictRestore } from '../../archive/restore-prediction.ts';
import { verifyStoredBackup } from '../../archive/verify.ts';
import { runStep } from '../activity-step.ts';
import { requireCurrentAttempt } from '../current-attempt.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { nameInExecution, withRunStore } from '../run-store.ts';

export function createBackupActivities({ secrets }: Pick<ActivityDependencies, 'secrets'>): BackupActivities {
  return {
    captureBackup: (input) =>
      runStep(secrets, ({ signal, progress, attempt }) =>
        withRunStore(secrets, input, signal, async ({ store, folder }) => {
          const { profile, run } = input;
          const url = await secrets.resolve(profile.databases.production.backup, profile, signal);
          const { redactor } = secrets;
          const programs = await findPrograms(profile, { signal, redactor });
          const last = await latestManifest(store, `${serviceFolder(profile.backup, run.service)}/`, signal);
          return captureDump({
            url,
            versionTable: profile.alembic.versionTable,
            pgDump: programs.pg_dump,
            store,
            folder,
            run,
            step: nameInExecution(input.step, run.runId),
            attempt,
            requireCurrent: requireCurrentAttempt,
            recipients: profile.backup.recipients,
            sampleAbove: profile.backup.sampleAbove,
            ...(last === undefined ? {} : { last }),
            redactor,
            signal,
            progress: (now) => progress({ ...now }),
          });
        }),
      ),

    verifyBackup: (input) =>
      runStep(secrets, ({ signal, progress }) =>
        withRunStore(secrets, input, signal, async ({ store }) => {
          const { profile, run, backup } = input;
          const identity = await secrets.resolve(profile.backup.identity, profile, signal);
          const { redactor } = secrets;
          const programs = await findPrograms(profile, { signal, redactor, serverMajor: backup.database.serverMajor });
          const verified = await verifyStoredBackup({
            store,
            backup,
            identity,
            pgRestore: programs.pg_restore,
            redactor,
            signal,
            progress: (now) => progress({ ...now }),
          });
          const { milliseconds } = verified;
          const at = new Date().toISOString();
          await recordVerification(store, backup, { at, milliseconds, by: `run ${run.runId}` }, signal);
          const predictedRestore = await predictRestore(
            store,
            drillFolder(profile.backup, run.service),
            backup,
            signal,
          );
          return { ...verified, predictedRestore };
        }),
      ),
  };
}
