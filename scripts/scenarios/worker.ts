import { mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import type { StackConnection } from '../stack/connection.ts';
import { root } from '../stack/layout.ts';
import { recordServers } from '../stack/stack.ts';
import { type Lifetime, type RunningServer, startServer, stopServer } from '../stack/server-process.ts';

export interface WorkerOptions {
  readonly stack: StackConnection;
  readonly profilesDirectory: string;
  readonly lifetime: Lifetime;
  /** Default: the product's own. */
  readonly bundle?: string;
}

/** How to start a worker by hand, for those who keep the stack. */
export interface StartedWorker {
  readonly server: RunningServer;
  readonly logFile: string;
  /** Where it and its children put temporary files; of its own, so that anybody can see what they leave. */
  readonly temporaryFolder: string;
}

/** Starts `runbook worker` as a process of its own, as in production, and waits until it takes work. */
export async function startWorker({
  stack,
  profilesDirectory,
  lifetime,
  bundle,
}: WorkerOptions): Promise<StartedWorker> {
  const { temporal } = stack;
  if (!temporal) throw new Error('the stack runs without Temporal');
  const directory = path.join(stack.directory, 'worker');
  const temporaryFolder = path.join(directory, 'tmp');
  await mkdir(temporaryFolder, { recursive: true });
  const logFile = path.join(directory, 'worker.log');
  await rm(logFile, { force: true });
  const server = await startServer({
    name: 'runbook-worker',
    program: process.execPath,
    arguments: [
      path.join(root, 'src', 'cli.ts'),
      'worker',
      '--profiles',
      profilesDirectory,
      '--state',
      path.join(directory, 'state'),
      ...(bundle === undefined ? [] : ['--bundle', bundle]),
    ],
    environment: {
      TEMPORAL_ADDRESS: temporal.address,
      TEMPORAL_NAMESPACE: temporal.namespace,
      TMPDIR: temporaryFolder,
    },
    directory,
    logFile,
    lifetime,
    // Its cache and the secrets it reads belong to whoever runs this.
    privileges: 'keep-files',
    orphanSignal: 'KILL',
    ready: async () => (await readFile(logFile, 'utf8')).includes('worker ready'),
  });
  await recordServers(stack.directory, [server]);
  return { server, logFile, temporaryFolder };
}

export const stopWorker = (server: RunningServer): Promise<void> =>
  stopServer(server, {
    signals: [
      ['SIGTERM', 20_000],
      ['SIGKILL', 2000],
    ],
  });
