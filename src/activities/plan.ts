import { Context } from '@temporalio/activity';
import type { PlanActivities } from '../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { DIGEST_PREFIX } from '../contract/plan.ts';
import { canonicalJson, sha256 } from '../archive/canonical.ts';
import { verifySignature } from '../integrations/ssh-signature.ts';
import { runStep } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { withRunStore } from './run-store.ts';

export function createPlanActivities({ secrets }: Pick<ActivityDependencies, 'secrets'>): PlanActivities {
  return {
    sealPlan: (input) =>
      runStep(secrets, ({ signal }) =>
        withRunStore(secrets, input, signal, async ({ store, folder }) => {
          const text = canonicalJson(input.plan);
          // Masking it would store another plan than the digest names.
          if (secrets.redactor.redact(text) !== text) {
            throw new StepError(
              STEP_ERRORS.refused,
              'The plan contains the value of a secret of the profile: find the field of the profile or request it was written into.',
            );
          }
          const digest = sha256(text);
          const key = `${folder}/plan-${digest.slice(0, DIGEST_PREFIX)}.json`;
          const { uri } = await store.put(key, text, 'application/json', signal);
          return { plan: input.plan, digest, uri };
        }),
      ),

    identifyRun: () =>
      runStep(secrets, async () => {
        const { workflowExecution } = Context.current().info;
        if (workflowExecution === undefined) throw new Error('this activity does not run for a workflow');
        return { currentRunId: workflowExecution.runId };
      }),

    verifyApproval: ({ by, planDigest, signature, profile }) =>
      runStep(secrets, ({ signal }) =>
        verifySignature({
          by,
          text: planDigest,
          signature,
          signers: profile.approvals.signers,
          signal,
          redactor: secrets.redactor,
        }),
      ),
  };
}
