import type { StepInput } from '../contract/evidence/step.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { ensureCheckout } from '../repository/checkout.ts';
import type { StepTools } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';

/**
 * The working tree of the release commit, prepared. Every step that needs it asks for it: the step before may have run on
 * another host.
 * @returns absolute path
 */
export async function ensureReleaseCheckout(
  { stateDirectory, secrets }: Pick<ActivityDependencies, 'stateDirectory' | 'secrets'>,
  { run, profile }: StepInput,
  { signal, progress }: Pick<StepTools, 'signal' | 'progress'>,
): Promise<string> {
  const { repository } = profile;
  if (run.commit === undefined) {
    throw new StepError(STEP_ERRORS.refused, `The commit of the tag "${run.releaseTag}" is not known yet.`);
  }
  return ensureCheckout({
    url: repository.url,
    commit: run.commit,
    stateDirectory,
    ...(repository.prepare === undefined
      ? {}
      : { prepare: { command: repository.prepare, timeout: repository.prepareTimeout } }),
    signal,
    redactor: secrets.redactor,
    progress: (line) => progress({ phase: 'checkout', line }),
  });
}
