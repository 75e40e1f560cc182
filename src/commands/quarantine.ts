import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { ownerState } from '../history/owner-state.ts';
import { dropKeptAside, type KeptAside, listKeptAside } from '../postgres/quarantine.ts';
import { sizeText, timeText } from '../report/quantity.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { CommandError, usageError } from './command-error.ts';
import { withClient, withConnectionOptions } from './connection.ts';
import type { CommandContext } from './context.ts';
import { left } from './run-texts.ts';
import { withProfiles, withServiceAccess } from './service-access.ts';
import { ServiceDatabases } from './service-databases.ts';

interface ListOptions {
  readonly profiles: string;
  readonly json?: true;
}

interface DropOptions extends TemporalAddress {
  readonly profiles: string;
  readonly service: string;
  readonly yes?: true;
}

const STEP = 'quarantine';

/** What runs of this service have put aside on production's server. */
const ofService = async (databases: ServiceDatabases, service: string): Promise<KeptAside[]> =>
  (await databases.on('production', listKeptAside)).filter(({ mark }) => mark.service === service);

/** @param now milliseconds since the epoch */
export function keptAsideText({ name, production, sizeBytes, closed, mark }: KeptAside, now: number): string {
  const { expiresAt } = mark;
  const until =
    Date.parse(expiresAt) <= now
      ? `was to be kept until ${timeText(expiresAt)}`
      : `kept until ${timeText(expiresAt)} (${left(expiresAt, now)})`;
  const facts = [
    `was database ${production}`,
    ...(sizeBytes === null ? [] : [sizeText(sizeBytes)]),
    ...(closed ? [] : ['OPEN to connections']),
    until,
  ];
  return `${name}\n    ${facts.join(', ')}\n    put aside by run ${mark.runId} (${mark.workflowId})`;
}

/** @throws CommandError unless a person at a terminal types the name */
async function confirm(found: KeptAside): Promise<void> {
  if (!process.stdin.isTTY) throw usageError(['give --yes: there is no terminal to ask at']);
  const question = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const typed = await question.question(
      `${keptAsideText(found, Date.now())}\nIt is dropped for good, with all that only it holds. Type its name to go on: `,
    );
    if (typed.trim() !== found.name) throw new CommandError('not dropped: that is not its name');
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
      const found = await withServiceAccess(options.profiles, service, (access) =>
        ofService(new ServiceDatabases(access, STEP), service),
      );
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
    .action(async (name: string, options: DropOptions) => {
      const { service } = options;
      const dropped = await withServiceAccess(options.profiles, service, async (access) => {
        const databases = new ServiceDatabases(access, STEP);
        const found = (await ofService(databases, service)).find((database) => database.name === name);
        if (found === undefined) {
          throw new CommandError(
            `no database "${name}" of ${service} is kept aside; see: runbook quarantine list ${service}`,
          );
        }
        const state = await withClient(options, (client) => ownerState(client, found.mark));
        if (state === 'running') {
          throw new CommandError(`the run that put "${name}" aside is still running: ${found.mark.workflowId}`);
        }
        if (!options.yes) await confirm(found);
        const production = [await databases.productionName()];
        return databases.withMigrationLock(() =>
          databases.on('production', (client) => dropKeptAside(client, { name, production })),
        );
      });
      output.print(`dropped ${dropped.name}${dropped.sizeBytes === null ? '' : ` (${sizeText(dropped.sizeBytes)})`}`);
    });
}
