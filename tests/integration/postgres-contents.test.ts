import { beforeAll, describe, expect, it } from 'vitest';
import { exportSnapshot } from '../../src/archive/snapshot.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import {
  compareContents,
  type ContentsOptions,
  type DatabaseContents,
  readContents,
} from '../../src/postgres/contents/contents.ts';
import { hashPart, partsOf, readableTables, shapeOf } from '../../src/postgres/contents/contents-table.ts';
import { oneInSql, pinFormats } from '../../src/postgres/contents/row-hash.ts';
import { execute, majorOf, withClient } from '../postgres-service.ts';
import { restoredCopyOf } from '../restored-copy.ts';
import { createDatabase, createRole, databaseUrl, useStack } from '../stack.ts';

const server = useStack().postgres.primary;
const signal = new AbortController().signal;
const session = { runId: 'contents', step: 'test', signal };

const contentsOf = (url: string, options: Partial<ContentsOptions> = {}): Promise<DatabaseContents> =>
  withConnection(url, session, (client) => readContents([client], { sampleAbove: Infinity, ...options }));

/** Column types with values that are written in more than one way, or that a setting changes. */
const VALUES: readonly (readonly [type: string, ...values: readonly string[]])[] = [
  ['boolean', 'true', 'false'],
  ['smallint', '-1'],
  ['integer', '2147483647'],
  ['bigint', '-9223372036854775808'],
  ['real', '1.1', `'NaN'`, `'-0'`],
  ['double precision', '0.1', '1e-300', `'Infinity'::float8 - 'Infinity'::float8`, `'-0'`, '1.0/3'],
  ['numeric', '1.0', '1.00', `'NaN'`, `'-Infinity'`, '123456789012345678901234567890.123456789'],
  ['numeric(10,2)', '7'],
  ['money', '1234.5'],
  ['text', `''`, `'a''b"c\\d,e(f)'`, `E'line\\nbreak\\ttab'`, `'äöü€😀'`, `repeat('long ', 20000)`],
  ['varchar(20)', `'x '`],
  ['char(5)', `'a'`],
  ['bpchar', `'a  '`],
  ['name', `'n'`],
  ['"char"', `'c'`],
  ['bytea', `''`, `'\\x00ff5c27'`, `decode(repeat('ab', 100000), 'hex')`],
  ['date', `'2024-02-29'`, `'infinity'`, `'0044-03-15 BC'`],
  ['time', `'23:59:59.999999'`],
  ['timetz', `'12:00+05:30'`],
  ['timestamp', `'2024-01-01 00:00:00.000001'`, `'-infinity'`],
  ['timestamptz', `'2024-01-01 00:00:00+02'`, `'infinity'`],
  ['interval', `'1 day'`, `'24 hours'`, `'1 mon -1 day +00:00:01.5'`],
  ['uuid', 'gen_random_uuid()'],
  ['json', `'{"b": 1,   "a": [1.0, null], "b": 2}'`, `'"\\u00e4"'`],
  ['jsonb', `'{"b": 1, "a": [1.0, 1.00, null]}'`],
  ['inet', `'10.0.0.1/8'`, `'::1'`],
  ['cidr', `'10.0.0.0/8'`],
  ['macaddr', `'08:00:2b:01:02:03'`],
  ['point', `'(1.1,2)'`],
  ['polygon', `'((0,0),(1,1),(2,0))'`],
  ['bit(3)', `B'101'`],
  ['varbit', `B'10101'`],
  ['tsvector', `'a fat cat'::tsvector`],
  ['tsquery', `'fat & cat'::tsquery`],
  ['int[]', `'{1,2,NULL}'`, `'[0:1]={1,2}'`, `'{{1,2},{3,4}}'`, `'{}'`],
  ['text[]', `ARRAY['a', '', NULL, 'b,c', '"']`],
  ['timestamptz[]', `ARRAY['2024-01-01 00:00+00'::timestamptz]`],
  ['int4range', `'[1,5)'`, `'empty'`],
  ['tstzmultirange', `'{[2024-01-01 00:00+00, 2024-02-01 00:00+00)}'`],
  ['app.mood', `'calm'`],
  ['app.mood[]', `ARRAY['busy'::app.mood]`],
  ['app.pair', `ROW(1, 'x, "y"')`, 'ROW(NULL, NULL)'],
  ['app.whole', '42'],
  ['app.words', `ARRAY['a', 'b']`],
  ['app.span', `'[1.5, 2.5)'`],
  ['oid', '4294967295'],
  ['regclass', `'app.plain'`, `'"Odd.Name"'`],
  ['regtype', `'app.mood'`],
  ['regprocedure', `'app.f(int)'`],
  ['pg_lsn', `'16/B374D848'`],
  ['xid8', `'42'`],
  ['hstore', `'a=>1, b=>NULL'`],
  ['citext', `'Mixed'`],
];

