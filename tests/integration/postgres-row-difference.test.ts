import { describe, expect, it } from 'vitest';
import { withConnection } from '../../src/postgres/connection.ts';
import { compareDatabases, type DatabaseDifference } from '../../src/postgres/contents/database-difference.ts';
import { sqlName } from '../../src/postgres/identifier.ts';
import { type ComparedSessions, differingRows } from '../../src/postgres/contents/row-difference.ts';
import { pinFormats } from '../../src/postgres/contents/row-hash.ts';
import { execute, majorOf, query } from '../postgres-service.ts';
import { createDatabase, createRole, databaseUrl, useStack } from '../stack.ts';

const server = useStack().postgres.primary;
/** The builtin provider came with PostgreSQL 17. */
const BYTEWISE = (await majorOf(server)) >= 17 ? 'pg_c_utf8' : 'C';
const signal = new AbortController().signal;

interface TwoDatabases {
  readonly production: string;
  readonly copy: string;
}

/** Two databases that hold the same, and then each goes its own way. */
async function twoDatabases(
  same: readonly string[],
  production: readonly string[],
  copy: readonly string[] = [],
): Promise<TwoDatabases> {
  const one = await createDatabase(server, 'difference');
  const other = await createDatabase(server, 'difference');
  await execute(one.url, ...same, ...production);
  await execute(other.url, ...same, ...copy);
  return { production: one.url, copy: other.url };
}

async function withSessions<T>(
  { production, copy }: TwoDatabases,
  work: (sessions: ComparedSessions) => Promise<T>,
): Promise<T> {
  const options = { runId: 'difference', step: 'test', signal, statementTimeout: 0 };
  return withConnection(production, options, (ours) =>
    withConnection(copy, options, async (theirs) => {
      for (const client of [ours, theirs]) {
        await pinFormats(client);
        await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      }
      return work({ production: ours, copy: theirs });
    }),
  );
}

const VERSION_TABLE = { schema: 'public', table: 'alembic_version' };

/** The rows of each kind, as text, sorted; only tables that differ. */
type Found = Record<string, { inserted?: string[]; updated?: string[]; deleted?: string[] }>;

interface Comparison {
  readonly found: Found;
  readonly difference: DatabaseDifference;
}

async function compare(databases: TwoDatabases): Promise<Comparison> {
  return withSessions(databases, async (sessions) => {
    const difference = await compareDatabases(sessions, VERSION_TABLE, () => undefined);
    const found: Found = {};
    for (const { pair, differing } of difference.changed) {
      const rows: Found[string] = {};
      for await (const { kind, place } of differingRows(sessions, pair, differing)) {
        const side = kind === 'deleted' ? 'copy' : 'production';
        const { rows: read } = await sessions[side].query<{ row: string }>(
          `SELECT t::text AS row FROM ONLY ${sqlName(pair[side].schema, pair[side].name)} t WHERE ctid = $1::tid`,
          [place],
        );
        (rows[kind] ??= []).push(read[0]!.row);
      }
      for (const list of Object.values(rows)) list.sort();
      found[pair.table] = rows;
    }
    return { found, difference };
  });
}

const changes = async (same: readonly string[], production: readonly string[], copy: readonly string[] = []) =>
  (await compare(await twoDatabases(same, production, copy))).found;

