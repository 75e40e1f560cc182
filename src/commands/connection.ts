import { hostname, userInfo } from 'node:os';
import { Client, Connection, isGrpcServiceError, ServiceError, WorkflowNotFoundError } from '@temporalio/client';
import { NamespaceNotFoundError } from '@temporalio/common';
import { type Command, Option } from 'commander';
import { workflowIdOf } from '../contract/request.ts';
import { connectionSettings, type TemporalAddress } from '../temporal-connection.ts';
import { CommandError, usageError } from './command-error.ts';

/** Every command that talks to Temporal has these. */
export const withConnectionOptions = (command: Command): Command =>
  command
    .addOption(
      new Option('--address <host:port>', 'default TEMPORAL_ADDRESS or the profile of temporal.toml').helpGroup(SERVER),
    )
    .addOption(new Option('--namespace <name>', 'default TEMPORAL_NAMESPACE or that profile').helpGroup(SERVER));

const SERVER = 'Temporal server:';

/** Milliseconds. */
const CONNECT_LIMIT = 5_000;

/** Connects, works, disconnects; what the server answers instead becomes one line. */
export async function withClient<T>(target: TemporalAddress, work: (client: Client) => Promise<T>): Promise<T> {
  const { connectionOptions, address, namespace } = connectionSettings(target);
  let connection: Connection | undefined;
  try {
    connection = await Connection.connect({ ...connectionOptions, connectTimeout: CONNECT_LIMIT });
    return await work(new Client({ connection, namespace, identity: senderIdentity() }));
  } catch (error) {
    throw serverError(error, address, namespace);
  } finally {
    await connection?.close();
  }
}

/** What the server records beside each message: whose shell it came from. */
function senderIdentity(): string {
  try {
    return `${userInfo().username}@${hostname()}`;
  } catch {
    // A user id without a name, as in many containers.
    return `${process.getuid?.() ?? process.pid}@${hostname()}`;
  }
}

/** `grpc.status` */
const UNAVAILABLE = 14;
const DEADLINE_EXCEEDED = 4;
const NOT_FOUND = 5;
const INVALID_ARGUMENT = 3;

/** What the server says is wrong with what it was given; undefined for any other error. */
export function invalidArgument(error: unknown): string | undefined {
  const cause = grpcCause(error);
  return cause?.code === INVALID_ARGUMENT ? cause.details : undefined;
}

function serverError(error: unknown, address: string, namespace: string): unknown {
  if (error instanceof CommandError) return error;
  if (error instanceof NamespaceNotFoundError) return noNamespace(address, namespace);
  if (error instanceof WorkflowNotFoundError) return error;
  if (error instanceof TypeError && /address/i.test(error.message)) return usageError([error.message]);
  const cause = grpcCause(error);
  if (cause === undefined) {
    return error instanceof ServiceError
      ? new CommandError(`the Temporal server at ${address} did not answer: ${error.message}`)
      : error;
  }
  if (cause.code === NOT_FOUND && /namespace/i.test(cause.details)) return noNamespace(address, namespace);
  if (cause.code === UNAVAILABLE || cause.code === DEADLINE_EXCEEDED) {
    return new CommandError(
      `the Temporal server at ${address} cannot be reached (${cause.details}): check --address or TEMPORAL_ADDRESS`,
    );
  }
  return new CommandError(`the Temporal server at ${address} refused: ${cause.details}`);
}

const noNamespace = (address: string, namespace: string): CommandError =>
  new CommandError(`the namespace ${namespace} does not exist at ${address}: check --namespace or TEMPORAL_NAMESPACE`);

function grpcCause(error: unknown): { readonly code: number; readonly details: string } | undefined {
  for (let current = error; current instanceof Error; current = current.cause) {
    if (isGrpcServiceError(current)) return current;
    if (/Failed to connect before the deadline/i.test(current.message)) {
      return { code: UNAVAILABLE, details: 'no connection within 5 s' };
    }
  }
  return undefined;
}

/** @throws CommandError saying that there is no such run */
export async function withRun<T>(service: string, runId: string | undefined, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw error;
    throw new CommandError(
      runId === undefined
        ? `there is no run of ${service}: nothing is known of a workflow ${workflowIdOf(service)}`
        : `there is no run ${runId} of ${service}`,
    );
  }
}
