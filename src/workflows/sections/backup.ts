/** Section 3 of the document: backup. */
import type { BackupEvidence } from '../../contract/evidence/backup.ts';
import type { MigrationRun } from '../run.ts';
import { TELL, TRANSFER } from '../step-policies.ts';
import { ownSteps } from './own-steps.ts';

export async function backup(run: MigrationRun): Promise<BackupEvidence> {
  const captured = await captureAndVerify(run, {
    capture: 'backup.capture',
    record: 'backup.record',
    verify: 'backup.verify',
  });
  await ownSteps(run, 'backup');
  return captured;
}

/** Step ids of the three parts: a refreshed backup goes the same way under ids of its own. */
interface BackupStepIds {
  readonly capture: string;
  readonly record: string;
  readonly verify: string;
}

export async function captureAndVerify(run: MigrationRun, ids: BackupStepIds): Promise<BackupEvidence> {
  const step = run.state.nextStepId(ids.capture);
  const since = Date.now();
  const captured = await run.step(
    ids.capture,
    'Consistent dump with its ledger, encrypted, streamed to the object store',
    TRANSFER,
    (activities) => activities.captureBackup({ ...run.input(), step }),
  );
  await run.step(ids.record, 'Record the backup in the change ticket', TELL, (activities) =>
    activities.performActions({
      ...run.input(),
      actions: run.profile.ticket,
      message: {
        kind: 'backup-recorded',
        title: `Backup of ${run.request.service} before ${run.request.releaseTag}`,
        text: `Backup ${captured.uri}, ${captured.bytes} bytes, SHA-256 ${captured.sha256}, taken ${captured.capturedAt} at LSN ${captured.lsn}.`,
        facts: {
          step,
          uri: captured.uri,
          bytes: captured.bytes,
          sha256: captured.sha256,
          lsn: captured.lsn,
          capturedAt: captured.capturedAt,
        },
      },
    }),
  );
  const verification = await run.step(
    ids.verify,
    'Read the stored backup back: decrypt, digest, contents, full decode',
    TRANSFER,
    (activities) => activities.verifyBackup({ ...run.input(), backup: captured }),
  );
  run.state.backups.push(captured);
  run.state.backupSince = since;
  run.state.verification = verification;
  run.state.isBackupBehindFence = run.state.fence !== undefined;
  return captured;
}
