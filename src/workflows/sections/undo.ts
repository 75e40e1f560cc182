/** Undoing, and what follows an undo: rows compared, smoke again, stakeholders told. */
import type { Outcome } from '../../contract/profile.ts';
import { verdictText } from '../../contract/rehearsal-text.ts';
import { lowerFence } from '../obligations.ts';
import type { Reviewed } from '../plan.ts';
import { type Situation, wayBackText } from '../recovery-options.ts';
import type { MigrationRun } from '../run.ts';
import { type Trouble, troubleText } from '../run-state.ts';
import { CHANGE, TRIAL } from '../step-policies.ts';
import { tell } from '../telling.ts';
import type { Before } from './apply.ts';
import { ownSteps } from './own-steps.ts';
import { decide } from './recovery-gate.ts';
import { estimateWayBack, restore } from './restore.ts';

/** How the run goes on after trouble. */
export type WayOn =
  | { readonly kind: 'ended'; readonly outcome: Outcome }
  | { readonly kind: 'again'; readonly from: 'upgrade' | 'checks' };

export interface Undoing {
  readonly reviewed: Reviewed;
  readonly before: Before;
  readonly situation: Situation;
  /** The rollback began, or once began, in the middle of what was rehearsed. */
  readonly isPart: boolean;
}

type Undone = WayOn | { readonly kind: 'failed'; readonly trouble: Trouble };

export async function undo(run: MigrationRun, action: 'rollback' | 'restore', undoing: Undoing): Promise<Undone> {
  const { reviewed, before } = undoing;
  run.state.forgetChecks();
  const trouble = await attempt(
    run,
    action === 'rollback' ? () => rollBack(run, reviewed, before) : () => restore(run, before),
  );
  if (trouble !== undefined) {
    run.state.tried.push(action);
    return { kind: 'failed', trouble };
  }
  return action === 'rollback' ? rolledBack(run, undoing) : recovered(run, 'restored');
}

/**
 * The rehearsal undid all that it had done; of the undo of a part it says nothing about rows. Where nobody has been able to write
 * since the backup they are compared with it.
 */
export async function rolledBack(run: MigrationRun, undoing: Undoing): Promise<Undone> {
  const { reviewed, before, situation, isPart } = undoing;
  const { kind } = reviewed.rehearsed.rehearsal.trial.verdict;
  const { latestBackup: backup, provenFence, isBackupBehindFence } = run.state;
  if (!isPart || kind !== 'lossless') return recovered(run, 'rolled-back');
  if (backup === undefined || provenFence === undefined || !isBackupBehindFence) {
    run.state.openItems.push(PART_UNPROVEN);
    return recovered(run, 'rolled-back');
  }
  for (;;) {
    const failed = await attempt(run, async () => {
      await run.step(
        ROWS,
        'Rows are those of the backup: what was undone is a part of what was rehearsed',
        TRIAL,
        (activities) => activities.proveRowsAsBackedUp({ ...run.input(), backup }),
      );
    });
    if (!failed) return recovered(run, 'rolled-back');
    // Only what was found to differ is restored without asking: a comparison that could not be made says nothing.
    const isDifferent = failed.kind === 'failure' && failed.findings.length > 0;
    const mayRestore = isDifferent && situation.restore === 'automatic' && !run.state.tried.includes('restore');
    if (!mayRestore) await estimateWayBack(run, before);
    const action = mayRestore
      ? 'restore'
      : await decide(run, `after the rollback ${troubleText(failed)}; ${wayBackText(run.state.wayBack)}`, [
          'retry',
          'continue',
          'restore',
          'accept',
        ]);
    run.enter('recovery');
    if (action === 'restore') {
      run.state.tried.push('rollback');
      return undo(run, 'restore', undoing);
    }
    if (action === 'continue') {
      if (failed.kind === 'failure') run.state.overrule(failed.step);
      run.state.openItems.push(`${PART_UNPROVEN}: ${troubleText(failed)}`);
      return recovered(run, 'rolled-back');
    }
    if (action === 'accept') {
      run.state.openItems.push(`production is rolled back, and its rows are not proven: ${troubleText(failed)}`);
      await inform(run, 'handed-over');
      return { kind: 'ended', outcome: 'handed-over' };
    }
  }
}

const ROWS = 'recovery.rollback/rows';

const PART_UNPROVEN =
  'the rollback undid a part of what was rehearsed as lossless: objects are as before, that the rows are is not proven';

async function rollBack(
  run: MigrationRun,
  { tooling, rehearsed: { rehearsal } }: Reviewed,
  before: Before,
): Promise<void> {
  const { verdict } = rehearsal.trial;
  const expectedLeftovers = verdict.kind === 'lossy' || verdict.kind === 'leftovers' ? verdict.objects : [];
  const { arrivals, provenFence: fence } = run.state;
  const { uncounted } = await run.step('recovery.rollback', 'The planned Alembic downgrade', CHANGE, (activities) =>
    activities.rollBackProduction({
      ...run.input(),
      graph: tooling.graph,
      before: before.state,
      expectedLeftovers,
      dropped: rehearsal.trial.dropped,
      arrivals: fence === undefined ? (arrivals?.objects ?? []) : null,
    }),
  );
  if (uncounted) run.state.openItems.push(`the rollback may have dropped rows that nobody counted: ${uncounted}`);
  run.state.openItems.push(...rolledBackTexts(run));
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

async function attempt(run: MigrationRun, work: () => Promise<void>): Promise<Trouble | undefined> {
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
    if (action === 'continue') {
      if (failed.kind === 'failure') run.state.overrule(failed.step);
      break;
    }
  }
  await inform(run, outcome);
  return { kind: 'ended', outcome };
}

/** What only reads, then the fence down where it is still up, then what writes. */
async function smokeAgain(run: MigrationRun): Promise<void> {
  const { smoke, smokeWrites } = run.profile.checks;
  await run.step('recovery.smoke', 'Smoke tests again', TRIAL, (activities) =>
    activities.runChecks({ ...run.input(), checks: smoke }),
  );
  await lowerFence(run, 'recovery.open');
  await run.step('recovery.smoke-writes', 'Smoke tests that write, again', TRIAL, (activities) =>
    activities.runChecks({ ...run.input(), checks: smokeWrites }),
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
