import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { sizeText } from '../report/quantity.ts';
import { CommandError, usageError } from './command-error.ts';
import { withConnectionOptions } from './connection.ts';
import type { CommandContext } from './context.ts';
import { withProfiles } from './profiles-option.ts';
import type { DropOptions } from './service-quarantine.ts';

interface ListOptions {
  readonly profiles: string;
  readonly json?: true;
}

interface Options extends DropOptions {
  readonly yes?: true;
}

/** @throws CommandError unless a person at a terminal types the name */
async function confirm(name: string, text: string): Promise<void> {
  if (!process.stdin.isTTY) throw usageError(['give --yes: there is no terminal to ask at']);
  const question = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const typed = await question.question(
      `${text}\nIt is dropped for good, with all that only it holds. Type its name to go on: `,
    );
    if (typed.trim() !== name) throw new CommandError('not dropped: that is not its name');
  } finally {
    question.close();
  }
}

export function addQuarantine(program: Command, context: CommandContext): void {
  const quarantine = program
    .command('quarantine')
    .description('databases that were production until a restore took their place');
  addList(quarantine, context);
  addDrop(quarantine, context);
}

function addList(quarantine: Command, { output }: CommandContext): void {
  withProfiles(quarantine.command('list'))
    .description('databases that runs of a service have put aside, those whose time is over first')
    .argument('<service>', 'name of the service')
    .option('--json', 'as one JSON document')
    .addHelpText('after', '\nExample:\n  runbook quarantine list whisper-transcriber')
    .action(async (service: string, options: ListOptions) => {
      // Drivers of databases are heavy: no other command needs them.
      const { keptAsideText, listQuarantine } = await import('./service-quarantine.ts');
      const found = await listQuarantine(options.profiles, service);
      if (options.json) output.print(JSON.stringify(found, null, 2));
      else if (found.length === 0) output.print(`no database of ${service} is kept aside`);
      else for (const database of found) output.print(keptAsideText(database, Date.now()));
    });
}

function addDrop(quarantine: Command, { output }: CommandContext): void {
  withProfiles(withConnectionOptions(quarantine.command('drop')))
    .description('drop a database that was put aside, for good')
    .argument('<name>', 'its name, as "runbook quarantine list" shows it')
    .requiredOption('--service <service>', 'the service it belongs to')
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      `
Rows that were written to production after the backup are in no other database. Refused while the run that put it aside is
running, while somebody is connected to it, and where it may be the only copy.

Example:
  runbook quarantine drop whisper_before_8163c08fa17d --service whisper-transcriber`,
    )
    .action(async (name: string, options: Options) => {
      const { dropFromQuarantine, keptAsideText } = await import('./service-quarantine.ts');
      const dropped = await dropFromQuarantine(name, options, async (found) => {
        if (!options.yes) await confirm(name, keptAsideText(found, Date.now()));
      });
      output.print(`dropped ${dropped.name}${dropped.sizeBytes === null ? '' : ` (${sizeText(dropped.sizeBytes)})`}`);
    });
}
