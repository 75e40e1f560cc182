import type { StatementClass } from '../contract/evidence/rehearsal.ts';

/** Literals, quoted names, dollar-quoted bodies and comments; each also where the text was cut inside of it. */
const PARTS =
  /\be'(?:[^'\\]|\\[\s\S]|'')*(?:'|$)|'(?:[^']|'')*(?:'|$)|"(?:[^"]|"")*(?:"|$)|(\$[A-Za-z_]*\$)[\s\S]*?(?:\1|$)|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/gi;

/**
 * A statement as others may read it, from `pg_stat_activity`: without comments, texts and numbers, on one line. What a value
 * of a row could be is struck out.
 */
export function withoutLiterals(sql: string, limit = 300): string {
  const text = sql
    .replaceAll(PARTS, (part) =>
      part.startsWith('"') ? part : part.startsWith('-') || part.startsWith('/') ? ' ' : '?',
    )
    .replaceAll(/(?<![\w."$])\d[\d.]*(?:e[+-]?\d+)?/gi, '?')
    .replaceAll(/\s+/g, ' ')
    .trim();
  return text.length <= limit ? text : `${text.slice(0, limit)} ...`;
}

/** One statement; CREATE, DROP, REINDEX, REFRESH, DETACH PARTITION. */
const CONCURRENTLY = /^[^;]*\bCONCURRENTLY\b(?!\s+(?:FALSE|OFF|0)\b)[^;]*;?\s*$/i;

/** One ALTER TABLE that does nothing else: with another action it takes that one's lock. */
const VALIDATES =
  /^\s*ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?\S+(?:\s*\*)?(?:\s*,?\s*VALIDATE\s+CONSTRAINT\s+[^\s,;]+)+\s*;?\s*$/i;

/**
 * How a statement waits, as far as its text tells from outside: `concurrent` beside the application, anything else in front
 * of it. In doubt it is `exclusive`, whose limit is the short one.
 */
export function classFromOutside(sql: string): Extract<StatementClass, 'concurrent' | 'exclusive'> {
  const words = sql.replaceAll(PARTS, (part) => (part.startsWith('-') || part.startsWith('/') ? ' ' : '?'));
  return CONCURRENTLY.test(words) || VALIDATES.test(words) ? 'concurrent' : 'exclusive';
}

/** Statements that come after a failure in any case: the end of its transaction, settings, the release of advisory locks. */
const CLEANING_UP =
  /^\s*(?:$|(?:rollback|abort|commit|end|begin|start|savepoint|release|set|reset|discard|deallocate|close|unlisten|show)\b)|\bpg_advisory_unlock/i;

/** Does a migration get on by this statement, as far as its text tells? */
export const getsOnFromOutside = (sql: string): boolean => !CLEANING_UP.test(withoutLiterals(sql, sql.length));
