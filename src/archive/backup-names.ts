import type { RunFacts } from '../contract/evidence/step.ts';
import type { BackupProfile } from '../contract/profile.ts';

const withoutSlashes = (text: string): string => text.replace(/^\/+|\/+$/g, '');

const joined = (...parts: readonly string[]): string => parts.filter((part) => part !== '').join('/');

/** Folder of everything that is stored for a service: `<prefix>/<service>`, without a slash at either end. */
export const serviceFolder = (backup: Pick<BackupProfile, 'prefix'>, service: string): string =>
  joined(withoutSlashes(backup.prefix), service);

/** Folder of everything a run stores: `<prefix>/<service>/<first run id>`, without a slash at either end. */
export const runFolder = (backup: Pick<BackupProfile, 'prefix'>, run: Pick<RunFacts, 'service' | 'runId'>): string =>
  joined(serviceFolder(backup, run.service), run.runId);

/** Folder of the service's drills on record: `<prefix>/<service>/drills`. */
export const drillFolder = (backup: Pick<BackupProfile, 'prefix'>, service: string): string =>
  joined(serviceFolder(backup, service), 'drills');

const DUMP = '.dump.zst.age';
const LEDGER = '.ledger.json.zst.age';
const MANIFEST = '.backup.json';

export interface BackupKeys {
  readonly dump: string;
  readonly ledger: string;
  readonly manifest: string;
}

const keysOf = (stem: string): BackupKeys => ({
  dump: `${stem}${DUMP}`,
  ledger: `${stem}${LEDGER}`,
  manifest: `${stem}${MANIFEST}`,
});

/**
 * Step of an attempt, as its objects are named. Each attempt has names of its own: one that was given up for lost, and wakes up
 * hours later, must not replace what the one after it has stored.
 */
export const attemptName = (step: string, attempt: number): string =>
  attempt === 1 ? step : `${step}-attempt-${attempt}`;

/** Names of the objects of a backup. @param step see `attemptName` */
export const backupKeys = (folder: string, step: string): BackupKeys => keysOf(`${folder}/${step}`);

/** The names of the backup that an object belongs to; undefined for an object that is no part of one. */
export function backupKeysOf(key: string): BackupKeys | undefined {
  const suffix = [DUMP, LEDGER, MANIFEST].find((end) => key.endsWith(end));
  return suffix === undefined ? undefined : keysOf(key.slice(0, -suffix.length));
}
