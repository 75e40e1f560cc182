import { sqlName } from '../identifier.ts';

/** A literal with its casts, as `pg_get_expr` writes it: `0`, `'-1'::integer`, `'new'::public.state`, `false`. */
const LITERAL = /^(?:\(?-?\d+(?:\.\d+)?\)?|'(?:[^']|'')*'|true|false)(?:::[\w\s".,()[\]]+)?$/;

/**
 * SQL that counts the values of a column that are neither null nor its default; undefined where the default is no constant,
 * for then a value cannot be told from one that nobody chose. As text: not every type can be compared.
 *
 * @param expression the default, by `pg_get_expr` under the same search_path; null where there is none
 */
export function countBeyondDefault(column: string, expression: string | null): string | undefined {
  if (expression === null || !LITERAL.test(expression)) return undefined;
  const name = sqlName(column);
  return `count(*) FILTER (WHERE ${name} IS NOT NULL AND ${name}::text IS DISTINCT FROM (${expression})::text)`;
}
