import type { Client } from '@temporalio/client';
import { canonicalDigest } from '../archive/canonical.ts';
import type { SealedPlan } from '../contract/plan.ts';
import { workflowIdOf } from '../contract/request.ts';
import { ask } from '../history/question.ts';
import { CommandError } from './command-error.ts';
import { withRun } from './connection.ts';

/** Milliseconds. */
const ANSWER_LIMIT = 20_000;

/**
 * The plan of a run as the run itself tells it, its digest computed anew: what is shown, and signed, is what the digest names.
 *
 * @throws CommandError when there is no run, no plan yet, nobody to answer, or the digest is of something else
 */
export async function readPlan(client: Client, service: string, runId?: string): Promise<SealedPlan> {
  const handle = client.workflow.getHandle(workflowIdOf(service), runId);
  const { closeTime } = await withRun(service, runId, () => handle.describe());
  const answer = await ask<SealedPlan | null>(client, handle, 'plan', ANSWER_LIMIT);
  if (answer.kind === 'unanswered') throw new CommandError(`the plan cannot be read: ${answer.why}`);
  const sealed = answer.value;
  if (sealed === null) {
    throw new CommandError(
      closeTime === undefined
        ? `the run of ${service} has no plan yet: it is made before the gate production opens, see runbook status ${service}`
        : `the run of ${service} ended before there was a plan`,
    );
  }
  const digest = canonicalDigest(sealed.plan);
  if (digest !== sealed.digest) {
    throw new CommandError(
      `the digest of the plan that the run shows is ${digest}, the run says ${sealed.digest}: do not approve it, something has changed one of them`,
    );
  }
  return sealed;
}
