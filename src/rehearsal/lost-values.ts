/** What of the backup's rows and values is gone or changed after upgrade and downgrade, table by table. */
import { type Client, escapeIdentifier } from 'pg';
import type { LostValues } from '../contract/evidence/rehearsal.ts';
import { type ComparableTable, hashedAlike, readComparableTables } from '../postgres/contents/comparable-tables.ts';
import { differingLargeObjects } from '../postgres/contents/large-object-difference.ts';
import {
  type ComparedSessions,
  type DifferingBuckets,
  differingRows,
  digestSql,
  findDifferingBuckets,
  inBucketsSql,
} from '../postgres/contents/row-difference.ts';
import { pinFormats, rowHashSql } from '../postgres/contents/row-hash.ts';
import { both, type DifferingRow, type MergedRow, SortedRows } from '../postgres/contents/sorted-merge.ts';
import { type PairInBoth, type PairInOne, pairTables } from '../postgres/contents/table-pairs.ts';
import { sqlName } from '../postgres/identifier.ts';

export interface DataDifference {
  readonly lost: readonly LostValues[];
  /** `table public.audit: 3 row(s) more`. */
  readonly more: readonly string[];
}

/** Both sessions are of the scratch server: one in the pristine database, one in the copy after the downgrade. */
export interface LossSessions {
  readonly pristine: Client;
  readonly tried: Client;
}

/**
 * Looks closely at tables that were found to differ. Rows are matched by a key that both sides have; then the columns whose
 * values differ are told. Without a key rows are a multiset; where all that differs is some columns, those are told.
 *
 * @param tables names as in the object map, of either side
 */
export async function findLostValues(
  { pristine, tried }: LossSessions,
  tables: ReadonlySet<string>,
  progress: (table: string) => void,
): Promise<DataDifference> {
  const sessions: ComparedSessions = { production: pristine, copy: tried };
  return inSnapshots(sessions, async () => {
    const [before, after] = await both(
      readComparableTables(pristine, 'configuration'),
      readComparableTables(tried, 'configuration'),
    );
    const lost: LostValues[] = [];
    const more: string[] = [];
    for (const pair of pairTables(before, after)) {
      if (!tables.has(pair.table)) continue;
      progress(pair.table);
      const found = pair.presence === 'both' ? await comparePair(sessions, pair) : await wholeTable(sessions, pair);
      lost.push(...found.lost);
      more.push(...found.more);
    }
    return { lost, more };
  });
}

/** Large objects are not part of a table: OIDs that are gone or whose contents differ. */
export async function findLostLargeObjects({ pristine, tried }: LossSessions): Promise<DataDifference> {
  const sessions: ComparedSessions = { production: pristine, copy: tried };
  return inSnapshots(sessions, async () => {
    const counts = await countRows(differingLargeObjects(sessions));
    return difference('large objects', { lost: counts.lost + counts.changed, more: counts.more });
  });
}

async function inSnapshots<T>({ production, copy }: ComparedSessions, work: () => Promise<T>): Promise<T> {
  await both(pinFormats(production), pinFormats(copy));
  const onBoth = (statement: string) => both(production.query(statement), copy.query(statement));
  await onBoth('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    return await work();
  } finally {
    await onBoth('ROLLBACK').catch(() => undefined);
  }
}

async function wholeTable(
  sessions: ComparedSessions,
  { presence, table, present }: PairInOne,
): Promise<DataDifference> {
  const { rows } = await sessions[presence].query<{ rows: string }>(
    `SELECT count(*) AS "rows" FROM ONLY ${sqlName(present.schema, present.name)}`,
  );
  const count = Number(rows[0]!.rows);
  return difference(table, presence === 'production' ? { lost: count, more: 0 } : { lost: 0, more: count });
}

async function comparePair(sessions: ComparedSessions, pair: PairInBoth): Promise<DataDifference> {
  const dropped = await droppedColumns(sessions.production, pair);
  if (pair.compared.length === 0) return { lost: dropped, more: [] };
  const differing = await findDifferingBuckets(sessions, pair);
  if (differing === null) return { lost: dropped, more: [] };
  const found =
    pair.key === null ? await compareUnkeyed(sessions, pair, differing) : await compareKeyed(sessions, pair, differing);
  return { lost: [...dropped, ...found.lost], more: found.more };
}

/** Columns that the copy does not have any more: every value is gone. */
async function droppedColumns(client: Client, pair: PairInBoth): Promise<LostValues[]> {
  const generated = new Set(pair.production.columns.filter((column) => column.generated).map(({ name }) => name));
  const gone = pair.onlyInProduction.filter((name) => !generated.has(name));
  if (gone.length === 0) return [];
  const { rows } = await client.query<string[]>({
    text: `SELECT ${gone.map((name) => `count(${escapeIdentifier(name)})`).join(', ')} FROM ONLY ${nameOf(pair.production)}`,
    rowMode: 'array',
  });
  return gone
    .map((column, index) => ({ table: pair.table, column, values: Number(rows[0]![index]) }))
    .filter(({ values }) => values > 0);
}

const nameOf = ({ schema, name }: ComparableTable): string => sqlName(schema, name);

interface RowCounts {
  readonly lost: number;
  readonly more: number;
}

