import type { Client } from 'pg';
import { sqlName } from '../identifier.ts';
import { recordTextSql, rowHashSql } from './row-hash.ts';
import { type ComparableTable, hashedAlike } from './comparable-tables.ts';
import { both, type DifferingRow, type MergedRow, mergeSorted, SortedRows } from './sorted-merge.ts';
import type { PairInBoth } from './table-pairs.ts';

/**
 * Two databases of one server, each session in a snapshot of its own with its formats pinned (`pinFormats`). Hashes are
 * the server's: across two servers of different versions they need not agree.
 */
export interface ComparedSessions {
  readonly production: Client;
  readonly copy: Client;
}

/** Where two tables differ: rows are dealt into buckets by the hash of their key, and each bucket is summed up. */
export interface DifferingBuckets {
  /** A power of two. */
  readonly of: number;
  readonly buckets: readonly number[];
}

/**
 * First pass: one scan of each side, side by side; answers a few thousand sums whatever the size of the table. Sums, so
 * that equal rows do not cancel out; 64 bits of hash for each row and the number of rows.
 *
 * @returns null when the tables are equal
 */
export async function findDifferingBuckets(
  sessions: ComparedSessions,
  pair: PairInBoth,
): Promise<DifferingBuckets | null> {
  const of = bucketCount(Math.max(pair.production.estimatedRows, pair.copy.estimatedRows));
  const [ours, theirs] = await both(
    sumBuckets(sessions.production, pair.production, pair, of),
    sumBuckets(sessions.copy, pair.copy, pair, of),
  );
  const buckets: number[] = [];
  for (let bucket = 0; bucket < of; bucket += 1) {
    if (ours[bucket] !== theirs[bucket]) buckets.push(bucket);
  }
  return buckets.length === 0 ? null : { of, buckets };
}

const SMALLEST = 256;
const LARGEST = 65_536;
const ROWS_PER_BUCKET = 32;

function bucketCount(rows: number): number {
  let count = SMALLEST;
  while (count < LARGEST && count * ROWS_PER_BUCKET < rows) count *= 2;
  return count;
}

const hashSql = (columns: readonly string[], { production, copy }: PairInBoth): string =>
  rowHashSql('t', hashedAlike(columns, production, copy));

const bucketSql = (pair: PairInBoth, of: number): string =>
  `(${hashSql(pair.key ?? pair.compared, pair)} & ${of - 1})::int4`;

async function sumBuckets(client: Client, table: ComparableTable, pair: PairInBoth, of: number): Promise<string[]> {
  const { rows } = await client.query<[number, string, string]>({
    text: `SELECT ${bucketSql(pair, of)}, count(*), sum(${hashSql(pair.compared, pair)})
           FROM ONLY ${sqlName(table.schema, table.name)} AS t GROUP BY 1`,
    rowMode: 'array',
  });
  const sums: string[] = [];
  for (const [bucket, count, sum] of rows) sums[bucket] = `${count} ${sum}`;
  return sums;
}

/**
 * Second pass: the rows of the differing buckets, in the order of their keys' digests on both sides, merged here. Only
 * digests and places (`ctid`, good for the snapshot's life) travel; the server sorts, so memory here is flat whatever the
 * number of differences.
 *
 * Without a key the digest covers all that is compared: rows are then paired off as a multiset.
 */
export async function* differingRows(
  sessions: ComparedSessions,
  pair: PairInBoth,
  differing: DifferingBuckets,
): AsyncGenerator<DifferingRow, void, undefined> {
  const ours = { client: sessions.production, sql: digestsSql(pair.production, pair, differing) };
  const theirs = { client: sessions.copy, sql: digestsSql(pair.copy, pair, differing) };
  await both(openCursor(ours), openCursor(theirs));
  yield* mergeSorted(
    new SortedRows(() => fetchDigests(ours.client)),
    new SortedRows(() => fetchDigests(theirs.client)),
  );
  await both(closeCursor(ours.client), closeCursor(theirs.client));
}

const FETCHED_AT_ONCE = 5000;

/** Over the table called `t`: 128 bits, so that no two of any number of rows meet by chance; `hashtextextended` has 64. */
export const digestSql = (columns: readonly string[]): string =>
  `encode(substring(sha256(convert_to(${recordTextSql('t', columns)}, getdatabaseencoding())) FROM 1 FOR 16), 'hex') COLLATE "C"`;

/** WHERE clause over the table called `t`; empty where every bucket differs. */
export const inBucketsSql = (pair: PairInBoth, { of, buckets }: DifferingBuckets): string =>
  buckets.length === of ? '' : `WHERE ${bucketSql(pair, of)} = ANY ('{${buckets.join(',')}}'::int4[])`;

function digestsSql({ schema, name }: ComparableTable, pair: PairInBoth, differing: DifferingBuckets): string {
  const { key, compared } = pair;
  const whole = digestSql(compared);
  return `SELECT ${key === null ? whole : digestSql(key)}, ${key === null ? `''::text COLLATE "C"` : whole}, t.ctid::text
          FROM ONLY ${sqlName(schema, name)} AS t ${inBucketsSql(pair, differing)} ORDER BY 1, 2`;
}

const openCursor = ({ client, sql }: { readonly client: Client; readonly sql: string }): Promise<unknown> =>
  client.query(`DECLARE differing_rows NO SCROLL CURSOR FOR ${sql}`);

const closeCursor = (client: Client): Promise<unknown> => client.query('CLOSE differing_rows');

async function fetchDigests(client: Client): Promise<readonly MergedRow[]> {
  const { rows } = await client.query<[string, string, string]>({
    text: `FETCH FORWARD ${FETCHED_AT_ONCE} FROM differing_rows`,
    rowMode: 'array',
  });
  return rows;
}
