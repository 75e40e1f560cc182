import type { Section } from '../../contract/profile.ts';
import type { MigrationRun } from '../run.ts';
import { TRIAL } from '../step-policies.ts';

/** The profile's own steps of a section, after the built-in ones. */
export async function ownSteps(run: MigrationRun, section: Section): Promise<void> {
  for (const step of run.profile.steps.filter((own) => own.section === section)) {
    const id = `${section}.${step.id}`;
    if (run.state.isSettled(id)) continue;
    await run.step(
      id,
      `Own step of the profile: ${step.id}`,
      { ...TRIAL, startToCloseTimeout: step.timeout },
      (activities) => activities.runOwnStep({ ...run.input(), step }),
    );
  }
}
