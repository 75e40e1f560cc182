/** Where a run is, asked of the Temporal server: it answers while no worker lives. */
import { setTimeout as delay } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import { addScenarioRows, type Example } from '../../../scripts/stack/example.ts';
import type { RunStatus } from '../../../src/contract/status.ts';

/** A step under way, its attempt and what it last told about itself. */
export interface StepUnderWay {
  readonly step: string;
  readonly attempt: number;
  readonly details: Readonly<Record<string, unknown>>;
}

export async function stepsUnderWay(handle: WorkflowHandle): Promise<readonly StepUnderWay[]> {
  const { raw } = await handle.describe();
  return (raw.pendingActivities ?? []).map(({ activityId, attempt, heartbeatDetails }) => ({
    step: activityId ?? '',
    attempt: attempt ?? 0,
    details: detailsOf(heartbeatDetails?.payloads?.[0]?.data),
  }));
}

function detailsOf(data: Uint8Array | null | undefined): Readonly<Record<string, unknown>> {
  try {
    return JSON.parse(Buffer.from(data ?? []).toString('utf8')) as Record<string, unknown>;
  } catch {
    return {};
  }
}

const PATIENCE = 170_000;

/**
 * Asks again and again until there is an answer.
 *
 * @throws Error after three minutes: `what` did not happen
 */
export async function eventually<T>(what: string, ask: () => Promise<T | undefined>, pause = 20): Promise<T> {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > deadline) throw new Error(`it did not come to this: ${what}`);
    await delay(pause);
  }
}

const WHOLE_RUN = 180_000;

/**
 * @param where for the message
 * @throws Error when that takes longer than a whole run should
 */
export async function within<T>(reached: Promise<T>, where: () => Promise<string>): Promise<T> {
  const waiting = new AbortController();
  const late = delay(WHOLE_RUN, undefined, { signal: waiting.signal }).then(async () => {
    throw new Error(`the run did not get on: ${await where()}`);
  });
  try {
    return await Promise.race([reached, late]);
  } finally {
    waiting.abort();
    late.catch(() => undefined);
    reached.catch(() => undefined);
  }
}

/** The steps under way with what they tell, and what is waited for. */
export async function whereabouts(handle: WorkflowHandle): Promise<string> {
  const status = await handle.query<RunStatus>('status').catch(() => undefined);
  const steps = (await stepsUnderWay(handle)).map(
    ({ step, attempt, details }) => `${step}, attempt ${attempt}, ${JSON.stringify(details).slice(0, 200)}`,
  );
  return [...steps, `waits for ${JSON.stringify(status?.waiting ?? null).slice(0, 400)}`, status?.trouble ?? ''].join(
    '; ',
  );
}

/**
 * Decides at the gates as people would, whatever becomes of the workers meanwhile: approves, and chooses restore. Right
 * before the approval the rows are added that make the release's defect show.
 *
 * @returns ends it
 */
export function answerGates(handle: WorkflowHandle, example: Example, releaseTag: string): () => Promise<void> {
  const stopped = new AbortController();
  const answered = new Set<string>();
  const answer = async (): Promise<void> => {
    const { waiting } = await handle.query<RunStatus>('status');
    if (waiting === undefined || answered.has(JSON.stringify(waiting))) return;
    if (waiting.for === 'approval') {
      await addScenarioRows(example, releaseTag);
      await handle.signal('approve', { by: 'erin@example.com', planDigest: waiting.planDigest });
    } else if (waiting.for === 'recovery' && waiting.actions.includes('restore')) {
      await handle.signal('recover', { by: 'erin@example.com', action: 'restore', reason: 'the data is damaged' });
    } else if (waiting.for === 'recovery') {
      await handle.signal('recover', {
        by: 'erin@example.com',
        action: 'accept',
        reason: `not restorable: ${waiting.why}`,
      });
    }
    answered.add(JSON.stringify(waiting));
  };
  const answering = (async () => {
    while (!stopped.signal.aborted) {
      // Without a worker a query fails; the next one finds its successor.
      await answer().catch(() => undefined);
      await delay(200);
    }
  })();
  return () => {
    stopped.abort();
    return answering;
  };
}
