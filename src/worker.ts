/** Starts a worker: connection, bundle, activities, shutdown. Nothing else. */
import { hostname } from 'node:os';
import { Client, Connection } from '@temporalio/client';
import { NativeConnection, Worker } from '@temporalio/worker';
import { createActivities } from './activities/index.ts';
import { createSecretVault } from './profile/secret-vault.ts';
import { TASK_QUEUE } from './contract/request.ts';
import { connectionSettings, type TemporalAddress } from './temporal-connection.ts';
import { missingSearchAttributes } from './temporal-setup.ts';

export interface WorkerSettings extends TemporalAddress {
  /** Folder with one `<service>.yaml` per service. */
  readonly profilesDirectory: string;
  /** Cache of git mirrors and checkouts; may be lost at any time. */
  readonly stateDirectory: string;
  /** The bundle built by `npm run bundle`. */
  readonly bundlePath: string;
  /** @default `database-migrations` */
  readonly taskQueue?: string;
}

/**
 * Time a step gets to stop its children and sessions once the worker is told to end. Keep the orchestrator's kill time
 * (e.g. `terminationGracePeriodSeconds`) above `SHUTDOWN_FORCE`.
 */
const SHUTDOWN_GRACE = '5 seconds';
const SHUTDOWN_FORCE = '30 seconds';

/**
 * @throws Error when search attributes are missing: `runbook setup` registers them
 */
export async function createWorker(settings: WorkerSettings): Promise<Worker> {
  const { connectionOptions, namespace } = connectionSettings(settings);
  const clientConnection = await Connection.connect(connectionOptions);
  const client = new Client({ connection: clientConnection, namespace });
  const missing = await missingSearchAttributes(client);
  if (missing.length > 0) {
    throw new Error(`the search attributes ${missing.join(', ')} are missing; register them with: runbook setup`);
  }
  const connection = await NativeConnection.connect(connectionOptions);
  return Worker.create({
    connection,
    namespace,
    taskQueue: settings.taskQueue ?? TASK_QUEUE,
    identity: `${process.pid}@${hostname()}`,
    workflowBundle: { codePath: settings.bundlePath },
    activities: createActivities({
      profilesDirectory: settings.profilesDirectory,
      stateDirectory: settings.stateDirectory,
      client,
      secrets: createSecretVault(),
    }),
    // Steps are child processes and database sessions, not waiting: few at a time.
    maxConcurrentActivityTaskExecutions: 8,
    maxCachedWorkflows: 100,
    // An abort travels by heartbeat: this is how long it may take to arrive.
    maxHeartbeatThrottleInterval: '500 milliseconds',
    defaultHeartbeatThrottleInterval: '500 milliseconds',
    shutdownGraceTime: SHUTDOWN_GRACE,
    shutdownForceTime: SHUTDOWN_FORCE,
  });
}
