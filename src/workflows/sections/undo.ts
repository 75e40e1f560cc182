/** Undoing by downgrade, and what follows every undo: smoke again, stakeholders told. */
import type { Outcome } from '../../contract/profile.ts';
import { verdictText } from '../../contract/rehearsal-text.ts';
import { lowerFence } from '../obligations.ts';
import type { Reviewed } from '../plan.ts';
import type { MigrationRun } from '../run.ts';
import { isUntouched } from '../failure.ts';
import { type Trouble, troubleText } from '../run-state.ts';
import { CHANGE, TRIAL } from '../step-policies.ts';
import { tell } from '../telling.ts';
import { type Before, once } from './apply.ts';
import { ownSteps } from './own-steps.ts';
import { decide } from './recovery-gate.ts';

/** How the run goes on after trouble. */
export type WayOn =
  | { readonly kind: 'ended'; readonly outcome: Outcome }
  | { readonly kind: 'again'; readonly from: 'upgrade' | 'checks' };

/** The planned downgrade. Its rows are another matter: see `compareRows`. */
export async function rollBack(
  run: MigrationRun,
  { tooling, rehearsed: { rehearsal } }: Reviewed,
  before: Before,
): Promise<void> {
  const { verdict } = rehearsal.trial;
  const expectedLeftovers = verdict.kind === 'lossy' || verdict.kind === 'leftovers' ? verdict.objects : [];
  const { state } = run;
  const { arrivals, provenFence: fence, rollback: earlier } = state;
  state.rollback = { kind: 'begun' };
  const { uncounted, resumed, versionRows, objectMapDigest } = await run
    .step('recovery.rollback', 'The planned Alembic downgrade', CHANGE, (activities) =>
      activities.rollBackProduction({
        ...run.input(),
        graph: tooling.graph,
        before: before.state,
        expectedLeftovers,
        dropped: rehearsal.trial.dropped,
        arrivals: fence === undefined ? (arrivals?.objects ?? []) : null,
      }),
    )
    .catch((error: unknown) => {
      if (isUntouched(error)) state.rollback = earlier;
      else state.undoDoubt = { undo: 'interrupted', rows: 'unproven', why: NOT_COMPARED };
      throw error;
    });
  if (uncounted) state.openItems.push(`the rollback may have dropped rows that nobody counted: ${uncounted}`);
  if (resumed) state.undoDoubt = { undo: 'interrupted', rows: 'unproven', why: NOT_COMPARED };
  state.rollback = { kind: 'ended', left: { versionRows, objectMapDigest } };
  state.wasApplied = false;
}

export const NOT_COMPARED = 'they have not been compared';

/** The end of a rollback, whether its reply has come or what it did was found. */
export async function rolledBack(run: MigrationRun): Promise<WayOn> {
  const { state } = run;
  state.openItems.push(...rolledBackTexts(run));
  if (state.rollback.kind === 'begun' && state.provenFence === undefined) {
    state.openItems.push(
      'the reply of the rollback was lost: whether rows came, after they were counted, into what it dropped is not known',
    );
  }
  return recovered(run, 'rolled-back');
}

/** What a person accepted at the gate is still to be looked after when the run has ended. */
function rolledBackTexts({ state: { arrivals, rehearsal, latestBackup } }: MigrationRun): readonly string[] {
  const verdict = rehearsal?.trial.verdict;
  return [
    ...(verdict?.kind === 'lossy'
      ? [
          `the rehearsal found the rollback ${verdictText(verdict)}: production lost it as far as the upgrade had come, and what was written there after the backup too, uncounted; the last backup (${latestBackup?.uri ?? 'none'}) has what was there at ${latestBackup?.capturedAt ?? 'no time'}`,
        ]
      : []),
    ...(arrivals !== undefined && arrivals.unseen.length > 0
      ? [
          `rows changed or deleted in place since the upgrade show in no count, and the rollback dropped them: ${arrivals.unseen.slice(0, 10).join(', ')}${arrivals.archive === null ? '' : `; what was there is in ${arrivals.archive.uri}`}`,
        ]
      : []),
    ...(arrivals !== undefined && arrivals.total > 0
      ? [
          `what came into that which the rollback dropped waits to be looked at: ${arrivals.total} ${arrivals.archive === null ? 'rows or values, not exported' : `rows or values, exported to ${arrivals.archive.uri}`}`,
        ]
      : []),
  ];
}

export async function attempt(run: MigrationRun, work: () => Promise<void>): Promise<Trouble | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return run.troubleOf(error);
  }
}

/** Smoke again, tell the stakeholders. A failing smoke test after an undo is once more for a person to judge. */
export async function recovered(run: MigrationRun, outcome: Outcome): Promise<WayOn> {
  for (;;) {
    const failed = await attempt(run, () => smokeAgain(run));
    if (!failed) break;
    const action = await decide(run, `after the undo (${outcome}) ${troubleText(failed)}`, [
      'retry',
      'continue',
      'accept',
    ]);
    run.enter('recovery');
    if (action === 'accept') {
      run.state.openItems.push(`production is ${outcome} and a check after it still fails: ${troubleText(failed)}`);
      await inform(run, 'handed-over');
      return { kind: 'ended', outcome: 'handed-over' };
    }
    if (action === 'continue' && failed.kind === 'failure') {
      run.state.overrule(failed.step);
      run.state.openItems.push(
        `production is ${outcome}, and a person overruled a check after it that failed: ${troubleText(failed)}`,
      );
    }
  }
  await inform(run, outcome);
  return { kind: 'ended', outcome };
}

/** What only reads, then the fence down where it is still up, then what writes. */
async function smokeAgain(run: MigrationRun): Promise<void> {
  const { smoke, smokeWrites } = run.profile.checks;
  await once(run, 'recovery.smoke', () =>
    run.step('recovery.smoke', 'Smoke tests again', TRIAL, (activities) =>
      activities.runChecks({ ...run.input(), checks: smoke }),
    ),
  );
  await once(run, 'recovery.open', () => lowerFence(run, 'recovery.open'));
  await once(run, 'recovery.smoke-writes', () =>
    run.step('recovery.smoke-writes', 'Smoke tests that write, again', TRIAL, (activities) =>
      activities.runChecks({ ...run.input(), checks: smokeWrites }),
    ),
  );
  await ownSteps(run, 'recovery');
}

async function inform(run: MigrationRun, outcome: Outcome): Promise<void> {
  const { service, releaseTag, changeTicket } = run.request;
  const why = run.state.trouble ? troubleText(run.state.trouble) : '';
  const told = await tell(run, 'recovery.inform', run.profile.stakeholders, {
    kind: 'stakeholders-informed',
    title: `Migration of ${service} to ${releaseTag}: ${outcome}`,
    text: `The migration of ${service} to ${releaseTag} (${changeTicket}) ended as ${outcome}. ${why}`,
    facts: { service, releaseTag, changeTicket, outcome, why },
  });
  if (told === 'not-delivered') run.state.openItems.push('the stakeholders could not be told');
}
