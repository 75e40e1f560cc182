import type { Client } from 'pg';
import type { ComparedSessions } from './row-difference.ts';
import { type DifferingRow, type MergedRow, mergeSorted, SortedRows } from './sorted-merge.ts';

/** Bytes: one page of an object is in memory at a time. */
export const LARGE_OBJECT_PAGE = 1024 ** 2;

/** Objects one statement reads. */
const BATCH = 500;

/** The large objects that differ in content, by OID; `place` is the OID. Needs the right to read each of them. */
export async function* differingLargeObjects({
  production,
  copy,
}: ComparedSessions): AsyncGenerator<DifferingRow, void, undefined> {
  yield* mergeSorted(largeObjectsOf(production), largeObjectsOf(copy));
}

function largeObjectsOf(client: Client): SortedRows {
  let after = '-1';
  return new SortedRows(async () => {
    const { rows } = await client.query<[string, string, string]>({
      text: CONTENTS,
      values: [after, BATCH, LARGE_OBJECT_PAGE],
      rowMode: 'array',
    });
    after = rows.at(-1)?.[2] ?? after;
    return rows satisfies readonly MergedRow[];
  });
}

/**
 * Walks through each object page by page; the recursion keeps only a page's hash and length. An empty object has one empty
 * page. The OID is padded, so that its text sorts as the number does.
 */
const CONTENTS = `
  WITH RECURSIVE page AS (
    SELECT o.oid, 0::int8 AS number, c.hash, c.length
    FROM (SELECT m.oid FROM pg_largeobject_metadata m WHERE m.oid::int8 > $1::int8 ORDER BY m.oid::int8 LIMIT $2::int) o,
         LATERAL (SELECT hash_array_extended(ARRAY[g.content], 0) AS hash, length(g.content) AS length
                  FROM (SELECT lo_get(o.oid, 0, $3::int) AS content OFFSET 0) g) c
    UNION ALL
    SELECT p.oid, p.number + 1, c.hash, c.length
    FROM page p, LATERAL (SELECT hash_array_extended(ARRAY[g.content], 0) AS hash, length(g.content) AS length
                          FROM (SELECT lo_get(p.oid, (p.number + 1) * $3::int, $3::int) AS content OFFSET 0) g) c
    WHERE p.length = $3::int
  )
  SELECT lpad(oid::text, 10, '0'), sum(hashtextextended(concat_ws(' ', number, length, hash) COLLATE "C", 0))::text, oid::text
  FROM page GROUP BY oid ORDER BY oid::int8`;

/** Pages of large objects as rows of `oid`, `page`, `data`, for COPY. */
export const largeObjectPagesSql = (oids: readonly string[]): string => `
  WITH RECURSIVE page AS (
    SELECT o.oid, 0 AS number, lo_get(o.oid, 0, ${LARGE_OBJECT_PAGE}) AS data
    FROM unnest('{${oids.join(',')}}'::oid[]) AS o(oid)
    UNION ALL
    SELECT p.oid, p.number + 1, lo_get(p.oid, (p.number + 1) * ${LARGE_OBJECT_PAGE}::int8, ${LARGE_OBJECT_PAGE})
    FROM page p WHERE length(p.data) = ${LARGE_OBJECT_PAGE}
  )
  SELECT oid, number, data FROM page WHERE number = 0 OR length(data) > 0`;
