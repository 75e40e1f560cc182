import type { Client } from 'pg';
import { refusal } from '../../contract/errors.ts';
import type { BackupEvidence } from '../../contract/evidence/backup.ts';
import { readIdentity } from '../../postgres/identity.ts';

/** @throws StepError `StepRefused` where the backup is of another database than this one */
export async function refuseForeignBackup(client: Client, { database: of }: BackupEvidence): Promise<void> {
  const { systemIdentifier, database } = await readIdentity(client);
  if (systemIdentifier === of.systemIdentifier && database === of.database) return;
  throw refusal([
    `the backup was taken of database "${of.database}" of system ${of.systemIdentifier}, production is "${database}" of system ${systemIdentifier}`,
  ]);
}
