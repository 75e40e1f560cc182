/** Section 7 of the document: rollback and restoration. */
import type { Evaluation } from '../../contract/evidence/rollback.ts';
import type { RecoveryAction } from '../../contract/messages.ts';
import { verdictText } from '../../contract/rehearsal-text.ts';
import { type Reviewed, rollbackOfferOf } from '../plan.ts';
import {
  arrivalsText,
  isInDoubt,
  isUndone,
  judge,
  realityText,
  retryFrom,
  retryText,
  rowsText,
  type Situation,
  wayBackText,
} from '../recovery-options.ts';
import type { MigrationRun } from '../run.ts';
import { type Trouble, troubleText } from '../run-state.ts';
import { EXPORT, LOOK, PUT_BACK, TRIAL } from '../step-policies.ts';
import { type Before, writersText } from './apply.ts';
import { allowedActions, decide } from './recovery-gate.ts';
import { estimateWayBack, restore, unansweredSwapText } from './restore.ts';
import { attempt, NOT_COMPARED, recovered, rollBack, rolledBack, type WayOn } from './undo.ts';

/**
 * Reads what production really is, decides from that, and undoes. Ends only with production proven unchanged, rolled back
 * or restored, or by a person's decision.
 */
export async function recover(run: MigrationRun, first: Trouble, reviewed: Reviewed, before: Before): Promise<WayOn> {
  const { tried } = run.state;
  let trouble = first;
  let changed = '';
  // What went wrong first stays the headline; a recovery that failed on the way stands in the timeline and at the gate.
  run.state.trouble = first;
  for (;;) {
    run.enter('recovery');
    const evaluation = await evaluate(run, reviewed, before);
    await proveFenceStillHeld(run, reviewed, evaluation);
    await countArrivals(run, reviewed, before, evaluation);
    await compareRows(run, reviewed, evaluation);
    const situation = situationOf(run, reviewed, trouble, evaluation, tried);
    const verdict = judge(situation);
    if (verdict.kind === 'nothing-to-undo') return recovered(run, 'aborted');
    if (verdict.kind === 'undone') return rolledBack(run);

    if (verdict.kind === 'ask' && verdict.actions.includes('restore')) await estimateWayBack(run, before);
    const action =
      verdict.kind === 'automatic' ? verdict.action : await askPerson(run, situation, verdict.actions, changed);
    changed = '';
    run.enter('recovery');
    // A person may have taken hours to decide, and decided about what was shown.
    if (verdict.kind === 'ask' && (action === 'continue' || action === 'rollback')) {
      changed = changedText(action, evaluation, await evaluate(run, reviewed, before));
      if (changed !== '') continue;
    }
    switch (action) {
      case 'accept':
        return { kind: 'ended', outcome: 'handed-over' };
      case 'retry': {
        if (isInDoubt(run.state.undoDoubt)) break;
        const now = await evaluate(run, reviewed, before);
        await compareRows(run, reviewed, now);
        const from = retryFrom(situationOf(run, reviewed, trouble, now, tried));
        if (from === 'look') break;
        if (from === 'upgrade') forgetUndo(run);
        return { kind: 'again', from };
      }
      case 'continue':
        acceptRows(run);
        if (isUndone(situation)) return rolledBack(run);
        if (trouble.kind === 'failure') run.state.overrule(trouble.step);
        return { kind: 'again', from: 'checks' };
      case 'rollback':
      case 'restore': {
        if (verdict.kind === 'ask') await proveFenceStillHeld(run, reviewed, evaluation);
        const failed = await undo(run, action, situation, reviewed, before);
        if (failed === undefined && action === 'restore') return recovered(run, 'restored');
        if (failed === undefined && run.state.undoDoubt === undefined) return rolledBack(run);
        // What went through is looked at again before it is believed: its rows are to be judged.
        tried.push(action);
        trouble = failed ?? trouble;
      }
    }
  }
}

