/** Drills of a service as the server knows them, started by a person or by the schedule. */
import {
  TerminatedFailure,
  TimeoutFailure,
  type Client,
  WorkflowFailedError,
  type WorkflowHandle,
} from '@temporalio/client';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { DRILL_WORKFLOW_TYPE, type DrillPhase, type DrillStatus, drillIdOf, drillStep } from '../contract/drill.ts';
import { DRILL_ERRORS } from '../contract/errors.ts';
import type { DrillRecord } from '../contract/evidence/drill.ts';
import {
  type ActivityView,
  type ExecutionView,
  executionView,
  readTaskQueue,
  type TaskQueueView,
} from './execution.ts';
import { type Answer, ask } from './question.ts';

/** How a drill ended. */
export type DrillEnd =
  | { readonly kind: 'passed'; readonly record: DrillRecord }
  /** The record is absent where it could not be stored. */
  | { readonly kind: 'failed'; readonly message: string; readonly record?: DrillRecord }
  | { readonly kind: 'refused'; readonly message: string }
  | { readonly kind: 'cancelled' }
  /** The server or a hand ended it: its scratch database may be there still. */
  | { readonly kind: 'lost'; readonly how: string };

export interface DrillView {
  readonly execution: ExecutionView;
  readonly status: Answer<DrillStatus>;
  readonly taskQueue: TaskQueueView;
  /** The step that runs, with what it reports about itself. */
  readonly activity?: ActivityView;
  /** Of a closed drill. */
  readonly end?: DrillEnd;
}

const PATIENCE = 5000;

export async function readDrill(client: Client, handle: WorkflowHandle): Promise<DrillView> {
  const execution = executionView(await handle.describe());
  const pinned = client.workflow.getHandle(execution.workflowId, execution.runId);
  const isClosed = execution.closedAt !== undefined;
  const [status, taskQueue] = await Promise.all([
    ask<DrillStatus>(client, pinned, 'status', PATIENCE),
    readTaskQueue(client, execution.taskQueue, Date.now()),
  ]);
  const [activity] = execution.activities;
  return {
    execution,
    status,
    taskQueue,
    ...(activity && { activity }),
    ...(isClosed && { end: await readDrillEnd(pinned) }),
  };
}

/** Phase by the server's own knowledge, for when the workflow does not answer. */
export const phaseOfActivity = (activity: ActivityView | undefined): DrillPhase | undefined =>
  STEPS.find((phase) => drillStep(phase) === activity?.id);

const STEPS = ['prepare', 'restore', 'drop', 'record'] as const;

const LISTED = 50;

/** The newest drill of a service; undefined where the server knows of none. The list may lag by a second or so. */
export async function findLastDrill(client: Client, service: string): Promise<WorkflowHandle | undefined> {
  const id = drillIdOf(service);
  const query = `WorkflowType = '${DRILL_WORKFLOW_TYPE}' AND WorkflowId STARTS_WITH '${id}'`;
  let last: { readonly workflowId: string; readonly runId: string; readonly started: number } | undefined;
  let looked = 0;
  for await (const { workflowId, runId, startTime } of client.workflow.list({ query, pageSize: LISTED })) {
    looked += 1;
    // Services whose names begin alike: a schedule appends the time, like -2026-11-22T03:00:00Z.
    const ours = workflowId === id || /^-\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(workflowId.slice(id.length));
    const started = startTime.getTime();
    if (ours && started > (last?.started ?? 0)) last = { workflowId, runId, started };
    if (looked >= LISTED && last !== undefined) break;
  }
  return last && client.workflow.getHandle(last.workflowId, last.runId);
}

async function readDrillEnd(handle: WorkflowHandle): Promise<DrillEnd> {
  try {
    return { kind: 'passed', record: (await handle.result()) as DrillRecord };
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    const { cause } = error;
    if (cause instanceof CancelledFailure) return { kind: 'cancelled' };
    if (cause instanceof TerminatedFailure) return { kind: 'lost', how: `terminated: ${cause.message}` };
    if (cause instanceof TimeoutFailure) return { kind: 'lost', how: 'timed out on the server' };
    const message = cause?.message ?? error.message;
    if (!(cause instanceof ApplicationFailure)) return { kind: 'lost', how: message };
    if (cause.type === DRILL_ERRORS.refused) return { kind: 'refused', message };
    const record = cause.details?.[0] as DrillRecord | undefined;
    return { kind: 'failed', message, ...(record && { record }) };
  }
}
