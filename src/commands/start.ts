import { type Client, WorkflowExecutionAlreadyStartedError } from '@temporalio/client';
import type { Command } from 'commander';
import { type MigrationRequest, parseRequest, TASK_QUEUE, WORKFLOW_TYPE, workflowIdOf } from '../contract/request.ts';
import { executionView, readTaskQueue } from '../history/execution.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { CommandError, usageError } from './command-error.ts';
import { withClient, withConnectionOptions } from './connection.ts';
import type { CommandContext } from './context.ts';
import { EXIT_CODES_HELP, exitCodeOf, watchRun } from './watch.ts';

export interface StartOptions extends TemporalAddress {
  readonly tag: string;
  readonly ticket: string;
  readonly by: string;
  readonly windowStart?: string;
  readonly windowEnd?: string;
  readonly target?: string;
  readonly reconciledRun?: string;
  readonly taskQueue: string;
  readonly wait?: true;
}

export interface StartedRun {
  readonly workflowId: string;
  readonly runId: string;
}

/** Bytes; the server refuses a longer summary. */
const SUMMARY_LIMIT = 200;

/** The request as the command's options give it, checked before anything is started. */
export function requestOf(service: string, options: StartOptions, now: number): MigrationRequest {
  const parsed = parseRequest(
    [
      {
        service,
        releaseTag: options.tag,
        changeTicket: options.ticket,
        requestedBy: options.by,
        ...(options.windowStart !== undefined && { windowStart: options.windowStart }),
        ...(options.windowEnd !== undefined && { windowEnd: options.windowEnd }),
        ...(options.target !== undefined && { targetRevision: options.target }),
        ...(options.reconciledRun !== undefined && { reconciledRun: options.reconciledRun }),
      },
    ],
    now,
  );
  if (parsed.kind === 'invalid') throw usageError(parsed.findings.map(inOptions));
  return parsed.request;
}

const OPTION_OF: Readonly<Record<keyof MigrationRequest, string>> = {
  service: 'the service',
  releaseTag: '--tag',
  changeTicket: '--ticket',
  requestedBy: '--by',
  windowStart: '--window-start',
  windowEnd: '--window-end',
  targetRevision: '--target',
  reconciledRun: '--reconciled-run',
};

/** A finding in the words of who typed a command, not a JSON object. */
const inOptions = (finding: string): string =>
  Object.entries(OPTION_OF).reduce((text, [field, option]) => text.replaceAll(`"${field}"`, option), finding);

/**
 * Starts a run: one per service at a time.
 *
 * @throws CommandError naming the run that is there already
 */
export async function startRun(client: Client, request: MigrationRequest, taskQueue: string): Promise<StartedRun> {
  const { service, releaseTag, changeTicket, requestedBy } = request;
  const workflowId = workflowIdOf(service);
  try {
    const handle = await client.workflow.start(WORKFLOW_TYPE, {
      workflowId,
      taskQueue,
      args: [request],
      workflowIdConflictPolicy: 'FAIL',
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      staticSummary: cut(`${service} ${releaseTag}, ${changeTicket}, by ${requestedBy}`, SUMMARY_LIMIT),
    });
    return { workflowId, runId: handle.firstExecutionRunId };
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    const { runId, startedAt } = executionView(await client.workflow.getHandle(workflowId).describe());
    throw new CommandError(
      `a run of ${service} is there already: ${workflowId}, run ${runId}, since ${startedAt}; see runbook status ${service}`,
    );
  }
}

function cut(text: string, bytes: number): string {
  const encoded = new TextEncoder().encode(text);
  if (encoded.length <= bytes) return text;
  return `${new TextDecoder().decode(encoded.slice(0, bytes - 4)).replace(/\uFFFD+$/, '')}…`;
}

export function addStart(program: Command, { output, exit }: CommandContext): void {
  withConnectionOptions(program.command('start'))
    .description('start the migration of a service to a release')
    .argument('<service>', 'name of the service: it has a profile on the workers')
    .requiredOption('--tag <tag>', 'release tag')
    .requiredOption('--ticket <ticket>', 'change ticket')
    .requiredOption('--by <who>', 'who requests it; this person cannot approve it')
    .option('--window-start <time>', 'when the change window opens, e.g. 2026-11-22T22:00:00Z; default at the approval')
    .option('--window-end <time>', 'when it closes')
    .option('--target <revision>', 'Alembic revision to upgrade to; default head')
    .option('--reconciled-run <id>', 'a terminated run of this service whose leftovers you have looked after')
    .option('--task-queue <name>', 'task queue of the workers', TASK_QUEUE)
    .option('--wait', 'follow the run, and exit with its outcome')
    .addHelpText(
      'after',
      `${EXIT_CODES_HELP}

Examples:
  runbook start whisper-transcriber --tag v2.1.0 --ticket CHG-1042 --by dana@example.com
  runbook start whisper-transcriber --tag v2.1.0 --ticket CHG-1042 --by dana@example.com \\
    --window-start 2026-11-22T22:00:00Z --window-end 2026-11-22T23:00:00Z --wait`,
    )
    .action(async (service: string, options: StartOptions) => {
      const request = requestOf(service, options, Date.now());
      await withClient(options, async (client) => {
        const run = await startRun(client, request, options.taskQueue);
        output.print(`started ${run.workflowId}, run ${run.runId}`);
        const { workers } = await readTaskQueue(client, options.taskQueue, Date.now());
        if (workers.length === 0) {
          output.note(
            `no worker polls the task queue ${options.taskQueue}: the run waits until one is started with runbook worker`,
          );
        }
        if (options.wait) exit(exitCodeOf(await watchRun(client, run, output)));
        else output.print(`follow it with: runbook watch ${service}`);
      });
    });
}
