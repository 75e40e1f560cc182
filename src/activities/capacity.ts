import type { StepInput } from '../contract/evidence/step.ts';
import { runDocument } from '../integrations/actions.ts';
import { runCommandAction } from '../integrations/command-action.ts';
import type { StepTools } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { integrationContext } from './integration-context.ts';

/** What the profile's command prints of the free bytes, for `checkCapacity`. Empty where the profile waives it. */
export const freeBytesReading =
  (
    dependencies: Pick<ActivityDependencies, 'stateDirectory' | 'secrets'>,
    input: StepInput,
    tools: Pick<StepTools, 'signal' | 'progress'>,
  ): (() => Promise<string>) =>
  async () => {
    const { capacity } = input.profile.restore;
    if (capacity.kind === 'waiver') return '';
    const context = integrationContext(dependencies, input, tools);
    const { output } = await runCommandAction(
      capacity.action,
      `${JSON.stringify({ run: runDocument(input.run) })}\n`,
      context,
    );
    return output;
  };
