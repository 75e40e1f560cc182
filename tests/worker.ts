import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, Runtime, type Worker } from '@temporalio/worker';
import { afterAll, beforeAll } from 'vitest';
import { ensureBundle } from '../scripts/build-bundle.ts';
import { createWorker } from '../src/worker.ts';
import { randomName, useStack } from './stack.ts';
import { temporaryDirectory } from './temporary-directory.ts';

export interface RunningWorker {
  readonly client: Client;
  readonly taskQueue: string;
}

/**
 * A real worker in this process, on a task queue of its own, for the shared stack's Temporal.
 *
 * @param profiles folder of the profiles, known once the file's own set-up has run
 */
export function useWorker(profiles: () => string): RunningWorker {
  const { temporal } = useStack();
  const taskQueue = randomName('queue');
  let client: Client;
  let worker: Worker;
  let running: Promise<void>;
  let stateDirectory: string;
  beforeAll(async () => {
    process.env.TEMPORAL_ADDRESS = temporal.address;
    process.env.TEMPORAL_NAMESPACE = temporal.namespace;
    Runtime.install({ logger: new DefaultLogger('ERROR'), telemetryOptions: { logging: { filter: 'ERROR' } } });
    stateDirectory = await temporaryDirectory('runbook-state');
    const bundlePath = await ensureBundle();
    worker = await createWorker({ profilesDirectory: profiles(), stateDirectory, bundlePath, taskQueue });
    running = worker.run();
    client = new Client({
      connection: await Connection.connect({ address: temporal.address }),
      namespace: temporal.namespace,
    });
  });
  afterAll(async () => {
    worker?.shutdown();
    await running;
    await client?.connection.close();
  });
  return {
    get client() {
      return client;
    },
    taskQueue,
  };
}