const TYPES = [
  'CREATE EXTENSION hstore',
  'CREATE EXTENSION citext',
  'CREATE SCHEMA app',
  `CREATE TYPE app.mood AS ENUM ('busy', 'calm')`,
  'CREATE TYPE app.pair AS (a int, b text)',
  'CREATE DOMAIN app.whole AS bigint CHECK (value > 0)',
  'CREATE DOMAIN app.words AS text[]',
  'CREATE TYPE app.span AS RANGE (subtype = float8)',
  'CREATE TABLE app.plain (a int)',
  'CREATE TABLE "Odd.Name" (a int)',
  'CREATE FUNCTION app.f(int) RETURNS int LANGUAGE sql AS $$ SELECT $1 $$',
];

const tableOf = (index: number): string => `app.t${String(index).padStart(2, '0')}`;

describe('the contents of a database', () => {
  let original: string;
  let recorded: DatabaseContents;
  beforeAll(async () => {
    ({ url: original } = await createDatabase(server, 'contents'));
    await execute(
      original,
      ...TYPES,
      ...VALUES.flatMap(([type, ...values], index) => [
        `CREATE TABLE ${tableOf(index)} (id int GENERATED ALWAYS AS IDENTITY, v ${type})`,
        ...['NULL', ...values].map((value) => `INSERT INTO ${tableOf(index)} (v) SELECT (${value})::${type}`),
      ]),
    );
    recorded = await contentsOf(original);
  });

  it('are equal after a dump and restore, whatever the type of a column', async () => {
    const copy = await restoredCopyOf(server, original);
    // Sessions of other habits.
    await execute(
      copy,
      `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database());
         EXECUTE format('ALTER DATABASE %I SET DateStyle = ''SQL, DMY''', current_database());
         EXECUTE format('ALTER DATABASE %I SET IntervalStyle = ''iso_8601''', current_database());
         EXECUTE format('ALTER DATABASE %I SET extra_float_digits = -5', current_database());
         EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database());
         EXECUTE format('ALTER DATABASE %I SET search_path = app, public', current_database()); END $$`,
    );
    const found = await withClient(copy, (client) => readContents([client], { sampleAbove: Infinity, like: recorded }));
    expect(compareContents(recorded, found)).toEqual([]);
    expect(found.tables.length).toBe(VALUES.length + 2);
    expect(found.tables.find(({ table }) => table === tableOf(0))).toMatchObject({ rows: 3, columns: ['id', 'v'] });
  });

  it('tell every value of a type from every other and from NULL', async () => {
    const same: string[] = [];
    await withClient(original, async (client) => {
      await pinFormats(client);
      const tables = new Map((await readableTables(client)).map((table) => [table.name, table]));
      for (const [index, [type, ...values]] of VALUES.entries()) {
        const source = tables.get(tableOf(index).slice('app.'.length))!;
        const shape = shapeOf(
          { ...source, columns: source.columns.filter(({ name }) => name === 'v') },
          { sampleAbove: Infinity, like: undefined },
        );
        const sums = new Set<string>();
        for (let row = 1; row <= values.length + 1; row += 1) {
          await client.query('BEGIN');
          await client.query(`DELETE FROM ${tableOf(index)} WHERE id <> ${row}`);
          for (const part of partsOf(shape)) sums.add((await hashPart(client, part)).checksum);
          await client.query('ROLLBACK');
        }
        if (sums.size !== values.length + 1) same.push(type);
      }
    });
    expect(same).toEqual([]);
  });

  it('are the same for one session and for several, which share the tables and the parts of large ones', async () => {
    const together = await withConnection(original, session, (first) =>
      withConnection(original, session, (second) => readContents([first, second], { sampleAbove: Infinity })),
    );
    expect(compareContents(recorded, together)).toEqual([]);
  });
});