describe('rows are matched by a key', () => {
  it.each([
    {
      key: 'an integer',
      same: [
        'CREATE TABLE t (id int PRIMARY KEY, v text)',
        `INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 300) n`,
      ],
      change: [
        `UPDATE t SET v = 'changed' WHERE id = 7`,
        'DELETE FROM t WHERE id = 9',
        `INSERT INTO t VALUES (-5, 'new')`,
      ],
      rows: { inserted: ['(-5,new)'], updated: ['(7,changed)'], deleted: ['(9,v9)'] },
    },
    {
      key: 'a uuid',
      same: [
        'CREATE TABLE t (id uuid PRIMARY KEY, v int)',
        `INSERT INTO t SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, n FROM generate_series(1, 300) n`,
      ],
      change: [
        'UPDATE t SET v = -1 WHERE v = 12',
        'DELETE FROM t WHERE v = 13',
        `INSERT INTO t VALUES ('ffffffff-ffff-4fff-8fff-ffffffffffff', 0)`,
      ],
      rows: {
        inserted: ['(ffffffff-ffff-4fff-8fff-ffffffffffff,0)'],
        updated: ['(00000000-0000-0000-0000-000000000012,-1)'],
        deleted: ['(00000000-0000-0000-0000-000000000013,13)'],
      },
    },
    {
      key: 'text, whatever its collation',
      same: [
        `CREATE TABLE t (id text COLLATE "ucs_basic", other text COLLATE "${BYTEWISE}", v int, PRIMARY KEY (id, other))`,
        `INSERT INTO t SELECT id, id, n FROM unnest('{Ärger,arger,ARGER,a-rger,z,"",日本,🎈,"a b","a\\"b"}'::text[]) WITH ORDINALITY i(id, n)`,
      ],
      change: [
        `UPDATE t SET v = 0 WHERE id = '🎈'`,
        `DELETE FROM t WHERE id = 'Ärger'`,
        `INSERT INTO t VALUES ('ärger', '', 9)`,
      ],
      rows: { inserted: ['(ärger,"",9)'], updated: ['(🎈,🎈,0)'], deleted: ['(Ärger,Ärger,1)'] },
    },
    {
      key: 'several columns',
      same: [
        'CREATE TABLE t (a text, b int, c date, v text, PRIMARY KEY (b, a, c))',
        `INSERT INTO t SELECT 'x' || n % 3, n, '2026-01-01', 'v' FROM generate_series(1, 200) n`,
      ],
      change: [`UPDATE t SET v = NULL WHERE b = 5`, `UPDATE t SET c = '2027-01-01' WHERE b = 6`],
      rows: { inserted: ['(x0,6,2027-01-01,v)'], updated: ['(x2,5,2026-01-01,)'], deleted: ['(x0,6,2026-01-01,v)'] },
    },
    {
      key: 'a unique index without NULLs, where there is no primary key',
      same: [
        'CREATE TABLE t (a int NOT NULL, b int, v text)',
        'CREATE UNIQUE INDEX ON t (b)',
        'CREATE UNIQUE INDEX ON t (a) INCLUDE (v)',
        `INSERT INTO t SELECT n, NULL, 'v' FROM generate_series(1, 100) n`,
      ],
      change: [`UPDATE t SET b = 1 WHERE a = 4`],
      rows: { updated: ['(4,1,v)'] },
    },
  ])('of $key', async ({ same, change, rows }) => {
    expect(await changes(same, change)).toEqual({ 'public.t': rows });
  });

  it('tells NULL from the empty string, and values that only look alike in a row', async () => {
    const found = await changes(
      [
        'CREATE TABLE t (id int PRIMARY KEY, a text, b text)',
        `INSERT INTO t VALUES (1, NULL, ''), (2, 'x,', 'y'), (3, 'x', ''), (4, NULL, NULL)`,
      ],
      [
        `UPDATE t SET a = '', b = NULL WHERE id = 1`,
        `UPDATE t SET a = 'x', b = ',y' WHERE id = 2`,
        `UPDATE t SET a = '', b = 'x' WHERE id = 3`,
      ],
    );
    expect(found['public.t']?.updated).toEqual(['(1,"",)', '(2,x,",y")', '(3,"",x)']);
  });
});

