import type { Client } from '@temporalio/client';
import type { Command } from 'commander';
import { workflowIdOf } from '../contract/request.ts';
import { readRun, type RunView } from '../history/run-view.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { withClient, withConnectionOptions, withRun } from './connection.ts';
import type { CommandContext } from './context.ts';
import { statusText } from './status-text.ts';

export interface StatusOptions extends TemporalAddress {
  readonly run?: string;
  readonly json?: true;
}

/** @throws CommandError when there is no such run */
export const runStatus = (client: Client, service: string, runId?: string): Promise<RunView> =>
  withRun(service, runId, () => readRun(client, client.workflow.getHandle(workflowIdOf(service), runId)));

export function addStatus(program: Command, { output }: CommandContext): void {
  withConnectionOptions(program.command('status'))
    .description('where a run stands, for whom it waits, what its step reports, who sent which message')
    .argument('<service>', 'name of the service')
    .option('--run <id>', 'an earlier run; default the last one')
    .option('--json', 'everything as one JSON document')
    .addHelpText(
      'after',
      '\nWorks without a worker too: then it shows what the server knows.\n\nExamples:\n  runbook status whisper-transcriber\n  runbook status whisper-transcriber --json | jq .status.value.waiting',
    )
    .action(async (service: string, options: StatusOptions) => {
      await withClient(options, async (client) => {
        const view = await runStatus(client, service, options.run);
        output.print(options.json ? JSON.stringify(view, null, 2) : statusText(view, Date.now()));
      });
    });
}
