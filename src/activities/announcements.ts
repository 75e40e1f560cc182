import { Context } from '@temporalio/activity';
import type { AnnouncementActivities } from '../contract/activities.ts';
import type { ActionsInput } from '../contract/evidence/actions.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { canonicalDigest } from '../archive/canonical.ts';
import { type Delivery, deliver, describeAction } from '../integrations/actions.ts';
import { runStep } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { integrationContext } from './integration-context.ts';

type Needed = Pick<ActivityDependencies, 'stateDirectory' | 'secrets'>;

/** Deliveries by the action's position, as heartbeats carry them to the next attempt. */
type Delivered = Record<string, Delivery>;

export function createAnnouncementActivities(dependencies: Needed): AnnouncementActivities {
  return {
    performActions: (input) =>
      runStep(dependencies.secrets, async (tools) => {
        const context = integrationContext(dependencies, input, tools);
        const delivered = deliveredBefore(Context.current().info.heartbeatDetails);
        const telling = () => ({ delivered: { ...delivered } as Record<string, { to: string; answer: string }> });
        tools.progress(telling());
        const failures: { readonly to: string; readonly error: StepError }[] = [];
        for (const [index, action] of input.actions.entries()) {
          if (delivered[index] !== undefined) continue;
          try {
            delivered[index] = await deliver(action, input.message, keyOf(input, index), context);
          } catch (error) {
            tools.signal.throwIfAborted();
            // One that fails does not keep the others from being told.
            if (!(error instanceof StepError)) throw error;
            failures.push({ to: describeAction(action), error });
          }
          tools.progress(telling());
          // At once: this attempt may fail before the timer beats, and the next must know whom it told.
          Context.current().heartbeat(telling());
        }
        if (failures.length > 0) throw combined(failures);
        return { delivered: input.actions.flatMap((_action, index) => delivered[index] ?? []) };
      }),
  };
}

/** The same for every attempt at the same message, another for a reminder that says the same. */
function keyOf({ run, message }: ActionsInput, index: number): string {
  const digest = canonicalDigest({ message, index }).slice(0, 12);
  return `${run.runId}/${Context.current().info.activityId}/${digest}`;
}

function deliveredBefore(details: unknown): Delivered {
  const delivered: unknown = (details as { readonly delivered?: unknown } | null | undefined)?.delivered;
  return typeof delivered === 'object' && delivered !== null ? { ...(delivered as Delivered) } : {};
}

/** Worth another try as soon as one of them is: those delivered are not told again. */
function combined(failures: readonly { readonly to: string; readonly error: StepError }[]): StepError {
  const findings = failures.map(({ to, error }) => `${to}: ${error.message}`);
  const lasting = failures.every(
    ({ error }) => error.type !== STEP_ERRORS.unavailable && error.type !== STEP_ERRORS.processFailed,
  );
  return new StepError(
    lasting ? STEP_ERRORS.refused : STEP_ERRORS.unavailable,
    `not delivered: ${findings.join('; ')}`,
    { findings },
  );
}
