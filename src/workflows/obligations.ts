import type { Outcome, Switch } from '../contract/profile.ts';
import type { Obligation } from '../contract/status.ts';
import { failureText } from './failure.ts';
import type { MigrationRun } from './run.ts';
import { CHANGE, LOOK, PUT_BACK, TELL } from './step-policies.ts';

/** Name of the obligation that the fence is; no switch of a profile may have it. */
const FENCE = 'write fence';
const SCRATCH = 'rehearsal databases';

/**
 * Switches something off or on and owes it from then on. The state found before is read and registered first: the run may
 * be stopped between any two lines, and whatever may have happened is put back.
 */
export async function engage(run: MigrationRun, stepId: string, kinds: readonly Switch['kind'][]): Promise<void> {
  for (const entry of run.profile.switches.filter(({ kind }) => kinds.includes(kind))) {
    const { name, kind } = entry;
    const before =
      owedBy(run, name)?.before ??
      (await run.step(`${stepId}/${name}/before`, `State of ${name} before`, LOOK, (activities) =>
        activities.readSwitch({ ...run.input(), switch: entry }),
      ));
    run.state.setObligation({ name, kind, before, status: 'engaging' });
    await run.step(`${stepId}/${name}`, `${VERBS[kind]}: ${name}`, TELL, (activities) =>
      activities.engageSwitch({ ...run.input(), switch: entry }),
    );
    run.state.setObligation({ name, kind, before, status: 'engaged' });
  }
}

/** What is still to be put back is not read anew: what is found now may be the run's own doing. */
const owedBy = (run: MigrationRun, name: string): Obligation | undefined =>
  run.state.owed().find((obligation) => obligation.name === name);

const VERBS: Record<Switch['kind'], string> = {
  freeze: 'Freeze',
  jobs: 'Pause jobs',
  silence: 'Silence alerts',
  notice: 'Publish notice',
  pooler: 'Pause the pooler',
};

/** Copies of production's rows on the scratch server are owed from before the first is made; they expire by themselves. */
export function oweScratch(run: MigrationRun): void {
  run.state.setObligation({
    name: SCRATCH,
    kind: 'scratch',
    before: { state: 'released', detail: {} },
    status: 'engaged',
  });
}

/** Drops what the rehearsals have left on the scratch server. What cannot be dropped now is tried again at the end of the run. */
export async function disposeOfScratch(run: MigrationRun, stepId: string): Promise<void> {
  const scratch = run.state.owed().find(({ kind }) => kind === 'scratch');
  if (scratch === undefined) return;
  try {
    await run.step(stepId, 'Drop the rehearsal’s databases', PUT_BACK, (activities) =>
      activities.dropRehearsal(run.input()),
    );
    run.state.setObligation({ ...scratch, status: 'released' });
  } catch (error) {
    run.troubleOf(error);
    run.state.setObligation({
      ...scratch,
      status: 'open',
      note: `could not be dropped yet: ${failureText(error).message}`,
    });
  }
}

/** Raises the fence where the profile asks for one: from here on nobody but the migration writes to production. */
export async function raiseFence(run: MigrationRun, stepId: string, fenceFor: 'migration' | 'restore'): Promise<void> {
  if (run.profile.fence.kind === 'none') return;
  const owed = owedBy(run, FENCE);
  const before =
    owed?.before ??
    (await run.step(`${stepId}/before`, 'What the fence will have to put back', LOOK, (activities) =>
      activities.readFence(run.input()),
    ));
  // One that was up, and could not be lifted for certain, surely was raised.
  const status = owed === undefined || owed.status === 'engaging' ? 'engaging' : 'engaged';
  run.state.setObligation({ name: FENCE, kind: 'fence', before, status });
  run.state.fenceDoubt = undefined;
  run.state.fenceFor = fenceFor;
  run.state.fence = await run.step(
    stepId,
    'Production read-only for all but the migration, tried as the service',
    CHANGE,
    (activities) => activities.engageFence(run.input()),
  );
  run.state.setObligation({ name: FENCE, kind: 'fence', before, status: 'engaged' });
}

/** Lifts the fence, if it is up: the end of the lossless way back. @throws when it cannot be lifted */
export async function lowerFence(run: MigrationRun, stepId: string): Promise<void> {
  const fence = run.state.owed().find(({ kind }) => kind === 'fence');
  if (fence === undefined) return;
  // Whoever writes from the first moment on is not told apart from the migration any more.
  run.state.fence = undefined;
  run.state.isBackupBehindFence = false;
  await run.step(stepId, 'Lift the fence: the service writes again', PUT_BACK, (activities) =>
    activities.releaseFence({
      ...run.input(),
      before: fence.before,
      raised: fence.status === 'engaging' ? 'perhaps' : 'surely',
    }),
  );
  run.state.setObligation({ ...fence, status: 'released' });
}

/** Runs work with the connection pooler paused; it is resumed whatever happens to the work. */
export async function withPoolerPaused<T>(run: MigrationRun, stepId: string, work: () => Promise<T>): Promise<T> {
  try {
    await engage(run, stepId, ['pooler']);
    return await work();
  } finally {
    for (const obligation of run.state.owed().filter(({ kind }) => kind === 'pooler')) {
      await putBackOne(run, stepId, obligation);
    }
  }
}

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
    if (entry?.keepAfter.includes(outcome)) {
      run.state.setObligation({
        ...obligation,
        status: 'kept',
        note: `stays engaged after "${outcome}" by the profile`,
      });
      continue;
    }
    if ((await putBackOne(run, 'closeout.resume', obligation)) === 'open') failed.push(obligation.name);
  }
  return failed;
}

async function putBackOne(run: MigrationRun, stepId: string, obligation: Obligation): Promise<'released' | 'open'> {
  const entry = run.profile.switches.find(({ name }) => name === obligation.name);
  try {
    if (obligation.kind === 'scratch') return await leaveScratch(run, stepId);
    if (obligation.kind === 'fence') await lowerFence(run, `${stepId}/fence`);
    else if (entry) {
      await run.step(`${stepId}/${entry.name}`, `Put back: ${entry.name}`, PUT_BACK, (activities) =>
        activities.releaseSwitch({ ...run.input(), switch: entry, before: obligation.before }),
      );
    }
    run.state.setObligation({ ...obligation, status: 'released' });
    return 'released';
  } catch (error) {
    const trouble = run.troubleOf(error);
    run.state.setObligation({
      ...obligation,
      status: 'open',
      note: trouble.kind === 'failure' ? trouble.message : 'could not be put back',
    });
    return 'open';
  }
}

/** A run does not wait at its end for a scratch server: what is left there is marked, expires, and is listed as open. */
async function leaveScratch(run: MigrationRun, stepId: string): Promise<'released'> {
  await disposeOfScratch(run, `${stepId}/scratch`);
  const left = run.state.owed().find(({ kind }) => kind === 'scratch');
  if (left !== undefined) {
    const note = `${left.note ?? ''}; they expire: runbook sweep ${run.request.service} --remove drops them`;
    run.state.setObligation({ ...left, status: 'kept', note });
    run.state.openItems.push(`databases of the rehearsal are left on the scratch server: ${note}`);
  }
  return 'released';
}
