/** Section 7 of the document: rollback and restoration. */
import type { Evaluation } from '../../contract/evidence/rollback.ts';
import type { RecoveryAction } from '../../contract/messages.ts';
import { verdictText } from '../../contract/rehearsal-text.ts';
import { rollbackOfferOf } from '../plan.ts';
import type { Reviewed } from '../plan.ts';
import {
  arrivalsText,
  judge,
  realityText,
  retryFrom,
  retryText,
  type Situation,
  wayBackText,
} from '../recovery-options.ts';
import type { MigrationRun } from '../run.ts';
import { type Trouble, troubleText } from '../run-state.ts';
import { EXPORT, LOOK, PUT_BACK } from '../step-policies.ts';
import { type Before, writersText } from './apply.ts';
import { decide } from './recovery-gate.ts';
import { estimateWayBack } from './restore.ts';
import { recovered, rolledBack, undo, type WayOn } from './undo.ts';

/**
 * Reads what production really is, decides from that, and undoes. Ends only with production proven unchanged, rolled back
 * or restored, or by a person's decision.
 */
export async function recover(run: MigrationRun, first: Trouble, reviewed: Reviewed, before: Before): Promise<WayOn> {
  const { tried } = run.state;
  let trouble = first;
  // Sticky: a rollback that was cut off goes on from wherever it has come to.
  let isPart = false;
  // What went wrong first stays the headline; a recovery that failed on the way stands in the timeline and at the gate.
  run.state.trouble = first;
  for (;;) {
    run.enter('recovery');
    const evaluation = await evaluate(run, reviewed, before);
    await proveFenceStillHeld(run, reviewed, evaluation);
    await countArrivals(run, reviewed, before, evaluation);
    const situation = situationOf(run, reviewed, trouble, evaluation, tried);
    const verdict = judge(situation);
    if (verdict.kind === 'nothing-to-undo') return recovered(run, 'aborted');
    const undoing = { reviewed, before, situation, isPart };
    if (verdict.kind === 'undone') {
      const undone = await rolledBack(run, undoing);
      if (undone.kind !== 'failed') return undone;
      ({ trouble } = undone);
      continue;
    }

    if (verdict.kind === 'ask' && verdict.actions.includes('restore')) await estimateWayBack(run, before);
    const action = verdict.kind === 'automatic' ? verdict.action : await askPerson(run, situation, verdict.actions);
    run.enter('recovery');
    switch (action) {
      case 'accept':
        return { kind: 'ended', outcome: 'handed-over' };
      case 'retry':
        return { kind: 'again', from: retryFrom(situation.reality) };
      case 'continue':
        if (trouble.kind === 'failure') run.state.overrule(trouble.step);
        return { kind: 'again', from: 'checks' };
      case 'rollback':
      case 'restore': {
        isPart ||= action === 'rollback' && situation.reality?.kind === 'partly-applied';
        const undone = await undo(run, action, { ...undoing, isPart });
        if (undone.kind !== 'failed') return undone;
        ({ trouble } = undone);
      }
    }
  }
}

/** Undefined when production cannot be read: then only a person can say what to do. */
async function evaluate(run: MigrationRun, { tooling }: Reviewed, before: Before): Promise<Evaluation | undefined> {
  try {
    return await run.step('recovery.evaluate', 'What production really is now', PUT_BACK, (activities) =>
      activities.evaluateProduction({ ...run.input(), graph: tooling.graph, before: before.state }),
    );
  } catch (error) {
    run.troubleOf(error);
    return undefined;
  }
}

/**
 * A fence holds well-behaved clients. Before anything is taken back without asking, or said to take back no row of the users',
 * the counters tell again whether only the migration has written. Unknown is not held.
 */
async function proveFenceStillHeld(
  run: MigrationRun,
  { rehearsed: { rehearsal } }: Reviewed,
  evaluation: Evaluation | undefined,
): Promise<void> {
  const { fence } = run.state;
  const kind = evaluation?.reality.kind;
  if (fence === undefined || kind === 'unchanged') return;
  run.state.fenceDoubt = 'whether somebody wrote behind the fence could not be found out';
  if (kind === undefined) return;
  try {
    const { held, written, unknown } = await run.step(
      'recovery.fence-held',
      'Only the migration wrote behind the fence',
      LOOK,
      (activities) => activities.proveFenceHeld({ ...run.input(), fence, footprint: rehearsal.trial.upgrade.document }),
    );
    run.state.fenceDoubt = held ? undefined : writersText(written, unknown);
  } catch (error) {
    run.troubleOf(error);
  }
}

