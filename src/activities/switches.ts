import type { SwitchActivities } from '../contract/activities.ts';
import { engageSwitch, readSwitch, releaseSwitch } from '../integrations/switch.ts';
import { runStep } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { integrationContext } from './integration-context.ts';

export function createSwitchActivities(
  dependencies: Pick<ActivityDependencies, 'stateDirectory' | 'secrets'>,
): SwitchActivities {
  const { secrets } = dependencies;
  return {
    readSwitch: (input) =>
      runStep(secrets, (tools) => readSwitch(input.switch, integrationContext(dependencies, input, tools))),

    engageSwitch: (input) =>
      runStep(secrets, (tools) => engageSwitch(input.switch, integrationContext(dependencies, input, tools))),

    releaseSwitch: (input) =>
      runStep(secrets, (tools) =>
        releaseSwitch(input.switch, input.before, integrationContext(dependencies, input, tools)),
      ),
  };
}
