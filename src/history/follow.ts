/** Follows a run to its end, event by event as people watch it. */
import type { Client } from '@temporalio/client';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DecisionRecord, Refusal, RunStatus, StepRecord, Waiting } from '../contract/status.ts';
import { type ActivityView, type ExecutionView, executionView } from './execution.ts';
import { ask } from './question.ts';
import { readEnd, type RunEnd } from './run-end.ts';

export type RunEvent =
  | { readonly kind: 'step-begun'; readonly step: StepRecord }
  | { readonly kind: 'step-ended'; readonly step: StepRecord }
  /** The step that runs, again and again while it does; `activity` where the server knows one. */
  | { readonly kind: 'progress'; readonly step: StepRecord; readonly activity: ActivityView | undefined }
  | { readonly kind: 'waiting'; readonly waiting: Waiting; readonly status: RunStatus }
  | { readonly kind: 'decision'; readonly decision: DecisionRecord }
  | { readonly kind: 'refusal'; readonly refusal: Refusal }
  | { readonly kind: 'trouble'; readonly text: string }
  /** The workflow does not answer: no worker, or one that cannot. Said once until it answers again. */
  | { readonly kind: 'silent'; readonly why: string }
  | { readonly kind: 'ended'; readonly end: RunEnd; readonly execution: ExecutionView };

export interface FollowOptions {
  readonly signal: AbortSignal;
  /** Milliseconds between two looks. @default 1000 */
  readonly every?: number;
}

const PATIENCE = 5000;

/**
 * @param runId of the run to follow; a reset of the workflow is followed into its new execution
 * @throws AbortError when `signal` is aborted: the run goes on
 */
export async function* followRun(
  client: Client,
  workflowId: string,
  runId: string,
  { signal, every = 1000 }: FollowOptions,
): AsyncGenerator<RunEvent, void, undefined> {
  const seen = new Seen();
  let current = runId;
  for (;;) {
    signal.throwIfAborted();
    const handle = client.workflow.getHandle(workflowId, current);
    const execution = executionView(await handle.describe());
    const isClosed = execution.closedAt !== undefined;
    const [status, timeline] = await Promise.all([
      ask<RunStatus>(client, handle, 'status', PATIENCE),
      ask<readonly StepRecord[]>(client, handle, 'timeline', PATIENCE),
    ]);
    if (status.kind === 'answered' && timeline.kind === 'answered') {
      yield* seen.news(status.value, timeline.value, execution);
    } else if (!isClosed) {
      yield* seen.silence(status.kind === 'unanswered' ? status.why : 'no answer');
    }
    if (isClosed) {
      const successor = await successorOf(client, execution);
      if (successor === undefined) {
        yield { kind: 'ended', end: await readEnd(handle, execution), execution };
        return;
      }
      current = successor;
    }
    await sleep(every, undefined, { signal });
  }
}

/** A reset ends an execution and begins another with the same first run id. */
async function successorOf(client: Client, execution: ExecutionView): Promise<string | undefined> {
  if (execution.status !== 'TERMINATED') return undefined;
  const latest = executionView(await client.workflow.getHandle(execution.workflowId).describe());
  const isSuccessor = latest.runId !== execution.runId && latest.firstRunId === execution.firstRunId;
  return isSuccessor ? latest.runId : undefined;
}

/** What has been told already. */
class Seen {
  private readonly begun = new Set<string>();
  private readonly ended = new Set<string>();
  private decisions = 0;
  private refusals = 0;
  private waiting = '';
  private trouble: string | undefined;
  private isSilent = false;

  *news(
    status: RunStatus,
    timeline: readonly StepRecord[],
    { activities }: ExecutionView,
  ): Generator<RunEvent, void, undefined> {
    this.isSilent = false;
    yield* this.steps(timeline, activities);
    yield* this.people(status);
  }

  *silence(why: string): Generator<RunEvent, void, undefined> {
    if (this.isSilent) return;
    this.isSilent = true;
    yield { kind: 'silent', why };
  }

  private *steps(
    timeline: readonly StepRecord[],
    activities: readonly ActivityView[],
  ): Generator<RunEvent, void, undefined> {
    for (const step of timeline) {
      const isRunning = step.status === 'running';
      if (!this.begun.has(step.id)) {
        this.begun.add(step.id);
        yield { kind: 'step-begun', step };
      }
      if (isRunning) {
        yield { kind: 'progress', step, activity: activities.find(({ id }) => id === step.id) };
      } else if (!this.ended.has(step.id)) {
        this.ended.add(step.id);
        yield { kind: 'step-ended', step };
      }
    }
  }

  private *people(status: RunStatus): Generator<RunEvent, void, undefined> {
    for (const decision of status.decisions.slice(this.decisions)) yield { kind: 'decision', decision };
    this.decisions = status.decisions.length;
    const fresh = Math.min(status.refusals.count - this.refusals, status.refusals.last.length);
    if (fresh > 0) for (const refusal of status.refusals.last.slice(-fresh)) yield { kind: 'refusal', refusal };
    this.refusals = status.refusals.count;
    if (status.trouble !== undefined && status.trouble !== this.trouble) {
      yield { kind: 'trouble', text: status.trouble };
    }
    this.trouble = status.trouble;
    const waiting = JSON.stringify(status.waiting ?? null);
    if (status.waiting && waiting !== this.waiting) yield { kind: 'waiting', waiting: status.waiting, status };
    this.waiting = waiting;
  }
}
