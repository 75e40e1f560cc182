/** Which ways on exist after trouble. Pure: recovery decisions are a table, and the table is tested. */
import { takenBackText } from '../contract/way-back-text.ts';
import type { WayBackCost } from '../contract/evidence/restore.ts';
import type { Arrivals, Reality } from '../contract/evidence/rollback.ts';
import type { RecoveryAction } from '../contract/messages.ts';
import type { Profile } from '../contract/profile.ts';
import type { RollbackOffer } from '../contract/rehearsal-offer.ts';
import type { DoubtfulUndo, Trouble, UndoDoubt } from './run-state.ts';

export interface Situation {
  /** What production was read to be; undefined when it could not be read. */
  readonly reality: Reality | undefined;
  readonly trouble: Trouble;
  readonly rollbackPolicy: Profile['recovery']['rollback'];
  readonly downgradePlanned: boolean;
  /** What the rehearsal allows. */
  readonly rollbackOffer: RollbackOffer['rollback'];
  /** Nothing came into what the downgrade drops; `unknown` when it could not be counted. */
  readonly arrivals: 'none' | 'some' | 'unknown';
  readonly backupVerified: boolean;
  /** Nobody but the migration has been able to write since before the upgrade. */
  readonly isFenced: boolean;
  /** `automatic`: the profile allows it, and it takes back no row of the users': the backup was taken behind a fence that is up. */
  readonly restore: 'ask' | 'automatic';
  /** Recoveries tried so far: those that failed, and a rollback whose rows are to be judged. */
  readonly tried: readonly ('rollback' | 'restore')[];
  /** Of what is applied now. `ended`: it has told so, and production stands as it left it. */
  readonly rollback: 'none' | 'begun' | 'ended';
  /** What is known of the rows after an undo that was not the one rehearsed; undefined: there was none. */
  readonly undoDoubt: UndoDoubt | undefined;
}

/** Version rows and objects are those of before, or those that a rollback which has ended was rehearsed to leave. */
export const isUndone = ({ reality, rollback }: Pick<Situation, 'reality' | 'rollback'>): boolean =>
  reality?.kind === 'unchanged' || (reality !== undefined && rollback === 'ended');

type InDoubt = UndoDoubt & { readonly rows: 'unproven' | 'other' };

/** The rows may not be those of before: that objects are says nothing then. */
export const isInDoubt = (undoDoubt: UndoDoubt | undefined): undoDoubt is InDoubt =>
  undoDoubt?.rows === 'unproven' || undoDoubt?.rows === 'other';

export type Verdict =
  /** Nothing was changed, so nothing is to be undone. */
  | { readonly kind: 'nothing-to-undo' }
  /** A rollback whose reply was lost: the state is that of before. */
  | { readonly kind: 'undone'; readonly by: 'rollback' }
  | { readonly kind: 'automatic'; readonly action: 'rollback' | 'restore' }
  | { readonly kind: 'ask'; readonly actions: readonly RecoveryAction[] };

export function judge(situation: Situation): Verdict {
  const { tried, rollback, undoDoubt } = situation;
  if (isUndone(situation) && !tried.includes('restore') && !isInDoubt(undoDoubt)) {
    return rollback === 'none' ? { kind: 'nothing-to-undo' } : { kind: 'undone', by: 'rollback' };
  }
  if (mayRollBackAlone(situation)) return { kind: 'automatic', action: 'rollback' };
  if (mayRestoreAlone(situation)) return { kind: 'automatic', action: 'restore' };
  return { kind: 'ask', actions: possibleActions(situation) };
}

/**
 * By itself only what the approved plan allows, once, and only from a state that is understood. Without the fence users have
 * written since: a downgrade that was lossless for the rows of the backup may not be so for theirs. What validation or QA
 * finds is for a person to judge: production works by then.
 */
function mayRollBackAlone(situation: Situation): boolean {
  const { rollbackPolicy, tried, arrivals } = situation;
  if (!isOwnTrouble(situation) || !situation.isFenced || tried.length > 0 || arrivals !== 'none') return false;
  return rollbackPolicy === 'automatic' && situation.rollbackOffer === 'as-profile' && canRollBack(situation);
}

/** Only where the rollback is no way, or has failed, and once. */
function mayRestoreAlone(situation: Situation): boolean {
  const { restore, backupVerified, tried, rollbackPolicy } = situation;
  if (!isOwnTrouble(situation) || restore !== 'automatic' || !backupVerified || tried.includes('restore')) return false;
  const rollbackIsBetter =
    situation.rollbackOffer === 'as-profile' &&
    rollbackPolicy !== 'never' &&
    canRollBack(situation) &&
    tried.length === 0;
  return !rollbackIsBetter && (isApplied(situation) || hasOtherRows(situation));
}

/** An upgrade that is done and passed what only reads is not undone because the clock is late. */
const isOwnTrouble = ({ trouble }: Situation): boolean =>
  trouble.kind !== 'failure' ||
  (trouble.step.startsWith('apply.') && !trouble.step.startsWith('apply.open')) ||
  trouble.step.startsWith('recovery.rollback');

const isApplied = (situation: Situation): boolean =>
  !isUndone(situation) && (situation.reality?.kind === 'fully-applied' || situation.reality?.kind === 'partly-applied');

/** Found to be others: a comparison that could not be made says nothing. */
const hasOtherRows = (situation: Situation): boolean => isUndone(situation) && situation.undoDoubt?.rows === 'other';

const canRollBack = (situation: Situation): boolean => {
  const { reality, downgradePlanned } = situation;
  if (!downgradePlanned || !isApplied(situation)) return false;
  return reality?.kind === 'fully-applied' || (reality?.kind === 'partly-applied' && reality.clean === 'yes');
};

