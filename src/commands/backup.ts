import { hostname } from 'node:os';
import type { Command } from 'commander';
import { serviceFolder } from '../archive/backup-names.ts';
import { findManifest, listManifests, recordVerification } from '../archive/manifest.ts';
import type { ObjectStore } from '../archive/object-store.ts';
import { findPrograms } from '../archive/programs.ts';
import { type ArchiveVerification, type VerificationProgress, verifyStoredBackup } from '../archive/verify.ts';
import { StepError } from '../contract/errors.ts';
import type { BackupManifest } from '../contract/evidence.ts';
import { durationText, sizeText, timeText } from '../report/quantity.ts';
import { CommandError, EXIT_CODES } from './command-error.ts';
import type { CommandContext } from './context.ts';
import type { Output } from './output.ts';
import { oneLine } from './run-texts.ts';
import { type ServiceAccess, withProfiles, withServiceAccess, withServiceStore } from './service-access.ts';

interface ListOptions {
  readonly profiles: string;
  readonly json?: true;
}

interface VerifyOptions {
  readonly profiles: string;
  readonly service: string;
  readonly record?: true;
  readonly json?: true;
}

/** What can be read of each backup without the age identity, newest first. */
async function readBackups(
  { profile, signal }: ServiceAccess,
  store: ObjectStore,
  told: (finding: string) => void,
): Promise<readonly BackupManifest[]> {
  const folder = `${serviceFolder(profile.backup, profile.service)}/`;
  return listManifests(store, folder, signal, told);
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

const TELL_EVERY = 10_000;

/** A line that is refreshed on a terminal, and one now and then elsewhere. */
function progressLines(output: Output): (now: VerificationProgress) => void {
  let told = Date.now();
  return ({ read, of, decoded, storeSilentSince }) => {
    const silent =
      storeSilentSince === undefined ? '' : `, the store has been silent since ${timeText(storeSilentSince)}`;
    const line = `read ${sizeText(read)} of ${sizeText(of)}, decoded ${sizeText(decoded)}${silent}`;
    output.replace(line);
    if (output.isTerminal || Date.now() - told < TELL_EVERY) return;
    told = Date.now();
    output.note(line);
  };
}

function verificationText(verification: ArchiveVerification, { releaseTag, backup }: BackupManifest): string {
  const { uri, bytes, sha256, tableData, entries, decodedBytes, milliseconds } = verification;
  return [
    `passed: ${uri}`,
    `    of ${timeText(backup.capturedAt)}, ${releaseTag}: read back from the store, decrypted and decoded in ${durationText(milliseconds)}`,
    `    ${sizeText(bytes)}, SHA-256 ${sha256}`,
    `    ${entries} entries, rows of ${tableData} tables as in the ledger, ${sizeText(decodedBytes)} decoded`,
  ].join('\n');
}

export function addBackup(program: Command, context: CommandContext): void {
  const backup = program.command('backup').description('backups of a service: list them, prove that one is whole');
  addList(backup, context);
  addVerify(backup, context);
}

function addList(backup: Command, { output, exit }: CommandContext): void {
  withProfiles(backup.command('list'))
    .description('backups of a service, newest first: when, release, run, size, whether it was verified')
    .argument('<service>', 'name of the service')
    .option('--json', 'their manifests as one JSON document')
    .addHelpText(
      'after',
      "\nReads the manifests beside the backups; the age identity is not needed. Exits with 1 when one cannot be read.\n\nExamples:\n  runbook backup list whisper-transcriber\n  runbook backup list whisper-transcriber --json | jq -r '.[0].backup.uri'",
    )
    .action(async (service: string, options: ListOptions) => {
      const findings: string[] = [];
      const backups = await withServiceAccess(options.profiles, service, (access) =>
        withServiceStore(access, (store) => readBackups(access, store, (finding) => findings.push(finding))),
      );
      if (options.json) output.print(JSON.stringify(backups, null, 2));
      else if (backups.length === 0) output.print(`there is no backup of ${service}`);
      else for (const manifest of backups) output.print(backupText(manifest));
      for (const finding of findings) output.note(`runbook: ${oneLine(finding)}`);
      if (findings.length > 0) exit(EXIT_CODES.refused);
    });
}

function addVerify(backup: Command, { output, exit }: CommandContext): void {
  withProfiles(backup.command('verify'))
    .description('read a backup back from the store and prove that it is whole, as the step backup.verify does')
    .argument('<uri>', 'a backup as "runbook backup list" shows it, or "latest"')
    .requiredOption('--service <service>', 'the service whose profile says how to reach and decrypt it')
    .option('--record', 'note in its manifest that it was verified; drills take verified backups only')
    .option('--json', 'the result as one JSON document, also when it failed')
    .addHelpText(
      'after',
      `
Exits with 0 only when the backup passed; otherwise the message names the place of failure. Nothing is written to disk.

Examples:
  runbook backup verify latest --service whisper-transcriber
  runbook backup verify s3://example-database-backups/migration-runbook/whisper-transcriber/.../backup.capture.dump.zst.age \\
    --service whisper-transcriber`,
    )
    .action(async (which: string, options: VerifyOptions) => {
      await withServiceAccess(options.profiles, options.service, (access) =>
        withServiceStore(access, async (store) => {
          try {
            const manifest = await chooseBackup(access, store, which);
            const verification = await verifyBackup(access, store, manifest, progressLines(output));
            if (options.record) {
              const verified = {
                at: new Date().toISOString(),
                milliseconds: verification.milliseconds,
                by: `runbook backup verify on ${hostname()}`,
              };
              await recordVerification(store, manifest.backup, verified, access.signal);
            }
            output.print(
              options.json
                ? JSON.stringify({ passed: true, ...verification }, null, 2)
                : verificationText(verification, manifest),
            );
          } catch (error) {
            if (!options.json || access.signal.aborted) throw error;
            if (!(error instanceof StepError) && !(error instanceof CommandError)) throw error;
            const message = access.secrets.redactor.redact(error.message);
            const type = error instanceof StepError ? error.type : null;
            output.print(JSON.stringify({ passed: false, type, message }, null, 2));
            exit(EXIT_CODES.refused);
          }
        }),
      );
    });
}
