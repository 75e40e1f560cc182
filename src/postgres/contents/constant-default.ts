import { sqlName } from '../identifier.ts';

/** A literal with its casts, as `pg_get_expr` writes it: `0`, `'-1'::integer`, `'new'::public.state`, `false`. */
const LITERAL = /^(?:\(?-?\d+(?:\.\d+)?\)?|'(?:[^']|'')*'|true|false)(?:::[\w\s".,()[\]]+)?$/;

/**
 * SQL that a value fulfils which is neither null nor the column's default; undefined where the default is no constant, for
 * then a value cannot be told from one that nobody chose. As text: not every type can be compared.
 *
 * @param expression the default, by `pg_get_expr` under the same search_path; null where there is none
 */
export function isBeyondDefault(column: string, expression: string | null): string | undefined {
  if (expression === null || !LITERAL.test(expression)) return undefined;
  const name = sqlName(column);
  return `${name} IS NOT NULL AND ${name}::text IS DISTINCT FROM (${expression})::text`;
}

/** SQL that counts the rows that fulfil a condition. */
export const countOf = (condition: string): string => `count(*) FILTER (WHERE ${condition})`;

/** SQL that counts the values beyond the default. */
export function countBeyondDefault(column: string, expression: string | null): string | undefined {
  const condition = isBeyondDefault(column, expression);
  return condition === undefined ? undefined : countOf(condition);
}
