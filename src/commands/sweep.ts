import type { Command } from 'commander';
import { EXIT_CODES } from './command-error.ts';
import { withConnectionOptions } from './connection.ts';
import type { CommandContext } from './context.ts';
import type { Output } from './output.ts';
import { withProfiles } from './profiles-option.ts';
import { oneLine } from './one-line.ts';
import type { SweepOptions, SweepResult } from './service-sweep.ts';

interface Options extends SweepOptions {
  readonly json?: true;
}

function printResult({ leftovers, unseen }: SweepResult, options: Options, output: Output): void {
  if (options.json) output.print(JSON.stringify({ leftovers, unseen }, null, 2));
  else if (leftovers.length === 0 && unseen.length === 0) output.print('nothing is left over');
  for (const text of unseen) output.note(`runbook: ${oneLine(text)}`);
}

export function addSweep(program: Command, { output, exit }: CommandContext): void {
  withProfiles(withConnectionOptions(program.command('sweep')))
    .description('list what runs of a service have left behind, and remove what is nobody’s any more')
    .argument('<service>', 'name of the service')
    .option('--remove', 'remove what has expired and whose run is over')
    .option('--forgotten', 'also of runs that this Temporal server no longer knows')
    .option('--json', 'as one JSON document')
    .addHelpText(
      'after',
      `
Looked for: databases that carry this project's mark (scratch, drill, fresh, kept aside), logins of rehearsals on the
scratch server, interrupted uploads, dumps and ledgers without a manifest. What is without the mark is never touched,
whatever its name. Secrets are resolved on this machine. Exit codes: 0 done, 1 something could not be looked at or removed, 2 wrong usage.

Examples:
  runbook sweep whisper-transcriber
  runbook sweep whisper-transcriber --remove
  runbook sweep whisper-transcriber --json | jq '.leftovers[] | select(.verdict.kind == "removable")'`,
    )
    .action(async (service: string, options: Options) => {
      // Drivers of databases and object stores are heavy: no other command needs them.
      const { sweepService } = await import('./service-sweep.ts');
      const result = await sweepService(service, options, (text) => {
        if (!options.json) output.print(text);
      });
      printResult(result, options, output);
      const failed = result.unseen.length > 0 || result.leftovers.some(({ verdict }) => verdict.kind === 'not-removed');
      if (failed) exit(EXIT_CODES.refused);
    });
}