describe('a checksum', () => {
  const statements = [
    'CREATE TABLE t (a int, b text, c int)',
    `INSERT INTO t SELECT n, 'row ' || n, n % 3 FROM generate_series(1, 100) n`,
    `INSERT INTO t VALUES (1000, '', 5), (1001, NULL, 5)`,
  ];

  const findingsAfter = async (...change: readonly string[]): Promise<readonly string[]> => {
    const { url } = await createDatabase(server, 'sum');
    await execute(url, ...statements);
    const before = await contentsOf(url);
    await execute(url, ...change);
    return compareContents(before, await contentsOf(url, { like: before }));
  };
  const OTHER_ROWS = ['table public.t: 102 rows in both, but not the same ones'];

  it.each([
    ['a single changed value', [`UPDATE t SET b = 'row 7.' WHERE a = 7`]],
    ['NULL in place of the empty string', ['UPDATE t SET b = NULL WHERE a = 1000']],
    ['the empty string in place of NULL', [`UPDATE t SET b = '' WHERE a = 1001`]],
    [
      'values swapped between two rows',
      [`UPDATE t SET b = CASE a WHEN 1 THEN 'row 2' ELSE 'row 1' END WHERE a IN (1, 2)`],
    ],
    ['values swapped between two columns of one row', ['UPDATE t SET a = c, c = a WHERE a = 50']],
    ['a row doubled and another deleted', ['INSERT INTO t SELECT * FROM t WHERE a = 1', 'DELETE FROM t WHERE a = 2']],
    [
      'two pairs of equal rows in place of four different ones',
      ['DELETE FROM t WHERE a IN (1, 2, 3, 4)', ...[1, 1, 2, 2].map((a) => `INSERT INTO t VALUES (${a}, 'x', 0)`)],
    ],
  ])('notices %s', async (_, change) => {
    expect(await findingsAfter(...change)).toEqual(OTHER_ROWS);
  });

  it('does not depend on the order of rows or columns', async () => {
    const [one, other] = [await createDatabase(server, 'sum'), await createDatabase(server, 'sum')];
    await execute(one.url, 'CREATE TABLE t (a int, b text)', `INSERT INTO t VALUES (1, 'x'), (2, 'y'), (2, 'y')`);
    await execute(other.url, 'CREATE TABLE t (b text, a int)', `INSERT INTO t VALUES ('y', 2), ('x', 1), ('y', 2)`);
    const recorded = await contentsOf(one.url);
    expect(compareContents(recorded, await contentsOf(other.url, { like: recorded }))).toEqual([]);
  });

  it('notices added and removed rows, tables and columns, and says which', async () => {
    expect(await findingsAfter('DELETE FROM t WHERE a = 1')).toEqual([
      'table public.t: 102 rows recorded, 101 rows found',
    ]);
    expect(await findingsAfter('CREATE TABLE u (a int)', 'INSERT INTO u VALUES (1)')).toEqual([
      'table public.u: not recorded, found with 1 row',
    ]);
    expect(await findingsAfter('DROP TABLE t')).toEqual(['table public.t: recorded with 102 rows, not found']);
    expect(await findingsAfter('ALTER TABLE t DROP COLUMN c')).toEqual([
      'table public.t: columns a, b, c recorded, a, b found',
    ]);
  });

  it('leaves out generated columns, materialized views, foreign tables and partitioned parents', async () => {
    const { url } = await createDatabase(server, 'sum');
    const virtual = (await majorOf(server)) >= 18 ? ', thrice int GENERATED ALWAYS AS (a * 3) VIRTUAL' : '';
    await execute(
      url,
      `CREATE TABLE g (a int, twice int GENERATED ALWAYS AS (a * 2) STORED${virtual})`,
      'INSERT INTO g VALUES (1)',
      'CREATE MATERIALIZED VIEW m AS SELECT a FROM g',
      'CREATE FOREIGN DATA WRAPPER w',
      'CREATE SERVER s FOREIGN DATA WRAPPER w',
      'CREATE FOREIGN TABLE f (a int) SERVER s',
      'CREATE TABLE p (a int) PARTITION BY RANGE (a)',
      'CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)',
      'INSERT INTO p VALUES (1), (2)',
      'CREATE TABLE parent (a int)',
      'CREATE TABLE child () INHERITS (parent)',
      'INSERT INTO parent VALUES (1)',
      'INSERT INTO child VALUES (2), (3)',
      'CREATE UNLOGGED TABLE u ()',
    );
    const { tables } = await contentsOf(url);
    expect(tables.map(({ table, rows, columns }) => [table, rows, columns])).toEqual([
      ['public.child', 2, ['a']],
      ['public.g', 1, ['a']],
      ['public.p1', 2, ['a']],
      ['public.parent', 1, ['a']],
      ['public.u', 0, []],
    ]);
  });
});