describe('rows without a key', () => {
  it('are compared as a multiset: duplicates count', async () => {
    const found = await changes(
      [
        'CREATE TABLE t (v text, w int)',
        `INSERT INTO t SELECT 'same', 1 FROM generate_series(1, 6)`,
        'INSERT INTO t VALUES (NULL, NULL)',
      ],
      [`INSERT INTO t VALUES ('same', 1), ('same', 1), (NULL, NULL)`],
      [`INSERT INTO t VALUES ('other', 2), ('other', 2)`],
    );
    expect(found).toEqual({
      'public.t': { inserted: ['(,)', '(same,1)', '(same,1)'], deleted: ['(other,2)', '(other,2)'] },
    });
  });

  it('and two rows that changed places are no difference', async () => {
    const found = await changes(
      ['CREATE TABLE t (v text)'],
      [`INSERT INTO t VALUES ('a'), ('b')`],
      [`INSERT INTO t VALUES ('b'), ('a')`],
    );
    expect(found).toEqual({});
  });

  it('is how they are compared when only one side has the key', async () => {
    const found = await changes(
      ['CREATE TABLE t (id int PRIMARY KEY, v text)', `INSERT INTO t SELECT n, 'v' FROM generate_series(1, 20) n`],
      [
        'ALTER TABLE t DROP CONSTRAINT t_pkey',
        `INSERT INTO t VALUES (3, 'v'), (3, 'w')`,
        `UPDATE t SET v = 'x' WHERE id = 8`,
      ],
    );
    expect(found).toEqual({ 'public.t': { inserted: ['(3,v)', '(3,w)', '(8,x)'], deleted: ['(8,v)'] } });
  });
});

describe('a migration between the two', () => {
  const people = [
    `CREATE TYPE mood AS ENUM ('calm', 'busy')`,
    'CREATE TABLE people (id int PRIMARY KEY, name varchar(20), age int, note text, state mood, born timestamp)',
    `INSERT INTO people SELECT n, 'p' || n, n, 'note', 'calm', '2000-01-01' FROM generate_series(1, 500) n`,
  ];

  it('that adds, drops and renames columns makes no row count as changed; only what both sides have is compared', async () => {
    const { found, difference } = await compare(
      await twoDatabases(people, [
        'ALTER TABLE people ADD COLUMN rank int NOT NULL DEFAULT 3, DROP COLUMN note',
        'ALTER TABLE people RENAME COLUMN born TO birthday',
        `UPDATE people SET age = 0 WHERE id = 4`,
      ]),
    );
    expect(found).toEqual({ 'public.people': { updated: ['(4,p4,0,calm,"2000-01-01 00:00:00",3)'] } });
    expect(difference.changed[0]?.pair).toMatchObject({
      compared: ['id', 'name', 'age', 'state'],
      onlyInProduction: ['birthday', 'rank'],
      onlyInCopy: ['note', 'born'],
    });
    expect(difference.added).toEqual([{ table: 'public.people', columns: ['birthday', 'rank'] }]);
    expect(difference.unknown).toEqual([]);
  });

  it('that changes types is seen through where the text stays the same, in the key too', async () => {
    const { found, difference } = await compare(
      await twoDatabases(people, [
        'ALTER TABLE people ALTER id TYPE bigint, ALTER name TYPE text, ALTER state TYPE text',
        `UPDATE people SET state = 'gone' WHERE id = 400`,
        `DELETE FROM people WHERE id = 401`,
      ]),
    );
    expect(found['public.people']).toEqual({
      updated: ['(400,p400,400,note,gone,"2000-01-01 00:00:00")'],
      deleted: ['(401,p401,401,note,calm,"2000-01-01 00:00:00")'],
    });
    expect(difference.changed[0]?.pair.retyped).toEqual(['id', 'name', 'state']);
  });

  it('that makes and drops tables: their rows are counted whole, empty ones and the version table are not mentioned', async () => {
    const { found, difference } = await compare(
      await twoDatabases(
        ['CREATE TABLE alembic_version (version_num text)'],
        [
          `INSERT INTO alembic_version VALUES ('2')`,
          'CREATE TABLE made (v int)',
          'INSERT INTO made VALUES (1), (2)',
          'CREATE TABLE made_empty (v int)',
          'CREATE TABLE remade (a int)',
          'INSERT INTO remade VALUES (1)',
        ],
        [
          `INSERT INTO alembic_version VALUES ('1')`,
          'CREATE TABLE dropped (v int)',
          'INSERT INTO dropped VALUES (1), (2), (3)',
          'CREATE TABLE remade (b int)',
          'INSERT INTO remade VALUES (1), (1)',
        ],
      ),
    );
    expect(found).toEqual({});
    expect(difference.alone.map(({ pair, rows }) => [pair.table, pair.presence, rows])).toEqual([
      ['public.dropped', 'copy', 3],
      ['public.made', 'production', 2],
      ['public.remade', 'production', 1],
      ['public.remade', 'copy', 2],
    ]);
  });
});

