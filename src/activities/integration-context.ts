import { Context } from '@temporalio/activity';
import type { StepInput } from '../contract/evidence/step.ts';
import type { IntegrationContext, SecretAccess } from '../integrations/context.ts';
import type { StepTools } from './activity-step.ts';
import { ensureReleaseCheckout } from './checkout.ts';
import { requireCurrentAttempt } from './current-attempt.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { nameInExecution } from './run-store.ts';

type Needed = Pick<ActivityDependencies, 'stateDirectory' | 'secrets'>;
type Tools = Pick<StepTools, 'signal' | 'progress'>;

/** What the integrations need of this step. */
export function integrationContext(dependencies: Needed, input: StepInput, tools: Tools): IntegrationContext {
  return {
    run: input.run,
    profile: input.profile,
    secrets: secretAccess(dependencies, input, tools.signal),
    checkout: () => ensureReleaseCheckout(dependencies, input, tools),
    signal: tools.signal,
    step: nameInExecution(Context.current().info.activityId, input.run.runId),
    requireCurrent: requireCurrentAttempt,
  };
}

/** The worker's vault, as one step of one profile sees it. */
export function secretAccess(
  { secrets }: Pick<ActivityDependencies, 'secrets'>,
  { profile }: Pick<StepInput, 'profile'>,
  signal: AbortSignal,
): SecretAccess {
  return {
    resolve: (reference) => secrets.resolve(reference, profile, signal),
    resolveValue: (value) => secrets.resolveValue(value, profile, signal),
    resolveAll: (values) => secrets.resolveAll(values, profile, signal),
    get redactor() {
      return secrets.redactor;
    },
  };
}
