import type { LostValues, RehearsalVerdict } from '../contract/evidence/rehearsal.ts';
import { leftoverLine, MOST_LEFTOVERS } from './leftovers.ts';

/** How two states of one database differ, as far as people care. */
export interface StateDifference {
  /** One line an object: `added type public.mood`. */
  readonly objects: readonly string[];
  readonly lost: readonly LostValues[];
  /** What is there beyond what was, in words: rows more, sequences that fell back. */
  readonly beyond: readonly string[];
}

export interface TrialFacts {
  readonly downgrade:
    | { readonly kind: 'impossible'; readonly why: string }
    /** `where`: the command, with the revision where it is known. */
    | { readonly kind: 'failed'; readonly where: string; readonly why: string }
    | { readonly kind: 'done'; readonly difference: StateDifference };
  /** The upgrade after the downgrade; absent where the downgrade did not go through. */
  readonly again?:
    | { readonly kind: 'done' }
    /** `where`: the revision, where it is known. */
    | { readonly kind: 'failed'; readonly where: string | null; readonly why: string };
}

export const AGAIN = 'upgrade after the downgrade';

/** Losses that a history and a plan can hold; the rest is counted. */
const LISTED = 50;
const WHY = 1000;

/**
 * What the way back by downgrade is worth. The first line that fits counts:
 *
 * | seen                                                        | verdict      |
 * | no downgrade is planned                                     | `impossible` |
 * | a downgrade command fails, or stops at other version rows   | `fails`      |
 * | the upgrade after it fails; what is left over is named      | `fails`      |
 * | more objects differ than a verdict can name                 | `fails`      |
 * | rows or values of the backup are gone or changed            | `lossy`      |
 * | objects differ, rows came in, a sequence fell back          | `leftovers`  |
 * | nothing differs                                             | `lossless`   |
 */
export function judge({ downgrade, again }: TrialFacts): RehearsalVerdict {
  switch (downgrade.kind) {
    case 'impossible':
      return { kind: 'impossible', why: downgrade.why.slice(0, WHY) };
    case 'failed':
      return { kind: 'fails', where: downgrade.where, why: downgrade.why.slice(0, WHY) };
    case 'done':
      break;
  }
  const { objects, lost, beyond } = downgrade.difference;
  const left = [...objects.map(leftoverLine), ...bounded(beyond, LISTED)];
  if (again?.kind === 'failed') {
    const remains = left.length === 0 ? '' : `; the downgrade had left: ${bounded(left, 5).join('; ')}`;
    return {
      kind: 'fails',
      where: again.where === null ? AGAIN : `${AGAIN}, revision ${again.where}`,
      why: `${again.why.slice(0, WHY)}${remains}`.slice(0, 2 * WHY),
    };
  }
  if (objects.length > MOST_LEFTOVERS) {
    const losses = lost.length === 0 ? '' : `, and ${sumOf(lost)} rows or values are lost`;
    return {
      kind: 'fails',
      where: 'comparison',
      why: `${objects.length} objects are not as before${losses}: more than ${MOST_LEFTOVERS} cannot be told from unexpected ones after a rollback; the first: ${bounded(left, 5).join('; ')}`,
    };
  }
  if (lost.length > 0) {
    const most = [...lost].sort((one, other) => other.values - one.values);
    const rest = most.length - LISTED;
    return {
      kind: 'lossy',
      lost: most.slice(0, LISTED),
      objects: [
        ...(rest > 0 ? [`${rest} further tables or columns lose ${sumOf(most.slice(LISTED))} rows or values`] : []),
        ...left,
      ],
    };
  }
  return left.length > 0 ? { kind: 'leftovers', objects: left } : { kind: 'lossless' };
}

const sumOf = (lost: readonly LostValues[]): number => lost.reduce((sum, { values }) => sum + values, 0);

const bounded = (lines: readonly string[], limit: number): readonly string[] =>
  lines.length <= limit ? lines : [...lines.slice(0, limit), `and ${lines.length - limit} more`];