describe('what a table may be', () => {
  it('has any name, partitions that are compared leaf by leaf, children, and no columns at all', async () => {
    const odd = '"Größe ""der"" Schäden"."weird \'table\' -- ;"';
    const found = await changes(
      [
        'CREATE SCHEMA "Größe ""der"" Schäden"',
        `CREATE TABLE ${odd} ("Schlüssel ""1""" text PRIMARY KEY, "a.b" int)`,
        `INSERT INTO ${odd} VALUES ('x', 1), ('y', 2)`,
        'CREATE TABLE log (day date, v int, PRIMARY KEY (day, v)) PARTITION BY RANGE (day)',
        `CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')`,
        `CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')`,
        `INSERT INTO log SELECT date '2026-01-01' + n, n FROM generate_series(0, 50) n`,
        'CREATE TABLE parent (v int)',
        'CREATE TABLE child () INHERITS (parent)',
        'INSERT INTO child VALUES (1)',
        'CREATE TABLE nothing ()',
        'INSERT INTO nothing DEFAULT VALUES',
      ],
      [
        `UPDATE ${odd} SET "a.b" = 3 WHERE "Schlüssel ""1""" = 'y'`,
        `UPDATE log SET day = '2026-02-27' WHERE v = 1`,
        'INSERT INTO child VALUES (2)',
        'INSERT INTO nothing DEFAULT VALUES',
      ],
    );
    expect(found).toEqual({
      '"Größe ""der"" Schäden"."weird \'table\' -- ;"': { updated: ['(y,3)'] },
      'public.child': { inserted: ['(2)'] },
      'public.log_1': { deleted: ['(2026-01-02,1)'] },
      'public.log_2': { inserted: ['(2026-02-27,1)'] },
      'public.nothing': { inserted: ['()'] },
    });
  });

  it('holds every type; values a migration makes are compared where one side has them as data', async () => {
    const found = await changes(
      [
        'CREATE TYPE pair AS (a int, b text)',
        `CREATE DOMAIN small AS int CHECK (VALUE < 100)`,
        `CREATE TABLE t (id int PRIMARY KEY, j json, k jsonb, f float8, n numeric, b bytea, r int4range, a text[], p pair, d small,
                         z timestamptz, i interval, m money, x "char", g int GENERATED ALWAYS AS (id * 2) STORED)`,
        `INSERT INTO t SELECT n, '{"a" : 1}', '{"a": 1}', n / 3.0, n / 3.0, '\\x00ff', '[1,5)', '{a,NULL,""}', '(1,x)', 5,
                now()::date, '1 day', 3, 'c' FROM generate_series(1, 60) n`,
      ],
      [
        `UPDATE t SET j = '{"a": 1}' WHERE id = 1`,
        `UPDATE t SET k = '{"a" :   1}' WHERE id = 2`,
        `UPDATE t SET f = f * (1 + 1e-15) WHERE id = 3`,
        `UPDATE t SET a = '{a,"",NULL}' WHERE id = 4`,
        `UPDATE t SET b = '\\x00fe' WHERE id = 5`,
      ],
    );
    expect(found['public.t']?.updated?.map((row) => row.split(',')[0])).toEqual(['(1', '(3', '(4', '(5']);
  });

  it('is one that may not be read: reported, and the others are compared all the same', async () => {
    const databases = await twoDatabases(
      [
        'CREATE TABLE closed (v int)',
        'CREATE TABLE guarded (v int)',
        'ALTER TABLE guarded ENABLE ROW LEVEL SECURITY',
        'CREATE TABLE open (v int)',
      ],
      ['INSERT INTO closed VALUES (1)', 'INSERT INTO guarded VALUES (1)', 'INSERT INTO open VALUES (1)'],
    );
    const role = await createRole(server, 'reader');
    const urls = Object.values(databases).map((url) => new URL(url).pathname.slice(1));
    for (const url of Object.values(databases)) await execute(url, `GRANT SELECT ON open, guarded TO ${role.name}`);
    const [production, copy] = urls.map((name) => databaseUrl(server, name, role));
    const { found, difference } = await compare({ production: production!, copy: copy! });
    expect(found).toEqual({ 'public.open': { inserted: ['(1)'] } });
    expect(difference.unknown).toEqual([
      'public.closed (cannot be read: SQLSTATE 42501)',
      'public.guarded (cannot be read: SQLSTATE 42501)',
    ]);
    for (const url of Object.values(databases)) await execute(url, `DROP OWNED BY ${role.name}`);
  });

  it('large objects are compared by their content', async () => {
    const { difference } = await compare(
      await twoDatabases(
        [
          `SELECT lo_from_bytea(5001, decode(repeat('ab', 2500000), 'hex'))`,
          `SELECT lo_from_bytea(9, 'small')`,
          `SELECT lo_from_bytea(10, '')`,
        ],
        [`SELECT lo_put(5001, 2400000, 'x')`, `SELECT lo_from_bytea(70000, 'new')`],
        [`SELECT lo_from_bytea(11, 'only here')`],
      ),
    );
    expect(difference.largeObjects).toEqual([
      { kind: 'deleted', place: '11' },
      { kind: 'updated', place: '5001' },
      { kind: 'inserted', place: '70000' },
    ]);
  });
});

