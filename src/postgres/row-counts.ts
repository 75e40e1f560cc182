import type { Client } from 'pg';
import { qualifiedName, sqlName } from './identifier.ts';
import type { SequenceState } from './sequences.ts';

/** Exact counts of a snapshot. `lastValue` is text: a bigint may not fit a JSON number. */
export interface RowCounts {
  readonly tables: readonly { readonly table: string; readonly rows: number }[];
  readonly sequences: readonly SequenceState[];
}

/**
 * Counts every row of every ordinary table and leaf partition, and reads every sequence. Not counted: foreign tables
 * (their rows live elsewhere), materialized views (stale by nature), extension members. Names as in the object map.
 *
 * Reads in the caller's transaction, so that a ledger and a dump can share one snapshot; without one each table is counted
 * in a snapshot of its own. Row security is off: a policy that would hide rows makes the count fail, not shrink.
 * Sequences are not under MVCC: their values may be later than the snapshot.
 */
export async function readRowCounts(
  client: Client,
  progress: (table: string, done: number, of: number) => void = () => undefined,
): Promise<RowCounts> {
  await client.query('SET row_security = off');
  const relations = await userRelations(client);
  const tables: { table: string; rows: number }[] = [];
  const counted = relations.filter(({ kind }) => kind === 'table');
  for (const { schema, name } of counted) {
    progress(qualifiedName(schema, name), tables.length, counted.length);
    // ONLY: children of an inheritance parent are tables of their own.
    const { rows } = await client.query<{ rows: string }>(`SELECT count(*) AS rows FROM ONLY ${sqlName(schema, name)}`);
    tables.push({ table: qualifiedName(schema, name), rows: Number(rows[0]!.rows) });
  }
  const sequences: SequenceState[] = [];
  for (const { schema, name } of relations.filter(({ kind }) => kind === 'sequence')) {
    const { rows } = await client.query<{ lastValue: string; isCalled: boolean }>(
      `SELECT last_value::text AS "lastValue", is_called AS "isCalled" FROM ${sqlName(schema, name)}`,
    );
    sequences.push({ sequence: qualifiedName(schema, name), ...rows[0]! });
  }
  return { tables: sorted(tables, ({ table }) => table), sequences: sorted(sequences, ({ sequence }) => sequence) };
}

interface UserRelation {
  readonly schema: string;
  readonly name: string;
  readonly kind: 'table' | 'sequence';
}

async function userRelations(client: Client): Promise<UserRelation[]> {
  const { rows } = await client.query<UserRelation>(
    `SELECT n.nspname AS "schema", c.relname AS "name", CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS "kind"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'S') AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_depend d
                       WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`,
  );
  return rows;
}

const sorted = <T>(entries: readonly T[], key: (entry: T) => string): T[] =>
  [...entries].sort((one, other) => (key(one) < key(other) ? -1 : key(one) > key(other) ? 1 : 0));

export interface RowDifference {
  readonly table: string;
  readonly before: number;
  readonly after: number;
}

/** Tables whose counts differ; a table missing on one side counts -1 there. */
export function compareRowCounts(before: RowCounts, after: RowCounts): RowDifference[] {
  const first = new Map(before.tables.map(({ table, rows }) => [table, rows]));
  const second = new Map(after.tables.map(({ table, rows }) => [table, rows]));
  return [...new Set([...first.keys(), ...second.keys()])]
    .sort()
    .map((table) => ({ table, before: first.get(table) ?? -1, after: second.get(table) ?? -1 }))
    .filter((entry) => entry.before !== entry.after);
}
