/** Driving a run from outside, as a person with a Temporal client would. */
import { setTimeout as delay } from 'node:timers/promises';
import { type Client, WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import type { ReportSummary } from '../../src/contract/report.ts';
import { type MigrationRequest, TASK_QUEUE, WORKFLOW_TYPE, workflowIdOf } from '../../src/contract/request.ts';
import type { RunStatus } from '../../src/contract/status.ts';

export interface Startable {
  readonly client: Client;
  readonly profile: { readonly service: string };
  /** Default: the product's own. */
  readonly taskQueue?: string;
}

export function startMigration(
  { client, profile, taskQueue = TASK_QUEUE }: Startable,
  request: Pick<MigrationRequest, 'releaseTag'> & Partial<MigrationRequest>,
): Promise<WorkflowHandle> {
  const whole: MigrationRequest = {
    service: profile.service,
    changeTicket: 'CHG-1042',
    requestedBy: 'dana@example.com',
    ...request,
  };
  return client.workflow.start(WORKFLOW_TYPE, {
    taskQueue,
    workflowId: workflowIdOf(profile.service),
    args: [whole],
    staticSummary: `${whole.service} ${whole.releaseTag} (${whole.changeTicket})`,
  });
}

/**
 * Asks until the status is as wanted.
 *
 * @throws Error when the run has ended before, with its trouble
 */
export async function until(handle: WorkflowHandle, wanted: (status: RunStatus) => boolean): Promise<RunStatus> {
  for (;;) {
    const status = await handle.query<RunStatus>('status');
    if (wanted(status)) return status;
    if (status.stage === 'ended')
      throw new Error(`the run ended ${status.outcome ?? ''}: ${status.trouble ?? 'no trouble'}`);
    await delay(100);
  }
}

export const atGate =
  (waitingFor: NonNullable<RunStatus['waiting']>['for']) =>
  (status: RunStatus): boolean =>
    status.waiting?.for === waitingFor;

/**
 * Waits for the end of a run in which nobody is there to decide.
 *
 * @throws Error when it waits for a decision at the gate `recovery`
 */
export async function endWithoutDecision(handle: WorkflowHandle): ReturnType<typeof endOf> {
  for (;;) {
    const status = await handle.query<RunStatus>('status');
    if (status.stage === 'ended') return endOf(handle);
    if (status.waiting?.for === 'recovery') throw new Error(`the run waits for a decision: ${status.waiting.why}`);
    await delay(200);
  }
}

/** Waits for the end; the summary of the report, whichever way the run ended. */
export async function endOf(handle: WorkflowHandle): Promise<Pick<ReportSummary, 'outcome'> & Partial<ReportSummary>> {
  try {
    return (await handle.result()) as ReportSummary;
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    const { cause } = error;
    // A Cancelled end carries no details: the outcome is in the last status.
    if (cause instanceof CancelledFailure) {
      const { outcome } = await handle.query<RunStatus>('status');
      return { outcome: outcome ?? 'aborted' };
    }
    const [summary] = (cause instanceof ApplicationFailure ? (cause.details ?? []) : []) as [ReportSummary?];
    if (!summary) throw error;
    return summary;
  }
}
