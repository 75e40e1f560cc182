import type { RunFacts } from '../contract/evidence.ts';
import type { BackupProfile } from '../contract/profile.ts';

/** Folder of everything a run stores: `<prefix>/<service>/<first run id>`, without a slash at either end. */
export const runFolder = (backup: Pick<BackupProfile, 'prefix'>, run: Pick<RunFacts, 'service' | 'runId'>): string =>
  [backup.prefix.replace(/^\/+|\/+$/g, ''), run.service, run.runId].filter((part) => part !== '').join('/');

/** Names of the two objects of a backup. The same step of the same run has the same names, so a retry replaces them. */
export function backupKeys(folder: string, step: string): { readonly dump: string; readonly ledger: string } {
  return { dump: `${folder}/${step}.dump.age`, ledger: `${folder}/${step}.ledger.json` };
}
