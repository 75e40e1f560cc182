/** The embedded stack with the example service and a worker: what the demo, the proofs and the benches run on. */
import path from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { ensureBundle } from '../build-bundle.ts';
import { deployExample, type Example, type ExampleOptions } from '../stack/example.ts';
import { stackRoot } from '../stack/layout.ts';
import type { Lifetime } from '../stack/server-process.ts';
import { attachStack, type Stack, startStack, stopStack } from '../stack/stack.ts';
import { writeProfile, type WrittenProfile } from './profile.ts';
import { type StartedWorker, startWorker } from './worker.ts';

export interface SessionOptions {
  /** Names the folder below `.stack/`, so that two sessions do not meet. */
  readonly name: string;
  readonly lifetime?: Lifetime;
  /** See `StackOptions`. */
  readonly postgresBin?: string;
  readonly example?: Pick<ExampleOptions, 'scale' | 'audioSize'>;
  /** Builds the workflow bundle of the workers in a folder, and tells where it is. Default: the product's own. */
  readonly bundle?: (directory: string) => Promise<string>;
  readonly say: (line: string) => void;
}

export interface Session {
  readonly stack: Stack;
  readonly example: Example;
  readonly profile: WrittenProfile;
  readonly client: Client;
  readonly temporal: NonNullable<Stack['temporal']>;
  /** The worker of this moment. */
  readonly worker: StartedWorker;
  /** Starts another worker after the one of before has gone. */
  restartWorker(): Promise<StartedWorker>;
}

export const sessionDirectory = (name: string): string => path.join(stackRoot, name);

/** Stops what an earlier session of this name left up; returns how many servers that were. */
export const stopSession = (name: string): Promise<number> => stopStack(sessionDirectory(name));

/** Starts everything, hands it to `work`, and stops everything unless it is to be detached. */
export async function withSession<T>(options: SessionOptions, work: (session: Session) => Promise<T>): Promise<T> {
  const { name, say } = options;
  const lifetime = options.lifetime ?? 'with-parent';
  const directory = sessionDirectory(name);
  // What an earlier one left up has its own data and its own worker: start from the beginning.
  if (await attachStack(directory)) await stopStack(directory);
  const stack = await startStack({
    directory,
    lifetime,
    onProgress: say,
    ...(options.postgresBin !== undefined && { postgresBin: options.postgresBin }),
  });
  let client: Client | undefined;
  try {
    const { temporal } = stack;
    if (!temporal) throw new Error('the stack runs without Temporal');
    const [example, bundle] = await Promise.all([
      deployExample(stack, { lifetime, onProgress: say, ...options.example }),
      (options.bundle ?? ensureBundle)(directory),
    ]);
    const profile = await writeProfile(example);
    const start = (): Promise<StartedWorker> =>
      startWorker({ stack, profilesDirectory: profile.directory, lifetime, bundle });
    let worker = await start();
    say(`worker ready; Temporal UI: ${temporal.uiUrl}`);
    client = new Client({
      connection: await Connection.connect({ address: temporal.address }),
      namespace: temporal.namespace,
    });
    const connected = client;
    return await work({
      stack,
      example,
      profile,
      temporal,
      client: connected,
      get worker() {
        return worker;
      },
      restartWorker: async () => {
        worker = await start();
        return worker;
      },
    });
  } finally {
    await client?.connection.close();
    if (lifetime === 'with-parent') await stack.stop();
  }
}
