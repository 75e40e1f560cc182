import type { Client } from 'pg';

/** The large objects of a database, with the rights of whoever may read them. */
export interface LargeObjects {
  readonly count: number;
  /** Sum of hashes over each object's OID and pages, in decimal. */
  readonly checksum: string;
  /** Sum of hashes over each object's OID, owner, grants and comment. */
  readonly rights: string;
  /** By OID. */
  readonly sample: { readonly kind: 'all' } | { readonly kind: 'one-in'; readonly n: number };
}

/** Bytes: one page is in memory at a time. */
const PAGE = 1024 ** 2;

/** Objects one statement reads. */
const BATCH = 500;

/**
 * Reads all large objects by `lo_get`, which needs the right to read each of them and no more (`pg_largeobject` itself is
 * for superusers only).
 */
export async function readLargeObjects(
  sessions: readonly Client[],
  options: { readonly sampleAbove: number; readonly like?: LargeObjects['sample'] },
): Promise<LargeObjects> {
  const [first] = sessions;
  if (first === undefined) throw new Error('no session to read with');
  const sample = options.like ?? (await chooseSample(first, options.sampleAbove));
  const { rows: described } = await first.query<{ count: string; rights: string }>(RIGHTS);
  let checksum = 0n;
  let after = '-1';
  for (;;) {
    const { rows } = await first.query<{ last: string | null; checksum: string }>(CONTENTS, [
      after,
      BATCH,
      sample.kind === 'all' ? 1 : sample.n,
      PAGE,
    ]);
    const { last, checksum: sum } = rows[0]!;
    if (last === null) break;
    checksum += BigInt(sum);
    after = last;
  }
  return { count: Number(described[0]!.count), checksum: String(checksum), rights: described[0]!.rights, sample };
}

async function chooseSample(client: Client, sampleAbove: number): Promise<LargeObjects['sample']> {
  const { rows } = await client.query<{ bytes: number }>(
    `SELECT pg_table_size('pg_largeobject'::regclass)::float8 AS bytes`,
  );
  const n = Math.ceil(rows[0]!.bytes / sampleAbove);
  return n > 1 ? { kind: 'one-in', n } : { kind: 'all' };
}

const RIGHTS = `
  SELECT count(*)::text AS "count",
         coalesce(sum(hashtextextended(concat_ws(E'\\n', m.oid, quote_ident(pg_get_userbyid(m.lomowner)),
           (SELECT string_agg(concat_ws(' ', coalesce(quote_ident(r.rolname), 'PUBLIC'), a.privilege_type, a.is_grantable), ', '
                              ORDER BY r.rolname COLLATE "C", a.privilege_type COLLATE "C", a.is_grantable)
            FROM aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner))) a LEFT JOIN pg_roles r ON r.oid = a.grantee),
           obj_description(m.oid, 'pg_largeobject')) COLLATE "C", 0)), 0)::text AS "rights"
  FROM pg_largeobject_metadata m`;

/**
 * Walks through each object page by page; the recursion keeps only a page's hash and length. An empty object has one empty
 * page. `hash_array_extended` hashes the bytes themselves.
 */
const CONTENTS = `
  WITH RECURSIVE chosen AS (
    SELECT m.oid FROM pg_largeobject_metadata m
    WHERE m.oid::int8 > $1::int8 AND (hashint8extended(m.oid::int8, 1) & 9223372036854775807) % $3::int8 = 0
    ORDER BY m.oid::int8 LIMIT $2::int
  ), page AS (
    SELECT o.oid, 0::int8 AS number, c.hash, c.length
    FROM chosen o, LATERAL (SELECT hash_array_extended(ARRAY[g.content], 0) AS hash, length(g.content) AS length
                            FROM (SELECT lo_get(o.oid, 0, $4::int) AS content OFFSET 0) g) c
    UNION ALL
    SELECT p.oid, p.number + 1, c.hash, c.length
    FROM page p, LATERAL (SELECT hash_array_extended(ARRAY[g.content], 0) AS hash, length(g.content) AS length
                          FROM (SELECT lo_get(p.oid, (p.number + 1) * $4::int, $4::int) AS content OFFSET 0) g) c
    WHERE p.length = $4::int
  )
  SELECT (SELECT max(oid::int8)::text FROM chosen) AS "last",
         coalesce(sum(hashtextextended(concat_ws(' ', oid, number, length, hash) COLLATE "C", 0)), 0)::text AS "checksum"
  FROM page`;