/** Empty where production is what the decision was about. */
const changedText = (action: RecoveryAction, shown: Evaluation | undefined, now: Evaluation | undefined): string =>
  shown?.reality.kind === now?.reality.kind &&
  shown?.versionRows.join() === now?.versionRows.join() &&
  shown?.objectMapDigest === now?.objectMapDigest
    ? ''
    : `production has changed while you decided: "${action}" was not carried out, decide again`;

/** The upgrade begins anew: what was undone before it is history. */
function forgetUndo({ state }: MigrationRun): void {
  state.rollback = { kind: 'none' };
  if (state.undoDoubt?.rows === 'equal') state.undoDoubt = undefined;
}

/** Between two looks somebody else has undone what was applied: nothing is known of how, and of the rows. */
function noteUndoneByOthers({ state }: MigrationRun, { reality }: Evaluation): void {
  if (reality.kind === 'fully-applied' || (reality.kind === 'partly-applied' && reality.revisions.length > 0)) {
    state.wasApplied = true;
  }
  if (reality.kind !== 'unchanged' || !state.wasApplied) return;
  if (state.rollback.kind !== 'none' || state.isSwapUnanswered) return;
  state.wasApplied = false;
  state.undoDoubt = { undo: 'by-others', rows: 'unproven', why: NOT_COMPARED };
}

/** What a person goes on over in spite of the doubt is no doubt any more, and still an open item when the run has ended. */
function acceptRows({ state }: MigrationRun): void {
  if (!isInDoubt(state.undoDoubt)) return;
  state.undoDoubt = { ...state.undoDoubt, rows: 'accepted', why: `accepted by a person; ${state.undoDoubt.why}` };
}

/** @returns why it failed */
function undo(
  run: MigrationRun,
  action: 'rollback' | 'restore',
  { reality }: Situation,
  reviewed: Reviewed,
  before: Before,
): Promise<Trouble | undefined> {
  const { state } = run;
  state.forgetChecks();
  if (action === 'restore') {
    return attempt(run, async () => {
      await restore(run, before);
      state.undoDoubt = undefined;
      state.wasApplied = false;
    });
  }
  if (reality?.kind === 'partly-applied') {
    const known = isInDoubt(state.undoDoubt) ? state.undoDoubt.undo : 'of-a-part';
    state.undoDoubt = { undo: known, rows: 'unproven', why: NOT_COMPARED };
  }
  return attempt(run, () => rollBack(run, reviewed, before));
}

/**
 * After the undo of a part, where nobody has been able to write since the backup. A doubt of the fence is no obstacle: rows that
 * are equal are equal.
 */
async function compareRows(
  run: MigrationRun,
  { rehearsed: { rehearsal } }: Reviewed,
  evaluation: Evaluation | undefined,
): Promise<void> {
  const { state } = run;
  const { latestBackup: backup, fence, isBackupBehindFence } = state;
  if (
    !isInDoubt(state.undoDoubt) ||
    !isUndone({ reality: evaluation?.reality, rollback: rollbackOf(run, evaluation) })
  ) {
    return;
  }
  const { undo } = state.undoDoubt;
  const { verdict } = rehearsal.trial;
  // The run's own rollback is one that was decided for; what others did is for a person to say.
  const rows = undo === 'by-others' ? 'unproven' : 'not-comparable';
  if (verdict.kind !== 'lossless') {
    state.undoDoubt = { undo, rows, why: `the rehearsal found the rollback of the whole ${verdict.kind}` };
    return;
  }
  if (backup === undefined || fence === undefined || !isBackupBehindFence) {
    state.undoDoubt = { undo, rows, why: 'there was no fence: others could write' };
    return;
  }
  try {
    const { findings, samples } = await run.step(
      ROWS,
      'Rows against the backup: what was undone is a part of what was rehearsed',
      TRIAL,
      (activities) => activities.compareRowsWithBackup({ ...run.input(), backup }),
    );
    const why = findings.length > 0 ? findings.slice(0, 10).join('; ') : sampledText(samples);
    state.undoDoubt = { undo, rows: findings.length > 0 ? 'other' : 'equal', why };
  } catch (error) {
    state.undoDoubt = { undo, rows: 'unproven', why: troubleText(run.troubleOf(error)) };
  }
}