describe('size', () => {
  it('three rows of 200,000 are found by reading few', async () => {
    const databases = await twoDatabases(
      [
        'CREATE TABLE t (id bigint PRIMARY KEY, v text)',
        `INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 200000) n`,
        'ANALYZE t',
      ],
      [`UPDATE t SET v = 'x' WHERE id = 77777`, 'DELETE FROM t WHERE id = 150000', `INSERT INTO t VALUES (0, 'y')`],
    );
    const { found, difference } = await compare(databases);
    expect(found).toEqual({
      'public.t': { inserted: ['(0,y)'], updated: ['(77777,x)'], deleted: [expect.stringMatching(/^\(150000,/)] },
    });
    expect(difference.changed[0]?.differing.buckets).toHaveLength(3);
    expect(difference.changed[0]?.differing.of).toBeGreaterThan(4000);
  });

  it('a table of which every row was rewritten is read to its end', async () => {
    const databases = await twoDatabases(
      ['CREATE TABLE t (id int PRIMARY KEY, v int)', `INSERT INTO t SELECT n, n FROM generate_series(1, 6000) n`],
      [
        'UPDATE t SET v = -v - 1',
        'DELETE FROM t WHERE id > 5990',
        'INSERT INTO t SELECT n, n FROM generate_series(7001, 7020) n',
      ],
    );
    const rows = (await compare(databases)).found['public.t'];
    expect([rows?.inserted?.length, rows?.updated?.length, rows?.deleted?.length]).toEqual([20, 5990, 10]);
  });
});

describe('against a naive comparison', () => {
  /** A generator with a seed: what failed once fails again. */
  const random = (seed: number) => () => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return seed / 2 ** 31;
  };

  it.each([11, 12, 13, 14])('finds what FULL OUTER JOIN and EXCEPT ALL find, seed %i', async (seed) => {
    const next = random(seed);
    const pick = (n: number): number => Math.floor(next() * n);
    const value = (): string => ['NULL', `''`, `'a'`, `'a,b'`, `'"'`, `E'\\\\'`, `'é'`, `' '`][pick(8)]!;
    const same = [
      'CREATE TABLE keyed (a int, b text, v text, w text, PRIMARY KEY (a, b))',
      'CREATE TABLE keyless (v text, w text)',
    ];
    for (let n = 0; n < 120; n += 1) {
      same.push(
        `INSERT INTO keyed VALUES (${pick(20)}, coalesce(${value()}, '-'), ${value()}, ${value()}) ON CONFLICT DO NOTHING`,
      );
      same.push(`INSERT INTO keyless VALUES (${value()}, ${value()})`);
    }
    const edits = (): string[] =>
      Array.from({ length: 40 }, () => {
        switch (pick(5)) {
          case 0:
            return `INSERT INTO keyed VALUES (${pick(25)}, coalesce(${value()}, '-'), ${value()}, ${value()}) ON CONFLICT DO NOTHING`;
          case 1:
            return `UPDATE keyed SET v = ${value()} WHERE a = ${pick(25)}`;
          case 2:
            return `DELETE FROM keyed WHERE a = ${pick(60)}`;
          case 3:
            return `INSERT INTO keyless VALUES (${value()}, ${value()})`;
          default:
            return `DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE v IS NOT DISTINCT FROM ${value()} LIMIT 2)`;
        }
      });
    const databases = await twoDatabases(same, edits(), edits());
    const { found } = await compare(databases);
    expect(found).toEqual(await naively(databases));
  });

  /** Both sides' rows side by side in one database, and SQL's own idea of their difference. */
  async function naively({ production, copy }: TwoDatabases): Promise<Found> {
    const scratch = await createDatabase(server, 'naive');
    for (const [schema, url] of Object.entries({ ours: production, theirs: copy })) {
      await execute(
        scratch.url,
        `CREATE SCHEMA ${schema}`,
        `CREATE TABLE ${schema}.keyed (a int, b text, v text, w text)`,
        `CREATE TABLE ${schema}.keyless (v text, w text)`,
      );
      for (const table of ['keyed', 'keyless']) {
        const rows = await query<{ json: unknown }>(url, `SELECT to_jsonb(t) AS json FROM ${table} t`);
        await query(
          scratch.url,
          `INSERT INTO ${schema}.${table} SELECT * FROM jsonb_populate_recordset(NULL::${schema}.${table}, $1::jsonb)`,
          [JSON.stringify(rows.map(({ json }) => json))],
        );
      }
    }
    const found: Found = {};
    const read = async (table: string, kind: 'inserted' | 'updated' | 'deleted', sql: string): Promise<void> => {
      const rows = await query<{ row: string }>(scratch.url, sql);
      if (rows.length > 0) (found[table] ??= {})[kind] = rows.map(({ row }) => row).sort();
    };
    const joined = 'ours.keyed o FULL OUTER JOIN theirs.keyed t ON o.a = t.a AND o.b = t.b';
    await read('public.keyed', 'inserted', `SELECT o::text AS row FROM ${joined} WHERE t.a IS NULL`);
    await read(
      'public.keyed',
      'updated',
      `SELECT o::text AS row FROM ${joined} WHERE o.a = t.a AND (o.v, o.w) IS DISTINCT FROM (t.v, t.w)`,
    );
    await read('public.keyed', 'deleted', `SELECT t::text AS row FROM ${joined} WHERE o.a IS NULL`);
    await read(
      'public.keyless',
      'inserted',
      'SELECT x::text AS row FROM (TABLE ours.keyless EXCEPT ALL TABLE theirs.keyless) x',
    );
    await read(
      'public.keyless',
      'deleted',
      'SELECT x::text AS row FROM (TABLE theirs.keyless EXCEPT ALL TABLE ours.keyless) x',
    );
    return found;
  }
});