/** What came into objects that a rollback would drop is counted, and exported, before anybody decides. */
async function countArrivals(
  run: MigrationRun,
  { tooling, rehearsed: { rehearsal } }: Reviewed,
  before: Before,
  evaluation: Evaluation | undefined,
): Promise<void> {
  run.state.arrivals = undefined;
  const kind = evaluation?.reality.kind;
  if (kind !== 'fully-applied' && kind !== 'partly-applied') return;
  if (rollbackOfferOf(run, rehearsal) === 'not-offered' || tooling.graph.downgrade.kind !== 'planned') return;
  const { provenFence: fence } = run.state;
  if (fence !== undefined) {
    run.state.arrivals = run.judge('recovery.arrivals', 'Nothing of the users’ can have come: the fence is up', () => ({
      objects: [],
      total: 0,
      archive: null,
      unknown: [],
      unseen: [],
      fencedSince: fence.since,
    }));
    return;
  }
  try {
    run.state.arrivals = await run.step(
      'recovery.arrivals',
      'What came into objects that the downgrade drops, counted and exported',
      EXPORT,
      (activities) =>
        activities.countArrivals({
          ...run.input(),
          graph: tooling.graph,
          before: before.state,
          dropped: rehearsal.trial.dropped,
        }),
    );
  } catch (error) {
    run.troubleOf(error);
  }
}

const situationOf = (
  run: MigrationRun,
  { tooling, rehearsed: { rehearsal } }: Reviewed,
  trouble: Trouble,
  evaluation: Evaluation | undefined,
  tried: readonly ('rollback' | 'restore')[],
): Situation => ({
  reality: evaluation?.reality,
  trouble,
  rollbackPolicy: run.profile.recovery.rollback,
  downgradePlanned: tooling.graph.downgrade.kind === 'planned',
  rollbackOffer: rollbackOfferOf(run, rehearsal),
  arrivals: arrivalsOf(run),
  backupVerified: run.state.latestBackup !== undefined,
  isFenced: run.state.provenFence !== undefined,
  restore:
    run.profile.recovery.restore === 'automatic' && run.state.provenFence !== undefined && run.state.isBackupBehindFence
      ? 'automatic'
      : 'ask',
  tried,
});

function arrivalsOf({ state: { arrivals } }: MigrationRun): Situation['arrivals'] {
  if (arrivals === undefined || arrivals.unknown.length + arrivals.unseen.length > 0) return 'unknown';
  return arrivals.total > 0 ? 'some' : 'none';
}

async function askPerson(
  run: MigrationRun,
  situation: Situation,
  actions: readonly RecoveryAction[],
): Promise<RecoveryAction> {
  const { wayBack, arrivals, fence, fenceDoubt } = run.state;
  const facts = [
    troubleText(situation.trouble),
    realityText(situation.reality),
    actions.includes('retry') ? retryText(situation.reality) : '',
    fence === undefined ? '' : (fenceDoubt ?? ''),
    actions.includes('rollback') ? arrivalsText(arrivals) : '',
    actions.includes('rollback') ? rehearsedText(run, situation.reality) : '',
    actions.includes('restore') ? wayBackText(wayBack) : '',
  ];
  return decide(run, facts.filter((fact) => fact !== '').join('; '), actions);
}

function rehearsedText({ state: { rehearsal } }: MigrationRun, reality: Situation['reality']): string {
  const verdict = rehearsal?.trial.verdict;
  if (verdict === undefined) return '';
  const ofWhole = reality?.kind === 'partly-applied' ? ' of the whole upgrade, not of a part of it,' : '';
  return verdict.kind === 'lossless' && ofWhole === ''
    ? ''
    : `the rehearsal found the rollback${ofWhole} ${verdictText(verdict)}`;
}