const ROWS = 'recovery.rollback/rows';

const sampledText = (samples: number): string =>
  samples === 0
    ? ''
    : `of ${samples} table(s) larger than backup.sampleAbove the rollback's rows were compared by the ledger's sample only`;

/** Undefined when production cannot be read: then only a person can say what to do. */
async function evaluate(run: MigrationRun, { tooling }: Reviewed, before: Before): Promise<Evaluation | undefined> {
  try {
    const found = await run.step('recovery.evaluate', 'What production really is now', PUT_BACK, (activities) =>
      activities.evaluateProduction({ ...run.input(), graph: tooling.graph, before: before.state }),
    );
    noteUndoneByOthers(run, found);
    return found;
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
  if (fence === undefined || (kind === 'unchanged' && run.state.tried.length === 0)) return;
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
  const kind = evaluation?.reality.kind;
  // What a rollback has dropped is still to be told when it is over.
  if (kind === 'unchanged') return;
  run.state.arrivals = undefined;
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
  rollback: rollbackOf(run, evaluation),
  undoDoubt: run.state.undoDoubt,
});

/** One that has ended counts as such only where production is as it left it. */
function rollbackOf({ state: { rollback } }: MigrationRun, evaluation: Evaluation | undefined): Situation['rollback'] {
  if (rollback.kind !== 'ended') return rollback.kind;
  const { left } = rollback;
  return evaluation?.versionRows.join() === left.versionRows.join() &&
    evaluation.objectMapDigest === left.objectMapDigest
    ? 'ended'
    : 'begun';
}

function arrivalsOf({ state: { arrivals } }: MigrationRun): Situation['arrivals'] {
  if (arrivals === undefined || arrivals.unknown.length + arrivals.unseen.length > 0) return 'unknown';
  return arrivals.total > 0 ? 'some' : 'none';
}

async function askPerson(
  run: MigrationRun,
  situation: Situation,
  actions: readonly RecoveryAction[],
  changed: string,
): Promise<RecoveryAction> {
  const { wayBack, arrivals, fence, fenceDoubt, fenceFor } = run.state;
  const owed = run.state.owed().map(({ name }) => name);
  const facts = [
    changed,
    troubleText(situation.trouble),
    situation.rollback === 'ended' && situation.reality?.kind !== 'unchanged'
      ? 'production is as the rollback left it'
      : realityText(situation.reality),
    unansweredSwapText(run),
    isInDoubt(situation.undoDoubt) ? rowsText(situation.undoDoubt) : '',
    allowedActions(run, actions).includes('retry') ? retryText(situation) : '',
    fence === undefined ? '' : (fenceDoubt ?? ''),
    fence !== undefined && fenceFor === 'restore'
      ? `the fence raised for the restore is still up since ${fence.since}: nobody but the migration writes`
      : '',
    actions.includes('rollback') ? arrivalsText(arrivals) : '',
    actions.includes('rollback') ? rehearsedText(run, situation.reality) : '',
    actions.includes('restore') ? wayBackText(wayBack) : '',
    situation.reality?.kind !== 'unchanged' && owed.length > 0
      ? `"accept" puts back what was switched, with production as it is: ${owed.join(', ')}`
      : '',
  ];
  return decide(run, facts.filter((fact) => fact !== '').join('; '), actions);
}

function rehearsedText(
  { state: { rehearsal, fence, isBackupBehindFence } }: MigrationRun,
  reality: Situation['reality'],
): string {
  const verdict = rehearsal?.trial.verdict;
  if (verdict === undefined) return '';
  if (reality?.kind !== 'partly-applied') {
    return verdict.kind === 'lossless' ? '' : `the rehearsal found the rollback ${verdictText(verdict)}`;
  }
  const isComparable = verdict.kind === 'lossless' && fence !== undefined && isBackupBehindFence;
  return `the rehearsal found the rollback of the whole upgrade ${verdictText(verdict)}; of the undo of a part it says nothing, and the rows ${isComparable ? 'are compared with the backup after it' : 'cannot be compared with the backup after it'}`;
}
