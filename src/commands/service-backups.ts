import { hostname } from 'node:os';
import { serviceFolder } from '../archive/backup-names.ts';
import { findManifest, listManifests, recordVerification } from '../archive/manifest.ts';
import type { ObjectStore } from '../archive/object-store.ts';
import { findPrograms } from '../archive/programs.ts';
import { withServiceStore } from '../archive/service-store.ts';
import { type ArchiveVerification, type VerificationProgress, verifyStoredBackup } from '../archive/verify.ts';
import { StepError } from '../contract/errors.ts';
import type { BackupManifest } from '../contract/evidence/backup.ts';
import { durationText, sizeText, timeText } from '../report/quantity.ts';
import { CommandError } from './command-error.ts';
import { oneLine } from './one-line.ts';
import { type ServiceAccess, withServiceAccess } from './service-access.ts';

export interface ListedBackups {
  readonly backups: readonly BackupManifest[];
  /** Manifests that cannot be read, in words. */
  readonly findings: readonly string[];
}

export const listBackups = (profiles: string, service: string): Promise<ListedBackups> =>
  withServiceAccess(profiles, service, (access) =>
    withServiceStore(access, async (store) => {
      const findings: string[] = [];
      const backups = await readBackups(access, store, (finding) => findings.push(finding));
      return { backups, findings };
    }),
  );

export type CheckedBackup =
  | { readonly passed: true; readonly verification: ArchiveVerification; readonly manifest: BackupManifest }
  /** `type` is that of the step's failure; null where the backup was not found. */
  | { readonly passed: false; readonly type: string | null; readonly message: string };

export interface CheckOptions {
  readonly profiles: string;
  readonly service: string;
  readonly record?: true;
}

/** @param which URI, or `latest` */
export const checkBackup = (
  which: string,
  { profiles, service, record }: CheckOptions,
  progress: (now: VerificationProgress) => void,
): Promise<CheckedBackup> =>
  withServiceAccess(profiles, service, (access) =>
    withServiceStore(access, async (store): Promise<CheckedBackup> => {
      try {
        const manifest = await chooseBackup(access, store, which);
        const verification = await verifyBackup(access, store, manifest, progress);
        if (record) {
          const at = new Date().toISOString();
          const by = `runbook backup verify on ${hostname()}`;
          const verified = { at, milliseconds: verification.milliseconds, by };
          await recordVerification(store, manifest.backup, verified, access.signal);
        }
        return { passed: true, verification, manifest };
      } catch (error) {
        access.signal.throwIfAborted();
        if (!(error instanceof StepError) && !(error instanceof CommandError)) throw error;
        const message = access.secrets.redactor.redact(error.message);
        return { passed: false, type: error instanceof StepError ? error.type : null, message };
      }
    }),
  );

/** What can be read of each backup without the age identity, newest first. */
async function readBackups(
  { profile, signal }: ServiceAccess,
  store: ObjectStore,
  told: (finding: string) => void,
): Promise<readonly BackupManifest[]> {
  const { backup, service } = profile;
  const manifests = await listManifests(store, `${serviceFolder(backup, service)}/`, signal, told);
  // The prefix of another service may lead below this folder.
  return manifests.filter((manifest) => manifest.service === service);
}

export function backupText({ backup, releaseTag, changeTicket, runId, step, verified }: BackupManifest): string {
  const proof =
    verified === undefined ? 'NOT verified' : `verified ${timeText(verified.at)} by ${oneLine(verified.by)}`;
  return [
    `${timeText(backup.capturedAt)}  ${releaseTag}  ${oneLine(changeTicket)}  ${sizeText(backup.bytes)} (database ${sizeText(backup.database.sizeBytes)}), ${proof}`,
    `    ${backup.uri}`,
    `    run ${runId}, step ${step}`,
  ].join('\n');
}

/** @param which URI, or `latest` */
async function chooseBackup(access: ServiceAccess, store: ObjectStore, which: string): Promise<BackupManifest> {
  const { service } = access.profile;
  if (which !== 'latest') {
    const manifest = await findManifest(store, which, access.signal);
    if (manifest.service === service) return manifest;
    throw new CommandError(`${which} is a backup of the service ${manifest.service}, not of ${service}`);
  }
  const findings: string[] = [];
  const [latest] = await readBackups(access, store, (finding) => findings.push(finding));
  // The one that cannot be read may be the latest.
  if (findings.length > 0) throw new CommandError(findings.join(' '));
  if (latest === undefined) throw new CommandError(`there is no backup of ${service} in ${store.uri('')}`);
  return latest;
}

async function verifyBackup(
  access: ServiceAccess,
  store: ObjectStore,
  manifest: BackupManifest,
  progress: (now: VerificationProgress) => void,
): Promise<ArchiveVerification> {
  const { profile, secrets, signal } = access;
  const { backup } = manifest;
  const identity = await secrets.resolve(profile.backup.identity, profile, signal);
  const { redactor } = secrets;
  const programs = await findPrograms(profile, { signal, redactor, serverMajor: backup.database.serverMajor });
  const pgRestore = programs.pg_restore;
  return verifyStoredBackup({ store, backup, identity, pgRestore, redactor, signal, progress });
}

export function verificationText(verification: ArchiveVerification, { releaseTag, backup }: BackupManifest): string {
  const { uri, bytes, sha256, tableData, entries, decodedBytes, milliseconds } = verification;
  return [
    `passed: ${uri}`,
    `    of ${timeText(backup.capturedAt)}, ${releaseTag}: read back from the store, decrypted and decoded in ${durationText(milliseconds)}`,
    `    ${sizeText(bytes)}, SHA-256 ${sha256}`,
    `    ${entries} entries, rows of ${tableData} tables as in the ledger, ${sizeText(decodedBytes)} decoded`,
  ].join('\n');
}
