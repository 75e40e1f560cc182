import { escapeIdentifier } from 'pg';

/**
 * The name of an object as people write it: parts joined by dots, a part in double quotes only where it is not a plain
 * lower-case word. Unlike `quote_ident` it does not quote keywords, which differ between versions: a name for reading and
 * comparing. For SQL use `sqlName`.
 */
export const qualifiedName = (...parts: readonly string[]): string =>
  parts.map((part) => (/^[a-z_][a-z0-9_$]*$/.test(part) ? part : escapeIdentifier(part))).join('.');

/** The same for SQL text: every part quoted. */
export const sqlName = (...parts: readonly string[]): string => parts.map((part) => escapeIdentifier(part)).join('.');

/** SQL for what `qualifiedName` has written. */
export const sqlNameOf = (qualified: string): string =>
  qualified.replaceAll(/"(?:[^"]|"")*"|[^."]+/g, (part) => (part.startsWith('"') ? part : escapeIdentifier(part)));

/** PostgreSQL cuts identifiers at 63 bytes without a word; `ending` is kept whole. */
export function boundedIdentifier(beginning: string, ending: string): string {
  const room = 63 - Buffer.byteLength(ending);
  // Character by character: half of a surrogate pair is none.
  const kept = Array.from(beginning);
  while (Buffer.byteLength(kept.join('')) > room) kept.pop();
  return kept.join('') + ending;
}