const difference = (table: string, { lost, more }: RowCounts): DataDifference => ({
  lost: lost > 0 ? [{ table, column: null, values: lost }] : [],
  more: more > 0 ? [`${table === 'large objects' ? table : `table ${table}`}: ${more} row(s) more`] : [],
});

async function countRows(rows: AsyncIterable<DifferingRow>): Promise<RowCounts & { readonly changed: number }> {
  const counts = { inserted: 0, updated: 0, deleted: 0 };
  for await (const { kind } of rows) counts[kind] += 1;
  // `inserted` is what only the first side has: here the pristine database.
  return { lost: counts.inserted, changed: counts.updated, more: counts.deleted };
}

/** Rows of the differing buckets side by side, each with a hash of every column. */
async function compareKeyed(
  { production, copy }: ComparedSessions,
  pair: PairInBoth,
  differing: DifferingBuckets,
): Promise<DataDifference> {
  const key = pair.key!;
  const columns = pair.compared.filter((name) => !key.includes(name));
  const ours = await openRows(production, pair, pair.production, columns, differing);
  const theirs = await openRows(copy, pair, pair.copy, columns, differing);
  const changed = columns.map(() => 0);
  let [lost, more] = [0, 0];
  for (;;) {
    if (ours.drained || theirs.drained) await both(ours.fill(), theirs.fill());
    const [one, other] = [ours.row, theirs.row];
    if (one === undefined && other === undefined) break;
    if (one !== undefined && (other === undefined || one[0] < other[0])) {
      lost += 1;
      ours.advance();
    } else if (other !== undefined && (one === undefined || other[0] < one[0])) {
      more += 1;
      theirs.advance();
    } else {
      if (one![1] !== other![1]) countDifferences(one![1], other![1], changed);
      ours.advance();
      theirs.advance();
    }
  }
  await both(closeRows(production), closeRows(copy));
  const rows = difference(pair.table, { lost, more });
  const values = columns.map((column, index) => ({ table: pair.table, column, values: changed[index]! }));
  return { lost: [...rows.lost, ...values.filter((entry) => entry.values > 0)], more: rows.more };
}

function countDifferences(one: string, other: string, changed: number[]): void {
  const [first, second] = [one.split(','), other.split(',')];
  for (const [index, hash] of first.entries()) if (hash !== second[index]) changed[index]! += 1;
}

const FETCHED_AT_ONCE = 2000;

/** NULL has a hash of its own, the empty text. */
async function openRows(
  client: Client,
  pair: PairInBoth,
  table: ComparableTable,
  columns: readonly string[],
  differing: DifferingBuckets,
): Promise<SortedRows> {
  const hashes = columns.map(
    (name) => `coalesce(hashtextextended((t.${escapeIdentifier(name)})::text COLLATE "C", 0)::text, '')`,
  );
  await client.query(
    `DECLARE compared_rows NO SCROLL CURSOR FOR
     SELECT ${digestSql(pair.key!)}, concat_ws(',', ${['NULL', ...hashes].join(', ')}), ''
     FROM ONLY ${nameOf(table)} AS t ${inBucketsSql(pair, differing)} ORDER BY 1`,
  );
  return new SortedRows(async () => {
    const { rows } = await client.query<[string, string, string]>({
      text: `FETCH FORWARD ${FETCHED_AT_ONCE} FROM compared_rows`,
      rowMode: 'array',
    });
    return rows satisfies readonly MergedRow[];
  });
}

const closeRows = (client: Client): Promise<unknown> => client.query('CLOSE compared_rows');

async function compareUnkeyed(
  sessions: ComparedSessions,
  pair: PairInBoth,
  differing: DifferingBuckets,
): Promise<DataDifference> {
  const counts = await countRows(differingRows(sessions, pair, differing));
  const rows = difference(pair.table, counts);
  if (counts.lost !== counts.more) return rows;
  const columns = await differingColumns(sessions, pair);
  const rest = pair.compared.filter((name) => !columns.includes(name));
  if (columns.length === 0 || rest.length === 0) return rows;
  // Equal but for these columns: then it is these that changed, as far as rows without a key can tell.
  if ((await findDifferingBuckets(sessions, { ...pair, compared: rest })) !== null) return rows;
  const lost: LostValues[] = [];
  for (const column of columns) {
    const alone = { ...pair, compared: [column] };
    const where = await findDifferingBuckets(sessions, alone);
    if (where === null) continue;
    const values = (await countRows(differingRows(sessions, alone, where))).lost;
    lost.push({ table: pair.table, column, values });
  }
  return { lost, more: [] };
}

/** Columns whose values, taken together, are not the same ones on both sides. */
async function differingColumns({ production, copy }: ComparedSessions, pair: PairInBoth): Promise<readonly string[]> {
  const sums = async (client: Client, table: ComparableTable): Promise<readonly (string | null)[]> => {
    const { rows } = await client.query<(string | null)[]>({
      text: `SELECT ${pair.compared.map((name) => `sum(${rowHashSql('t', hashedAlike([name], pair.production, pair.copy))})`).join(', ')}
             FROM ONLY ${nameOf(table)} AS t`,
      rowMode: 'array',
    });
    return rows[0]!;
  };
  const [ours, theirs] = await both(sums(production, pair.production), sums(copy, pair.copy));
  return pair.compared.filter((_, index) => ours[index] !== theirs[index]);
}
