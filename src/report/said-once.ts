/** One cause appears in a verdict, as trouble, as a step's error: in full once, and known again elsewhere. Pure. */

/** Shorter texts are read again without harm. */
const SHORT = 160;
const HEAD = 100;

/** Numbering of several findings is not what they say. */
const plainWords = (text: string): string =>
  text
    .replaceAll(/\b\d+ findings: /g, '')
    .replaceAll(/\(\d+\) /g, '')
    .replaceAll(/;?\s+/g, ' ')
    .trim();

/** Does `text` say all that `other` says? */
export const says = (text: string, other: string): boolean => plainWords(text).includes(plainWords(other));

/** `text` with what has been said elsewhere cut to its beginning; `where` tells where the whole is. */
export function shortened(text: string, said: readonly string[], where: string): string {
  let result = text;
  // The longest first: one may hold another.
  for (const known of said.toSorted((one, other) => other.length - one.length)) {
    if (known.length <= SHORT || !result.includes(known)) continue;
    const head = known.slice(0, HEAD).replace(/\s+\S*$/, '');
    result = result.replace(known, () => `${head} … (${where})`);
  }
  return result;
}
