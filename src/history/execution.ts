/** What the server knows of a run without asking its workflow: describe, and who polls its task queue. */
import type { Client, WorkflowExecutionDescription, WorkflowExecutionStatusName } from '@temporalio/client';
import { payloadConverter } from '../contract/payload-converter.ts';
import { OUTCOMES, type Outcome } from '../contract/profile.ts';
import { SEARCH_ATTRIBUTES } from '../contract/search-attributes.ts';
import { isoTime } from './timestamp.ts';

/** A step's activity as it is now. Times are ISO 8601 in UTC by the server's clock. */
export interface ActivityView {
  /** The step's id. */
  readonly id: string;
  readonly state: 'scheduled' | 'started' | 'cancel requested' | 'paused' | 'unknown';
  readonly attempt: number;
  /** 0: without limit. */
  readonly maximumAttempts: number;
  readonly startedAt?: string;
  readonly worker?: string;
  /** What the step itself reported last: bytes, revision, blockers. */
  readonly heartbeat?: { readonly at: string; readonly details: unknown };
  readonly lastFailure?: string;
  readonly nextAttemptAt?: string;
}

export interface ExecutionView {
  readonly workflowId: string;
  readonly runId: string;
  /** Stays the same through resets of the workflow. */
  readonly firstRunId: string;
  readonly status: WorkflowExecutionStatusName;
  readonly startedAt: string;
  readonly closedAt?: string;
  readonly taskQueue: string;
  /** Search attributes, which answer without a worker too. */
  readonly stage?: string;
  readonly outcome?: Outcome;
  readonly activities: readonly ActivityView[];
  /** Attempts of the workflow task that is pending: more than one means that workflow code does not get through. */
  readonly workflowTaskAttempt?: number;
}

export function executionView(description: WorkflowExecutionDescription): ExecutionView {
  const { raw, typedSearchAttributes: attributes } = description;
  const stage = attributes.get(SEARCH_ATTRIBUTES.stage);
  const outcome = attributes.get(SEARCH_ATTRIBUTES.outcome);
  const attempt = raw.pendingWorkflowTask?.attempt;
  return {
    workflowId: description.workflowId,
    runId: description.runId,
    firstRunId: raw.workflowExecutionInfo?.firstRunId || description.runId,
    status: description.status.name,
    startedAt: description.startTime.toISOString(),
    taskQueue: description.taskQueue,
    activities: (raw.pendingActivities ?? []).map(activityView),
    ...(description.closeTime && { closedAt: description.closeTime.toISOString() }),
    ...(stage !== undefined && { stage }),
    ...(isOutcome(outcome) && { outcome }),
    ...(attempt && { workflowTaskAttempt: attempt }),
  };
}

type PendingActivity = NonNullable<WorkflowExecutionDescription['raw']['pendingActivities']>[number];

/** By `temporal.api.enums.v1.PendingActivityState`. */
const STATES: Readonly<Record<number, ActivityView['state']>> = {
  1: 'scheduled',
  2: 'started',
  3: 'cancel requested',
  4: 'paused',
  5: 'paused',
};

function activityView(activity: PendingActivity): ActivityView {
  const [details] = activity.heartbeatDetails?.payloads ?? [];
  const heartbeatAt = isoTime(activity.lastHeartbeatTime);
  const startedAt = isoTime(activity.lastStartedTime);
  const nextAttemptAt = isoTime(activity.nextAttemptScheduleTime);
  const failure = activity.lastFailure;
  return {
    id: activity.activityId ?? '',
    state: STATES[activity.state ?? 0] ?? 'unknown',
    attempt: activity.attempt ?? 1,
    maximumAttempts: activity.maximumAttempts ?? 0,
    ...(startedAt !== undefined && { startedAt }),
    ...(activity.lastWorkerIdentity && { worker: activity.lastWorkerIdentity }),
    ...(details &&
      heartbeatAt !== undefined && {
        heartbeat: { at: heartbeatAt, details: payloadConverter.fromPayload(details) },
      }),
    ...(failure && { lastFailure: failureText(failure) }),
    ...(nextAttemptAt !== undefined && { nextAttemptAt }),
  };
}

type Failure = NonNullable<PendingActivity['lastFailure']>;

/** Type and message of a failure as the server keeps it. */
export function failureText(failure: Failure): string {
  const type = failure.applicationFailureInfo?.type ?? (failure.timeoutFailureInfo ? 'TimedOut' : '');
  return `${type}${type && failure.message ? ': ' : ''}${failure.message ?? ''}`.slice(0, 2000);
}

const isOutcome = (text: string | undefined): text is Outcome =>
  (OUTCOMES as readonly (string | undefined)[]).includes(text);

/** Who asks the server for workflow tasks of a queue. */
export interface TaskQueueView {
  readonly name: string;
  /** Identities of the workers that polled within the last 75 seconds. */
  readonly workers: readonly string[];
}

/** A poll lasts 60 seconds at most and is followed by the next: who has not polled for this long is gone. */
const SILENCE = 75_000;
/** `temporal.api.enums.v1.TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW` */
const WORKFLOW_TASKS = 1;

/** A worker that was just killed is still counted for a while; that nobody polls is certain. */
export async function readTaskQueue(client: Client, name: string, now: number): Promise<TaskQueueView> {
  const { pollers } = await client.workflowService.describeTaskQueue({
    namespace: client.options.namespace,
    taskQueue: { name },
    taskQueueType: WORKFLOW_TASKS,
  });
  const workers = (pollers ?? [])
    .filter(({ lastAccessTime }) => now - Date.parse(isoTime(lastAccessTime) ?? '1970-01-01') < SILENCE)
    .map(({ identity }) => identity ?? '');
  return { name, workers };
}
