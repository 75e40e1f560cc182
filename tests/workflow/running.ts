import { readFile } from 'node:fs/promises';
import { WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { ensureBundle } from '../../scripts/build-bundle.ts';
import { programs } from '../../scripts/stack/layout.ts';
import type { MigrationActivities } from '../../src/contract/activities.ts';
import type { ReportSummary } from '../../src/contract/report.ts';
import type { MigrationRequest } from '../../src/contract/request.ts';
import type { RunStatus } from '../../src/contract/status.ts';
import { SEARCH_ATTRIBUTE_NAMES } from '../../src/contract/search-attributes.ts';
import { addSearchAttributes } from '../../src/temporal-setup.ts';

export { until } from '../../scripts/scenarios/driving.ts';

/**
 * At the gate, with the notification that it is open delivered. The time-skipping server, not the real one, can lose a
 * cancellation that meets the end of its activity: a decision that comes just then would hang the test.
 */
export const atGate =
  (waitingFor: NonNullable<RunStatus['waiting']>['for']) =>
  ({ waiting, step }: RunStatus): boolean =>
    waiting?.for === waitingFor && step === undefined;

export type Run = <T>(
  activities: MigrationActivities,
  act: (handle: WorkflowHandle) => Promise<T>,
  request?: Partial<Record<keyof MigrationRequest, unknown>>,
) => Promise<T>;

export const request: MigrationRequest = {
  service: 'whisper-transcriber',
  releaseTag: 'v1.1.0',
  changeTicket: 'CHG-1',
  requestedBy: 'dana@example.com',
};

Runtime.install({ logger: new DefaultLogger('ERROR'), telemetryOptions: { logging: { filter: 'ERROR' } } });

let bundle: Promise<string> | undefined;

/**
 * Starts a run on a server and a worker of its own: the time-skipping clock is one for a whole server, and so are leases. What
 * it has written is replayed at the end, as by a worker that takes it over: other commands than the history's fail the test.
 */
export const runMigration: Run = async (activities, act, changes = {}) => {
  bundle ??= ensureBundle().then((path) => readFile(path, 'utf8'));
  const code = await bundle;
  const environment = await TestWorkflowEnvironment.createTimeSkipping({
    server: { executable: { type: 'existing-path', path: programs.temporalTestServer } },
  });
  try {
    await addSearchAttributes(environment.client, SEARCH_ATTRIBUTE_NAMES);
    const taskQueue = 'workflow-test';
    const worker = await Worker.create({
      connection: environment.nativeConnection,
      taskQueue,
      workflowBundle: { code },
      activities: { ...activities },
    });
    const { handle, acted } = await worker.runUntil(async () => {
      const handle = await environment.client.workflow.start('databaseMigration', {
        taskQueue,
        workflowId: 'migrate-whisper-transcriber',
        args: [{ ...request, ...changes }],
      });
      return { handle, acted: await act(handle) };
    });
    await Worker.runReplayHistory({ workflowBundle: { code } }, await handle.fetchHistory(), handle.workflowId);
    return acted;
  } finally {
    await environment.teardown();
  }
};

export interface End {
  readonly outcome: string;
  readonly error: string;
  readonly summary: ReportSummary | undefined;
}

/** How a run ended, failure or not. */
export async function endOf(handle: WorkflowHandle): Promise<End> {
  try {
    const summary = (await handle.result()) as ReportSummary;
    return { outcome: summary.outcome, error: '', summary };
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    const { cause } = error;
    if (!(cause instanceof ApplicationFailure))
      return { outcome: cause?.name ?? '', error: cause?.name ?? '', summary: undefined };
    const [summary] = (cause.details ?? []) as [ReportSummary | undefined];
    return { outcome: summary?.outcome ?? '', error: cause.type ?? '', summary };
  }
}
