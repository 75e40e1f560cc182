/** One picture of a run: what the workflow answers, merged with what only the server knows. */
import type { Client, WorkflowHandle } from '@temporalio/client';
import type { MessageSender } from '../contract/report.ts';
import type { RunStatus } from '../contract/status.ts';
import { type ExecutionView, executionView, readTaskQueue, type TaskQueueView } from './execution.ts';
import { messageSenders, unknownSignals } from './message-senders.ts';
import { type Answer, ask } from './question.ts';
import { readEnd, type RunEnd } from './run-end.ts';
import { type WorkflowTaskFailure, workflowTaskFailure } from './workflow-task-failure.ts';

export interface RunView {
  readonly execution: ExecutionView;
  readonly status: Answer<RunStatus>;
  readonly taskQueue: TaskQueueView;
  /** By the server's record, whatever their `by` claims. */
  readonly senders: readonly MessageSender[];
  /** Signals whose name nobody handles: the server accepts any. */
  readonly unknownSignals: readonly MessageSender[];
  readonly workflowTaskFailure?: WorkflowTaskFailure;
  /** Of a closed run. */
  readonly end?: RunEnd;
}

/** Milliseconds a worker gets to answer. */
const PATIENCE = 5000;

/** @param handle with or without a run id; without one it is the last run */
export async function readRun(client: Client, handle: WorkflowHandle): Promise<RunView> {
  const execution = executionView(await handle.describe());
  const pinned = client.workflow.getHandle(execution.workflowId, execution.runId);
  const [status, taskQueue] = await Promise.all([
    ask<RunStatus>(client, pinned, 'status', PATIENCE),
    readTaskQueue(client, execution.taskQueue, Date.now()),
  ]);
  // After the answer: then the history holds the handling of every message that the answer speaks of.
  const events = (await pinned.fetchHistory()).events ?? [];
  const senders = messageSenders(events);
  const isClosed = execution.closedAt !== undefined;
  const failing = isClosed ? undefined : workflowTaskFailure(events);
  return {
    execution,
    status,
    taskQueue,
    senders,
    unknownSignals: unknownSignals(senders),
    ...(failing && { workflowTaskFailure: failing }),
    ...(isClosed && { end: await readEnd(pinned, execution) }),
  };
}
