/** What a rehearsed downgrade left, as a verdict names it, and how it is known again in production. */
import { createHash } from 'node:crypto';
import { normalizedDefinition } from '../postgres/catalog/definition-text.ts';

/** Objects that a verdict names, all of them: after a rollback every one must be told from what nobody expected. */
export const MOST_LEFTOVERS = 300;

/** Characters of a line. */
const LONGEST = 300;

/** Behind what was cut: of the whole line, in its normal form. */
const CUT = / \.\.\. \(sha256 ([0-9a-f]{16})\)$/;

/** @param line of `objectDifferences` */
export const leftoverLine = (line: string): string =>
  line.length <= LONGEST ? line : `${line.slice(0, LONGEST - 32)} ... (sha256 ${digestOf(line)})`;

/**
 * Is a difference one that the rehearsed downgrade left too? The copy's definitions came out of a dump, and PostgreSQL may
 * write the same expression otherwise there.
 *
 * @param leftovers lines of a verdict
 */
export function isLeftover(leftovers: readonly string[]): (line: string) => boolean {
  const expected = new Set(leftovers.map((line) => CUT.exec(line)?.[1] ?? digestOf(line)));
  return (line) => expected.has(digestOf(line));
}

const digestOf = (line: string): string =>
  createHash('sha256').update(normalizedDefinition(line)).digest('hex').slice(0, 16);