export function possibleActions(situation: Situation): readonly RecoveryAction[] {
  const { reality, rollbackPolicy, downgradePlanned, rollbackOffer, backupVerified, tried, undoDoubt } = situation;
  const actions: RecoveryAction[] = ['retry'];
  if (reality?.kind === 'fully-applied' || (isUndone(situation) && isInDoubt(undoDoubt))) actions.push('continue');
  if (isApplied(situation) && downgradePlanned && rollbackPolicy !== 'never' && rollbackOffer !== 'not-offered') {
    actions.push('rollback');
  }
  // A swap that was interrupted may have left production closed; only a restore opens it again.
  if (backupVerified && (reality !== undefined || tried.includes('restore'))) actions.push('restore');
  actions.push('accept');
  return actions;
}

/**
 * Where a retry goes on: the upgrade again where it is not complete, else the checks after it. Over rows that an
 * undo may have spoiled no upgrade is started: then it is looked again.
 */
export function retryFrom({
  reality,
  undoDoubt,
}: Pick<Situation, 'reality' | 'undoDoubt'>): 'upgrade' | 'checks' | 'look' {
  if (undoDoubt !== undefined && undoDoubt.rows !== 'equal' && undoDoubt.rows !== 'accepted') return 'look';
  return reality?.kind === 'fully-applied' ? 'checks' : 'upgrade';
}

export function realityText(reality: Reality | undefined): string {
  switch (reality?.kind) {
    case undefined:
      return 'production could not be read';
    case 'unchanged':
      return 'production is unchanged';
    case 'fully-applied':
      return 'the migration is applied completely';
    case 'partly-applied':
      return `the migration is applied in part, at ${reality.revisions.join(', ') || 'no revision'} (${reality.why})`;
    case 'foreign':
      return `production is in a state this run did not make: ${reality.why}`;
  }
}

/** What a retry needs first; empty where it goes on from production as it is. */
export function retryText({ reality, undoDoubt }: Pick<Situation, 'reality' | 'undoDoubt'>): string {
  if (retryFrom({ reality, undoDoubt }) === 'look') {
    return '"retry" looks again: the upgrade is neither started nor taken for done over rows that an undo may have changed';
  }
  switch (reality?.kind) {
    case 'foreign':
      return '"retry" does not go on from there: it reads production again, and goes on once that is put right by hand to what this run left or began from';
    case 'partly-applied':
      return reality.clean === 'yes'
        ? ''
        : `"retry" does not go on from there: it reads production again, and goes on once the upgrade is completed by hand${reality.clean === 'no' ? ', or what it left is removed where that can be objects only' : ''}`;
    case undefined:
    case 'unchanged':
    case 'fully-applied':
      return '';
  }
}

/** What is known of the rows after an undo that was not the one rehearsed; empty where nothing is to be said. */
export function rowsText(undoDoubt: UndoDoubt | undefined): string {
  if (undoDoubt === undefined) return '';
  const { undo, rows, why } = undoDoubt;
  switch (rows) {
    case 'other':
      return `${UNDO_TEXTS[undo]}, and the rows are not those of the backup: ${why}`;
    case 'unproven':
      return `${UNDO_TEXTS[undo]}, and that the rows are those of the backup is not proven: ${why}`;
    case 'accepted':
      return `${UNDO_TEXTS[undo]}, and its rows were not proven to be those of the backup (${why})`;
    case 'not-comparable':
      return `${UNDO_TEXTS[undo]}: objects are as it should leave them, that the rows are is not proven (${why})`;
    case 'equal':
      return why;
  }
}

const UNDO_TEXTS: Readonly<Record<DoubtfulUndo, string>> = {
  'of-a-part': 'a rollback began in the middle of what was rehearsed',
  interrupted: 'a rollback was interrupted, or did not tell how it ended',
  'by-others': 'what was applied was undone by others than this run',
};

/** One sentence on what a rollback drops beyond the migration's own; empty where nothing came, or nobody counted. */
export function arrivalsText(arrivals: Arrivals | undefined): string {
  if (arrivals === undefined) return '';
  const { objects, total, archive, unknown, unseen } = arrivals;
  const came = objects
    .filter(({ found, rows }) => found > rows)
    .map(({ table, column, found, rows }) => `${found - rows} in ${column === null ? table : `${table}.${column}`}`);
  const exported = archive === null ? '' : `, exported to ${archive.uri}`;
  return [
    ...(total > 0
      ? [
          `a rollback drops ${total} row(s) or value(s) that came since the upgrade (${came.slice(0, 10).join(', ')}${exported})`,
        ]
      : []),
    ...(unseen.length > 0
      ? [
          `counted is how many rows there are, not which: a deleted row makes up for one that came, a changed value shows in no count, and a rollback drops it: ${unseen.slice(0, 5).join(', ')}${total > 0 || archive === null ? '' : `; what is there is exported to ${archive.uri}`}`,
        ]
      : []),
    ...(unknown.length > 0 ? [`what a rollback drops could not be counted for ${unknown.slice(0, 5).join(', ')}`] : []),
  ].join('; ');
}

/** One sentence on what a restore takes back. */
export function wayBackText(cost: WayBackCost | undefined): string {
  if (cost === undefined) return 'what a restore would take back could not be estimated';
  const minutes = Math.round(cost.backupAge / 60_000);
  return `a restore goes back ${minutes} min and takes back ${takenBackText(cost)}; it is predicted to take ${Math.ceil(cost.predictedMilliseconds / 1000)} s`;
}
