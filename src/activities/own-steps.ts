import type { CloseoutActivities } from '../contract/activities.ts';
import { runDocument } from '../integrations/actions.ts';
import { lastLine, runCommandAction } from '../integrations/command-action.ts';
import { sendHttpAction } from '../integrations/http-action.ts';
import { runStep } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { integrationContext } from './integration-context.ts';

export function createOwnStepActivities(
  dependencies: Pick<ActivityDependencies, 'stateDirectory' | 'secrets'>,
): Pick<CloseoutActivities, 'runOwnStep'> {
  return {
    runOwnStep: (input) =>
      runStep(dependencies.secrets, async (tools) => {
        const context = integrationContext(dependencies, input, tools);
        const { action } = input.step;
        if (action.kind === 'http') {
          const { status } = await sendHttpAction(action, undefined, context);
          return { answer: `status ${status}` };
        }
        const { output } = await runCommandAction(action, `${JSON.stringify(runDocument(input.run))}\n`, context);
        return { answer: output === '' ? 'exit code 0' : `exit code 0: ${lastLine(output)}` };
      }),
  };
}
