import type { Outcome, Switch } from '../contract/profile.ts';
import type { MigrationRun } from './run.ts';
import { LOOK, PUT_BACK, TELL } from './step-policies.ts';

/**
 * Switches something off or on and owes it from then on. The state found before is read and registered first: the run may
 * be stopped between any two lines, and whatever may have happened is put back.
 */
export async function engage(run: MigrationRun, stepId: string, kinds: readonly Switch['kind'][]): Promise<void> {
  for (const entry of run.profile.switches.filter(({ kind }) => kinds.includes(kind))) {
    const { name, kind } = entry;
    const before = await run.step(`${stepId}/${name}/before`, `State of ${name} before`, LOOK, (activities) =>
      activities.readSwitch({ ...run.input(), switch: entry }),
    );
    run.state.setObligation({ name, kind, before, status: 'engaging' });
    await run.step(`${stepId}/${name}`, `${VERBS[kind]}: ${name}`, TELL, (activities) =>
      activities.engageSwitch({ ...run.input(), switch: entry }),
    );
    run.state.setObligation({ name, kind, before, status: 'engaged' });
  }
}

const VERBS: Record<Switch['kind'], string> = {
  freeze: 'Freeze',
  jobs: 'Pause jobs',
  silence: 'Silence alerts',
  notice: 'Publish notice',
  pooler: 'Pause the pooler',
};

/**
 * Puts every owed obligation back as it was, newest first, each confirmed. One that fails does not keep the others from
 * being put back.
 *
 * @returns names of those that could not be put back
 */
export async function putBack(run: MigrationRun, outcome: Outcome): Promise<readonly string[]> {
  const failed: string[] = [];
  for (const obligation of run.state.owed()) {
    const entry = run.profile.switches.find(({ name }) => name === obligation.name);
    if (!entry) continue;
    if (entry.keepAfter.includes(outcome)) {
      run.state.setObligation({
        ...obligation,
        status: 'kept',
        note: `stays engaged after "${outcome}" by the profile`,
      });
      continue;
    }
    try {
      await run.step(`closeout.resume/${entry.name}`, `Put back: ${entry.name}`, PUT_BACK, (activities) =>
        activities.releaseSwitch({ ...run.input(), switch: entry, before: obligation.before }),
      );
      run.state.setObligation({ ...obligation, status: 'released' });
    } catch (error) {
      const trouble = run.troubleOf(error);
      run.state.setObligation({
        ...obligation,
        status: 'open',
        note: trouble.kind === 'failure' ? trouble.message : 'could not be put back',
      });
      failed.push(entry.name);
    }
  }
  return failed;
}
