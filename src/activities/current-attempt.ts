import { Context } from '@temporalio/activity';
import type { Client } from '@temporalio/client';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';

/**
 * Asks the server whether this attempt is still the one that counts. A worker that was frozen for longer than the heartbeat
 * time-out goes on as if nothing had been, and hears of its end with a later heartbeat only: hours later the step may long
 * have been done again, and undone.
 *
 * @throws StepError `OutsideUnavailable` where the step was given to a later attempt or has ended; nobody is told of it any more
 */
export async function requireCurrentAttempt(): Promise<void> {
  const context = Context.current();
  const { activityId, attempt, workflowExecution } = context.info;
  const client = clientOf(context);
  if (client === undefined || workflowExecution === undefined) return;
  const { workflowId, runId } = workflowExecution;
  const { raw } = await client.workflow.getHandle(workflowId, runId).describe();
  const pending = (raw.pendingActivities ?? []).find((activity) => activity.activityId === activityId);
  if (pending?.attempt === attempt) return;
  throw new StepError(
    STEP_ERRORS.unavailable,
    `attempt ${attempt} of ${activityId} was given up for lost by the server, and stops: ${
      pending === undefined ? 'the step has ended' : `attempt ${pending.attempt ?? 'unknown'} does it now`
    }`,
  );
}

/** A worker always has one; the test environment of the SDK only where it was given one. */
function clientOf(context: Context): Client | undefined {
  try {
    return context.client;
  } catch {
    return undefined;
  }
}