describe('reading', () => {
  it('fails rather than leave out rows that a policy hides', async () => {
    const { name, url } = await createDatabase(server);
    const reader = await createRole(server, 'reader');
    await execute(
      url,
      'CREATE TABLE t (a int)',
      'INSERT INTO t VALUES (1), (2)',
      'ALTER TABLE t ENABLE ROW LEVEL SECURITY',
      'CREATE POLICY p ON t USING (a = 1)',
      `GRANT SELECT ON t TO ${reader.name}`,
    );
    await expect(contentsOf(databaseUrl(server, name, reader))).rejects.toThrow(/row-level security/);
  });

  it('shows a snapshot as it was, although a table was changed since and somebody waits to empty another', async () => {
    const { url } = await createDatabase(server);
    await execute(url, 'CREATE TABLE t (a int)', 'INSERT INTO t VALUES (1), (2)', 'CREATE TABLE u AS SELECT 1 AS a');
    const before = await contentsOf(url);
    await withConnection(url, { ...session, idleTimeout: 0 }, async (exporting) => {
      const snapshot = await exportSnapshot(exporting, signal);
      await withConnection(url, session, async (importing) => {
        await importing.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
        await importing.query(`SET TRANSACTION SNAPSHOT '${snapshot.id}'`);
        await execute(url, 'INSERT INTO t VALUES (3)', 'UPDATE t SET a = 9 WHERE a = 1');
        // TRUNCATE is not under MVCC: it would empty the table for this snapshot too, were it not locked.
        await expect(execute(url, `SET lock_timeout = '300ms'`, 'TRUNCATE u')).rejects.toThrow('lock timeout');
        const found = await readContents([exporting, importing], { sampleAbove: Infinity });
        expect(compareContents(before, found)).toEqual([]);
      });
    });
    expect(compareContents(before, await contentsOf(url))).toEqual(['table public.t: 2 rows recorded, 3 rows found']);
  });

  it('ends with the first failure', async () => {
    const { url } = await createDatabase(server);
    await execute(
      url,
      'CREATE FUNCTION broken(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE division_by_zero; END $$',
      ...[1, 2, 3].map((n) => `CREATE TABLE t${n} AS SELECT 1 AS a`),
    );
    const role = await createRole(server, 'reader');
    const failing = withConnection(databaseUrl(server, new URL(url).pathname.slice(1), role), session, (client) =>
      readContents([client], { sampleAbove: Infinity }),
    );
    await expect(failing).rejects.toThrow(/permission denied for table t\d/);
  });
});

