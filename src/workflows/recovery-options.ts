/** Which ways on exist after trouble. Pure: recovery decisions are a table, and the table is tested. */
import type { Reality, WayBackCost } from '../contract/evidence.ts';
import type { RecoveryAction } from '../contract/messages.ts';
import type { Profile } from '../contract/profile.ts';
import type { Trouble } from './run-state.ts';

export interface Situation {
  /** What production was read to be; undefined when it could not be read. */
  readonly reality: Reality | undefined;
  readonly trouble: Trouble;
  readonly rollbackPolicy: Profile['recovery']['rollback'];
  readonly downgradePlanned: boolean;
  readonly backupVerified: boolean;
  /** Recoveries tried so far in this trouble, each of which failed. */
  readonly tried: readonly ('rollback' | 'restore')[];
}

export type Verdict =
  /** Nothing was changed, so nothing is to be undone. */
  | { readonly kind: 'nothing-to-undo' }
  /** A rollback whose reply was lost: the state is that of before. */
  | { readonly kind: 'undone'; readonly by: 'rollback' }
  | { readonly kind: 'automatic'; readonly action: 'rollback' }
  | { readonly kind: 'ask'; readonly actions: readonly RecoveryAction[] };

export function judge(situation: Situation): Verdict {
  const { reality, tried } = situation;
  if (reality?.kind === 'unchanged' && !tried.includes('restore')) {
    return tried.includes('rollback') ? { kind: 'undone', by: 'rollback' } : { kind: 'nothing-to-undo' };
  }
  if (isAutomatic(situation)) return { kind: 'automatic', action: 'rollback' };
  return { kind: 'ask', actions: possibleActions(situation) };
}

/**
 * By itself only what the approved plan allows, once, and only from a state that is understood. What validation or QA
 * finds is for a person to judge: production works by then.
 */
function isAutomatic({ reality, rollbackPolicy, downgradePlanned, tried, trouble }: Situation): boolean {
  if (trouble.kind === 'failure' && !trouble.step.startsWith('apply.')) return false;
  if (rollbackPolicy !== 'automatic' || !downgradePlanned || tried.length > 0) return false;
  return reality?.kind === 'fully-applied' || (reality?.kind === 'partly-applied' && reality.clean === 'yes');
}

export function possibleActions(situation: Situation): readonly RecoveryAction[] {
  const { reality, rollbackPolicy, downgradePlanned, backupVerified, tried } = situation;
  const actions: RecoveryAction[] = ['retry'];
  if (reality?.kind === 'fully-applied') actions.push('continue');
  const isApplied = reality?.kind === 'fully-applied' || reality?.kind === 'partly-applied';
  if (isApplied && downgradePlanned && rollbackPolicy !== 'never') actions.push('rollback');
  // A swap that was interrupted may have left production closed; only a restore opens it again.
  if (backupVerified && (reality !== undefined || tried.includes('restore'))) actions.push('restore');
  actions.push('accept');
  return actions;
}

/** Where a retry goes on: the upgrade again where it is not complete, else the checks after it. */
export const retryFrom = (reality: Reality | undefined): 'upgrade' | 'checks' =>
  reality?.kind === 'fully-applied' ? 'checks' : 'upgrade';

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

/** One sentence on what a restore takes back. */
export function wayBackText(cost: WayBackCost | undefined): string {
  if (cost === undefined) return 'what a restore would take back could not be estimated';
  const { inserted, updated, deleted } = cost.total;
  const minutes = Math.round(cost.backupAge / 60_000);
  const whose = cost.by === 'migration' ? 'all of them the migration’s own (fence)' : 'users’ writes may be among them';
  const rows =
    inserted + updated + deleted === 0
      ? 'no row'
      : `${cost.basis === 'statistics' ? 'at most ' : ''}${inserted} inserted, ${updated} updated, ${deleted} deleted rows (${whose})`;
  const unknown = cost.unknown.length > 0 ? `; not known for ${cost.unknown.slice(0, 5).join(', ')}` : '';
  return `a restore goes back ${minutes} min and takes back ${rows}${unknown}; it is predicted to take ${Math.ceil(cost.predictedMilliseconds / 1000)} s`;
}
