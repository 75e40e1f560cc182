import type { Command } from 'commander';
import type { VerificationProgress } from '../archive/verify.ts';
import { sizeText, timeText } from '../report/quantity.ts';
import { EXIT_CODES } from './command-error.ts';
import type { CommandContext } from './context.ts';
import type { Output } from './output.ts';
import { withProfiles } from './profiles-option.ts';
import { oneLine } from './one-line.ts';
import type { CheckOptions } from './service-backups.ts';

interface ListOptions {
  readonly profiles: string;
  readonly json?: true;
}

interface VerifyOptions extends CheckOptions {
  readonly json?: true;
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
      // Drivers of databases and object stores are heavy: no other command needs them.
      const { backupText, listBackups } = await import('./service-backups.ts');
      const { backups, findings } = await listBackups(options.profiles, service);
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
      const { checkBackup, verificationText } = await import('./service-backups.ts');
      const checked = await checkBackup(which, options, progressLines(output));
      if (checked.passed) {
        const { verification, manifest } = checked;
        output.print(
          options.json
            ? JSON.stringify({ passed: true, ...verification }, null, 2)
            : verificationText(verification, manifest),
        );
        return;
      }
      if (options.json) output.print(JSON.stringify(checked, null, 2));
      else output.note(`runbook: ${oneLine(checked.message)}`);
      exit(EXIT_CODES.refused);
    });
}
