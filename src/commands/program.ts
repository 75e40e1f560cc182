import { readFileSync } from 'node:fs';
import { Command, CommanderError, Help, type Option } from 'commander';
import { StepError } from '../contract/errors.ts';
import { addAbort } from './abort.ts';
import { addApprove } from './approve.ts';
import { addBackup } from './backup.ts';
import { addCheck } from './check.ts';
import { CommandError, EXIT_CODES, type ExitCode } from './command-error.ts';
import type { CommandContext } from './context.ts';
import { addDrill } from './drill.ts';
import type { Output } from './output.ts';
import { addPlan } from './plan.ts';
import { addQuarantine } from './quarantine.ts';
import { addRecover } from './recover.ts';
import { addReject } from './reject.ts';
import { addReport } from './report.ts';
import { oneLine } from './one-line.ts';
import { addSetup } from './setup.ts';
import { addStart } from './start.ts';
import { addStatus } from './status.ts';
import { addSweep } from './sweep.ts';
import { addWatch } from './watch.ts';
import { addWorker } from './worker.ts';

type Add = (program: Command, context: CommandContext) => void;

/** In the order in which a newcomer meets them. */
const COMMANDS: Readonly<Record<string, readonly Add[]>> = {
  'Before the first run': [addSetup, addCheck, addWorker],
  'A run': [addStart, addStatus, addWatch, addPlan, addReport],
  'Decisions, sent to a run': [addApprove, addReject, addAbort, addRecover],
  'Backups, drills, leftovers': [addBackup, addDrill, addQuarantine, addSweep],
};

/**
 * The command `runbook`. Whatever goes wrong is one line on standard error and the exit code.
 *
 * @param words what was typed after `runbook`
 */
export async function runCommandLine(words: readonly string[], output: Output): Promise<ExitCode> {
  let code: ExitCode = EXIT_CODES.succeeded;
  const context: CommandContext = {
    output,
    exit: (wanted) => {
      code = wanted;
    },
  };
  const program = new Command('runbook')
    .description('Runs the migration runbook of PostgreSQL databases with Alembic, on Temporal')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => output.print(text),
      writeErr: () => undefined,
      outputError: (text) => output.note(`runbook: ${oneLine(text).replace(/^error: /, '')}`),
    })
    .configureHelp({
      visibleOptions: inOrderOfNeed,
      // As they are shown, not as they were added.
      groupItems: (_added, shown, headingOf) => asWritten.groupItems(shown, shown, headingOf),
      optionDescription: (option) => `${asWritten.optionDescription(option)}${option.mandatory ? ' (required)' : ''}`,
    })
    .version(version(), '-V, --version', 'tell the version')
    .addHelpText(
      'after',
      `
The server is found as by Temporal’s own command line: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_PROFILE, ...
Exit codes: 0 done, 1 refused, not found or not reachable, 2 wrong usage; a run that was waited for has codes of its own:
runbook watch --help. Whatever goes wrong is one line on standard error.

A first run, from its start to its report (in another terminal: runbook worker):
  runbook check config/services/whisper-transcriber.yaml
  runbook start whisper-transcriber --tag v2.1.0 --ticket CHG-1042 --by dana@example.com
  runbook status whisper-transcriber          for whom it waits, and the command to approve it
  runbook report whisper-transcriber`,
    );
  for (const [heading, added] of Object.entries(COMMANDS)) {
    program.commandsGroup(`${heading}:`);
    for (const add of added) add(program, context);
  }
  try {
    await program.parseAsync([...words], { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return EXIT_CODES.succeeded;
      if (error.code === 'commander.help') output.note(`runbook: say what to do; see ${helpOf(program, words)}`);
      return EXIT_CODES.usage;
    }
    output.note(`runbook: ${oneLine(messageOf(error))}`);
    return error instanceof CommandError ? error.exitCode : EXIT_CODES.refused;
  }
}

/** How Commander itself does it. */
const asWritten = new Help();

/** What must be given comes first, how the server is reached last. */
function inOrderOfNeed(command: Command): Option[] {
  const rank = ({ mandatory, helpGroupHeading }: Option): number =>
    mandatory ? 0 : helpGroupHeading === undefined ? 1 : 2;
  return asWritten.visibleOptions(command).toSorted((one, other) => rank(one) - rank(other));
}

/** The command that tells more: that of `backup` where only `runbook backup` was typed. */
function helpOf(program: Command, [first]: readonly string[]): string {
  const group = program.commands.find((command) => command.name() === first);
  return `runbook ${group ? `${group.name()} ` : ''}--help`;
}

/** The same two levels up from the source and from the build. */
function version(): string {
  const told: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  return typeof told === 'object' && told !== null && 'version' in told ? String(told.version) : 'unknown';
}

function messageOf(error: unknown): string {
  if (error instanceof CommandError || error instanceof StepError) return error.message;
  return error instanceof Error ? `${error.name === 'Error' ? '' : `${error.name}: `}${error.message}` : String(error);
}
