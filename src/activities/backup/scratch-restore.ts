import { findPrograms } from '../../archive/programs.ts';
import { fetchLedger, openBackup } from '../../archive/stored-backup.ts';
import type { BackupEvidence } from '../../contract/evidence/backup.ts';
import type { StepInput } from '../../contract/evidence/step.ts';
import type { CopyKind } from '../../postgres/restore/scratch-copy.ts';
import { restoreIsolated, type RestoredCopy } from '../../rehearsal/scratch.ts';
import type { ScratchWorld } from '../../rehearsal/scratch-world.ts';
import type { StepTools } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { withRunStore } from '../run-store.ts';

/** A stored backup on the scratch server, compared with its ledger and cut off from the rest of the world. */
export function restoreOnScratch(
  { secrets }: Pick<ActivityDependencies, 'secrets'>,
  { run, profile }: StepInput,
  { world, kind, backup }: { readonly world: ScratchWorld; readonly kind: CopyKind; readonly backup: BackupEvidence },
  { signal, progress }: Pick<StepTools, 'signal' | 'progress'>,
): Promise<RestoredCopy> {
  return withRunStore(secrets, { run, profile }, signal, async ({ store }) => {
    const identity = await secrets.resolve(profile.backup.identity, profile, signal);
    const { redactor } = secrets;
    const programs = await findPrograms(profile, { signal, redactor, serverMajor: backup.database.serverMajor });
    progress({ phase: 'prepare' });
    return restoreIsolated({
      world,
      kind,
      ledger: await fetchLedger(store, backup, identity, signal),
      production: await secrets.resolve(profile.databases.production.administrator, profile, signal),
      openBackup: () => openBackup({ store, backup, identity, signal }),
      dumpBytes: backup.dumpBytes,
      jobs: profile.restore.jobs,
      pgRestore: programs.pg_restore,
      redactor,
      progress: (now) => progress({ ...now }),
    });
  });
}