describe('a sample', () => {
  const ROWS = 20_000;
  let original: string;
  let recorded: DatabaseContents;
  beforeAll(async () => {
    ({ url: original } = await createDatabase(server, 'sample'));
    await execute(
      original,
      'CREATE TABLE keyed (id bigint PRIMARY KEY, body text)',
      `INSERT INTO keyed SELECT n, repeat('x', 100) || n FROM generate_series(1, ${ROWS}) n`,
      'CREATE TABLE unkeyed (a int, b text)',
      `INSERT INTO unkeyed SELECT n, repeat('y', 100) FROM generate_series(1, ${ROWS}) n`,
      'CREATE TABLE texts (b text, c text)',
      `INSERT INTO texts SELECT repeat('z', 100), n FROM generate_series(1, ${ROWS}) n`,
      'CREATE TABLE pairs (kind boolean, n int, b text, PRIMARY KEY (kind, n))',
      `INSERT INTO pairs SELECT n % 2 = 0, n, repeat('z', 100) FROM generate_series(1, ${ROWS}) n`,
      'CREATE TABLE small (a int)',
    );
    recorded = await contentsOf(original, { sampleAbove: 300_000 });
  });
  const sampleOf = (table: string) => recorded.tables.find((entry) => entry.table === `public.${table}`)!;

  it('is taken of large tables only, by key where there is one, and marked', () => {
    expect(sampleOf('small').sample).toEqual({ kind: 'all' });
    expect(sampleOf('keyed').sample).toMatchObject({ kind: 'one-in', by: ['id'] });
    expect(sampleOf('unkeyed').sample).toMatchObject({ kind: 'one-in', by: ['a'] });
    expect(sampleOf('texts').sample).toMatchObject({ kind: 'one-in', by: ['b', 'c'] });
    expect(sampleOf('keyed').rows).toBe(ROWS);
  });

  it('picks the same rows after a dump and restore', async () => {
    const copy = await restoredCopyOf(server, original);
    await execute(copy, 'VACUUM FULL keyed', 'CLUSTER keyed USING keyed_pkey');
    expect(compareContents(recorded, await contentsOf(copy, { like: recorded }))).toEqual([]);
  });

  it('has about one row in n, of every kind', async () => {
    await withClient(original, async (client) => {
      const { rows } = await client.query<{ kind: boolean; rows: number }>(
        `SELECT kind, count(*)::int AS rows FROM pairs t
         WHERE ${oneInSql(
           't',
           [
             { name: 'kind', type: 'bool' },
             { name: 'n', type: 'int4' },
           ],
           31,
         )} GROUP BY kind`,
      );
      for (const kind of [true, false]) {
        const picked = rows.find((row) => row.kind === kind)?.rows ?? 0;
        expect(picked).toBeGreaterThan(ROWS / 2 / 31 / 1.5);
        expect(picked).toBeLessThan((ROWS / 2 / 31) * 1.5);
      }
    });
  });

  it('notices a change of many rows, and counts all', async () => {
    const copy = await restoredCopyOf(server, original);
    await execute(
      copy,
      `UPDATE keyed SET body = body || '.' WHERE id % 5 = 0`,
      'DELETE FROM texts WHERE c = (SELECT min(c) FROM texts)',
    );
    expect(compareContents(recorded, await contentsOf(copy, { like: recorded }))).toEqual([
      `table public.keyed: ${ROWS} rows in both, but not the same ones`,
      `table public.texts: ${ROWS} rows recorded, ${ROWS - 1} rows found`,
    ]);
  });

  it('that picked other rows proves nothing, which is said', async () => {
    const other = await contentsOf(original, { sampleAbove: 600_000 });
    expect(compareContents(recorded, other)).toContain(
      'table public.keyed: other rows were sampled than were recorded, so its checksum proves nothing',
    );
  });
});

