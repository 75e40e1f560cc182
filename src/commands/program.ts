import { Command, CommanderError } from 'commander';
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

const COMMANDS = [
  addSetup,
  addCheck,
  addWorker,
  addStart,
  addStatus,
  addWatch,
  addPlan,
  addApprove,
  addReject,
  addAbort,
  addRecover,
  addReport,
  addDrill,
  addBackup,
  addQuarantine,
  addSweep,
];

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
      outputError: (text) => output.note(`runbook: ${oneLine(text)}`),
    })
    .addHelpText(
      'after',
      '\nThe server is found as by Temporal’s own command line: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_PROFILE, ...',
    );
  for (const add of COMMANDS) add(program, context);
  try {
    await program.parseAsync([...words], { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return EXIT_CODES.succeeded;
      if (error.code === 'commander.help') output.note('runbook: say what to do; see runbook --help');
      return EXIT_CODES.usage;
    }
    output.note(`runbook: ${oneLine(messageOf(error))}`);
    return error instanceof CommandError ? error.exitCode : EXIT_CODES.refused;
  }
}

function messageOf(error: unknown): string {
  if (error instanceof CommandError || error instanceof StepError) return error.message;
  return error instanceof Error ? `${error.name === 'Error' ? '' : `${error.name}: `}${error.message}` : String(error);
}
