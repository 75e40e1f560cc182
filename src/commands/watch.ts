import type { Client } from '@temporalio/client';
import type { Command } from 'commander';
import { workflowIdOf } from '../contract/request.ts';
import { executionView } from '../history/execution.ts';
import { followRun } from '../history/follow.ts';
import type { RunEnd } from '../history/run-end.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { CommandError, EXIT_CODES, type ExitCode } from './command-error.ts';
import { withClient, withConnectionOptions, withRun } from './connection.ts';
import type { CommandContext } from './context.ts';
import { LiveLines } from './live-lines.ts';
import type { Output } from './output.ts';

export interface WatchOptions extends TemporalAddress {
  readonly run?: string;
}

/** Follows a run to its end, line by line. Ctrl-C ends the watching, not the run. */
export async function watchRun(
  client: Client,
  run: { readonly workflowId: string; readonly runId: string },
  output: Output,
): Promise<RunEnd> {
  const interrupted = new AbortController();
  const interrupt = (): void => interrupted.abort();
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  const lines = new LiveLines(output);
  try {
    for await (const event of followRun(client, run.workflowId, run.runId, { signal: interrupted.signal })) {
      lines.show(event, Date.now());
      if (event.kind === 'ended') return event.end;
    }
    throw new Error('a run is followed to its end');
  } catch (error) {
    if (!interrupted.signal.aborted) throw error;
    throw new CommandError(`no longer watched; the run ${run.workflowId} goes on`, EXIT_CODES.interrupted);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

export const exitCodeOf = (end: RunEnd): ExitCode => (end.kind === 'ended' ? EXIT_CODES[end.outcome] : EXIT_CODES.lost);

export const EXIT_CODES_HELP = `
Exit codes: 0 succeeded, 1 refused or not reachable, 2 wrong usage, 3 aborted, 4 rolled-back, 5 restored, 6 handed-over,
7 terminated or otherwise ended without an outcome, 130 interrupted (the run goes on).`;

export function addWatch(program: Command, { output, exit }: CommandContext): void {
  withConnectionOptions(program.command('watch'))
    .description('follow a run live, step by step with times, until it ends')
    .argument('<service>', 'name of the service')
    .option('--run <id>', 'an earlier run; default the last one')
    .addHelpText('after', `${EXIT_CODES_HELP}\n\nExample:\n  runbook watch whisper-transcriber`)
    .action(async (service: string, options: WatchOptions) => {
      await withClient(options, async (client) => {
        const workflowId = workflowIdOf(service);
        const { runId } = await withRun(service, options.run, async () =>
          executionView(await client.workflow.getHandle(workflowId, options.run).describe()),
        );
        exit(exitCodeOf(await watchRun(client, { workflowId, runId }, output)));
      });
    });
}
