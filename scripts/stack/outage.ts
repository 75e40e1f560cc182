/** Takes one server of a running stack away, and brings it back at the same address on the same data. */
import { join } from 'node:path';
import type { StackConnection } from './connection.ts';
import { type ClusterOptions, startCluster } from './postgres-cluster.ts';
import { isAlive } from './process-identity.ts';
import { startS3 } from './s3.ts';
import { type RunningServer, stopServer } from './server-process.ts';
import { recordServers } from './stack.ts';
import { readState } from './state-file.ts';

export type StoppablePart = 'primary' | 's3';

/**
 * The server of this part, as the stack recorded it.
 *
 * @throws Error when it does not run
 */
export async function serverOf({ directory }: StackConnection, part: StoppablePart): Promise<RunningServer> {
  const state = await readState(directory);
  const server = state?.servers.find(({ name, ...identity }) => name === part && isAlive(identity));
  if (server === undefined) throw new Error(`the stack's ${part} does not run`);
  return server;
}

/**
 * Ends the server's process at once: PostgreSQL by its immediate shutdown, after which it recovers as from a crash
 * (PostgreSQL documentation, "Shutting Down the Server"), the object store by SIGKILL.
 *
 * @returns starts it again, and returns when it answers
 */
export async function takeDown(stack: StackConnection, part: StoppablePart): Promise<() => Promise<void>> {
  const server = await serverOf(stack, part);
  await stopServer(server, {
    signals: [...(part === 'primary' ? ([['SIGQUIT', 8000]] as const) : []), ['SIGKILL', 2000]],
  });
  return () => bringBack(stack, part);
}

async function bringBack(stack: StackConnection, part: StoppablePart): Promise<void> {
  const state = await readState(stack.directory);
  if (state === undefined) throw new Error('the stack was stopped meanwhile');
  const options = { directory: join(stack.directory, part), lifetime: state.lifetime, port: portOf(stack, part) };
  const started = part === 's3' ? await startS3(options) : await startCluster({ ...options, ...primaryOf(stack) });
  await recordServers(stack.directory, [started.process]);
}

const primaryOf = ({ postgres }: StackConnection): Pick<ClusterOptions, 'name' | 'durability' | 'binDirectory'> => ({
  name: 'primary',
  durability: 'flushed',
  binDirectory: postgres.primary?.binDirectory ?? '',
});

function portOf({ s3, postgres }: StackConnection, part: StoppablePart): number {
  const port = part === 's3' ? Number(new URL(s3?.endpoint ?? '').port) : postgres.primary?.port;
  if (port === undefined) throw new Error(`the stack runs without its ${part}`);
  return port;
}
