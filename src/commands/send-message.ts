/** The four messages to a run, by one function: `approve`, `reject`, `abort` and `recover` differ in their fields alone. */
import {
  type Client,
  isGrpcCancelledError,
  isGrpcDeadlineError,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  WorkflowUpdateRPCTimeoutOrCancelledError,
} from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { MESSAGE_MALFORMED, type MessageName, parseMessage } from '../contract/messages.ts';
import { workflowIdOf } from '../contract/request.ts';
import { executionView, readTaskQueue } from '../history/execution.ts';
import { readEnd } from '../history/run-end.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { CommandError, EXIT_CODES } from './command-error.ts';
import { withClient, withConnectionOptions, withRun } from './connection.ts';
import type { CommandContext } from './context.ts';
import { endText } from './run-texts.ts';

export interface MessageToSend {
  readonly service: string;
  readonly name: MessageName;
  /** Absent ones are left out. */
  readonly fields: Readonly<Record<string, string | undefined>>;
  /** An update is answered; a signal is only delivered, and `status` shows what became of it. */
  readonly as: 'update' | 'signal';
  /** Milliseconds that an update may take. */
  readonly limit: number;
}

export interface SendOptions extends TemporalAddress {
  readonly by: string;
  readonly signal?: true;
  readonly timeLimit: number;
}

/**
 * @returns what the run answered, in one line
 * @throws CommandError with the run's reason when it refuses; with exit code 2 when the message is malformed
 */
export async function sendMessage(client: Client, message: MessageToSend): Promise<string> {
  const { service, name, as } = message;
  const fields = Object.fromEntries(Object.entries(message.fields).filter(([, content]) => content !== undefined));
  const parsed = parseMessage(name, [fields]);
  if (parsed.kind === 'malformed') throw new CommandError(parsed.why, EXIT_CODES.usage);
  await refuseWhereNoneRuns(client, service);
  const handle = client.workflow.getHandle(workflowIdOf(service));
  try {
    if (as === 'signal') {
      await handle.signal(name, fields);
      return `signal sent; whether it is acted on shows: runbook status ${service}`;
    }
    const { answer } = await client.withDeadline(Date.now() + message.limit, () =>
      handle.executeUpdate<{ readonly answer: string }, [unknown]>(name, { args: [fields] }),
    );
    return answer;
  } catch (error) {
    throw await notAnswered(client, message, error);
  }
}

async function refuseWhereNoneRuns(client: Client, service: string): Promise<void> {
  const execution = await withRun(service, undefined, async () =>
    executionView(await client.workflow.getHandle(workflowIdOf(service)).describe()),
  );
  if (execution.closedAt === undefined) return;
  const end = await readEnd(client.workflow.getHandle(execution.workflowId, execution.runId), execution);
  throw new CommandError(`the last run of ${service} has ended at ${execution.closedAt}: ${endText(end)}`);
}

async function notAnswered(client: Client, message: MessageToSend, error: unknown): Promise<unknown> {
  const { service, name } = message;
  if (error instanceof WorkflowUpdateFailedError) {
    const { cause } = error;
    const isMalformed = cause instanceof ApplicationFailure && cause.type === MESSAGE_MALFORMED;
    return new CommandError(
      `refused: ${cause?.message ?? error.message}`,
      isMalformed ? EXIT_CODES.usage : EXIT_CODES.refused,
    );
  }
  if (error instanceof WorkflowNotFoundError) return new CommandError(`the run of ${service} has just ended`);
  const isLate =
    error instanceof WorkflowUpdateRPCTimeoutOrCancelledError ||
    isGrpcDeadlineError(error) ||
    isGrpcCancelledError(error);
  if (!isLate) return error;
  const { taskQueue } = executionView(await client.workflow.getHandle(workflowIdOf(service)).describe());
  const { workers } = await readTaskQueue(client, taskQueue, Date.now());
  const why =
    workers.length === 0
      ? `no worker polls the task queue ${taskQueue}: start one with runbook worker`
      : `the worker (${workers.join(', ')}) does not answer: see runbook status ${service}`;
  return new CommandError(
    `no answer to "${name}" within ${Math.round(message.limit / 1000)} s, ${why}; it may still be acted on when a worker takes it, look before you send it again`,
  );
}

/** Command, options and handler that the four have in common; the caller adds its own options. */
export function messageCommand(program: Command, name: MessageName): Command {
  return withConnectionOptions(program.command(name))
    .argument('<service>', 'name of the service')
    .requiredOption('--by <who>', 'who you are; the server records beside it who sent the message')
    .option('--signal', 'send it as a signal: not answered, but delivered when a worker comes')
    .addOption(
      new Option('--time-limit <seconds>', 'how long an answer may take').argParser(seconds).default(20_000, '20'),
    );
}

function seconds(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0 || value > 3600)
    throw new InvalidArgumentError('a number of seconds, 3600 at most');
  return value * 1000;
}

/** Sends and prints the answer. */
export async function send(
  { output }: CommandContext,
  service: string,
  name: MessageName,
  options: SendOptions,
  fields: Readonly<Record<string, string | undefined>>,
): Promise<void> {
  await withClient(options, async (client) => {
    const answer = await sendMessage(client, {
      service,
      name,
      fields: { by: options.by, ...fields },
      as: options.signal ? 'signal' : 'update',
      limit: options.timeLimit,
    });
    output.print(answer);
  });
}
