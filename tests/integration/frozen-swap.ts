/**
 * A thread that swaps databases under the migration lock and freezes, as a paused machine does, where everybody is shut out and
 * nothing has been renamed yet.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { underMigrationLock } from '../../src/postgres/advisory-lock.ts';
import { swapDatabases, type SwapRequest } from '../../src/postgres/swap/swap.ts';

export interface FrozenSwap {
  readonly request: Omit<SwapRequest, 'signal' | 'progress'> & { readonly url: string };
  readonly database: string;
  /** One integer: the thread goes on once it is not 0. */
  readonly gate: SharedArrayBuffer;
}

const { request, database, gate } = workerData as FrozenSwap;
const { runId, step, maintenanceDatabase, url } = request;
const ended = await underMigrationLock(
  url,
  { database, maintenanceDatabase, runId, step, signal: new AbortController().signal },
  (signal) =>
    swapDatabases({
      ...request,
      signal,
      progress: (phase) => {
        if (phase !== 'sessions-ended') return;
        parentPort?.postMessage('frozen');
        Atomics.wait(new Int32Array(gate), 0, 0);
      },
    }),
).then(
  () => 'swapped',
  (error: unknown) => (error instanceof Error ? error.message : String(error)),
);
parentPort?.postMessage(ended);