describe('large objects', () => {
  const PAGE = 1024 ** 2;

  it('are read by a role that owns none of them, page by page, and compared with their rights', async () => {
    const { name, url } = await createDatabase(server, 'lo');
    const reader = await createRole(server, 'reader');
    await execute(
      url,
      `SELECT lo_from_bytea(40001, '')`,
      `SELECT lo_from_bytea(40002, '\\x00ff')`,
      // Exactly a page, and a little more than two.
      `SELECT lo_from_bytea(40003, decode(repeat('ab', ${PAGE}), 'hex'))`,
      `SELECT lo_from_bytea(40004, decode(repeat('cd', ${2 * PAGE + 5}), 'hex'))`,
      // With a hole in it.
      'SELECT lo_create(40005)',
      `SELECT lo_put(40005, 3000000, 'end')`,
      `COMMENT ON LARGE OBJECT 40002 IS 'two bytes'`,
      ...[1, 2, 3, 4, 5].map((n) => `GRANT SELECT ON LARGE OBJECT 4000${n} TO ${reader.name}`),
    );
    const recorded = await contentsOf(databaseUrl(server, name, reader));
    expect(recorded.largeObjects).toMatchObject({ count: 5, sample: { kind: 'all' } });
    const copy = await restoredCopyOf(server, url);
    expect(compareContents(recorded, await contentsOf(copy, { like: recorded }))).toEqual([]);

    const after = async (...change: readonly string[]): Promise<readonly string[]> => {
      await execute(copy, ...change);
      return compareContents(recorded, await contentsOf(copy, { like: recorded }));
    };
    const NOT_THE_SAME = 'large objects: as many as recorded, but not the same contents';
    expect(await after(`SELECT lo_put(40004, ${2 * PAGE + 2}, '\\x00')`)).toEqual([NOT_THE_SAME]);
    expect(await after(`SELECT lo_put(40004, ${2 * PAGE + 2}, '\\xcd')`)).toEqual([]);
    expect(await after(`SELECT lo_put(40001, 0, '\\x00')`)).toEqual([NOT_THE_SAME]);
    expect(await after('SELECT lo_unlink(40001)', `SELECT lo_from_bytea(40009, '')`)).toEqual(
      expect.arrayContaining([NOT_THE_SAME]),
    );
    expect(await after('SELECT lo_unlink(40009)')).toEqual(['large objects: 5 recorded, 4 found']);
    expect(
      await after(
        `SELECT lo_from_bytea(40001, '')`,
        `GRANT SELECT ON LARGE OBJECT 40001 TO ${reader.name}`,
        `COMMENT ON LARGE OBJECT 40002 IS 'two'`,
      ),
    ).toEqual(['large objects: not the same owners, rights or comments']);
  });

  it('are sampled by object where there is too much of them', async () => {
    const { url } = await createDatabase(server, 'lo');
    await execute(
      url,
      `SELECT lo_from_bytea(50000 + n, decode(repeat('ab', 3000), 'hex')) FROM generate_series(1, 1200) n`,
    );
    const recorded = await contentsOf(url, { sampleAbove: 1_000_000 });
    expect(recorded.largeObjects).toMatchObject({ count: 1200, sample: { kind: 'one-in' } });
    expect(recorded.largeObjects.checksum).not.toBe('0');
    const copy = await restoredCopyOf(server, url);
    expect(compareContents(recorded, await contentsOf(copy, { like: recorded }))).toEqual([]);
    await execute(copy, `SELECT lo_put(50000 + n, 1, '\\x00') FROM generate_series(1, 1200, 3) n`);
    expect(compareContents(recorded, await contentsOf(copy, { like: recorded }))).toEqual([
      'large objects: as many as recorded, but not the same contents',
    ]);
  });
});
