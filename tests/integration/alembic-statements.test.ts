import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { serviceEnvironment } from '../../src/alembic/service-url.ts';
import type { StatementEvent } from '../../src/alembic/statements.ts';
import { type UpgradeOptions, upgrade } from '../../src/alembic/upgrade.ts';
import { parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { createService, type Revision } from '../fixtures/alembic/service.ts';
import { createDatabase, createRole, databaseUrl, useStack } from '../stack.ts';

const stack = useStack();
const primary = stack.postgres.primary;
const eachItsOwn = { TRANSACTION_PER_MIGRATION: 'yes' };
const drivers = ['postgresql+psycopg2', 'postgresql+psycopg', 'postgresql+asyncpg'] as const;
type Driver = (typeof drivers)[number];
type Statement = Extract<StatementEvent, { event: 'statement' }>;

const timeouts = { lock: 3_000, concurrentLock: 20_000, statement: 60_000, concurrentStatement: 0 };
/** What is in force while a statement runs, written down by the statement. */
const recorded = (label: string): string =>
  `op.execute("INSERT INTO seen SELECT '${label}', current_setting('lock_timeout'), current_setting('statement_timeout')")`;
const recording = 'op.execute("CREATE TABLE seen (label text, lock text, statement text)")';

async function service(revisions: readonly Revision[], driver: Driver = 'postgresql+psycopg') {
  const [{ root }, { url, name }] = await Promise.all([createService(revisions), createDatabase(primary)]);
  if (driver === 'postgresql+asyncpg') {
    await copyFile(new URL('../fixtures/alembic/async_env.py', import.meta.url), join(root, 'migrations', 'env.py'));
  }
  const events: StatementEvent[] = [];
  const environment = serviceEnvironment(parseConnectionUrl(url), { urlVariable: 'DATABASE_URL', urlScheme: driver });
  const options: Omit<UpgradeOptions, 'target'> = {
    python: stack.venv.python,
    directory: root,
    config: 'alembic.ini',
    environment,
    signal: new AbortController().signal,
    redactor: createRedactor([url]),
    onStatement: (event) => events.push(event),
  };
  return {
    root,
    url,
    name,
    options,
    environment,
    events,
    statements: () => events.filter((event): event is Statement => event.event === 'statement'),
    of: (revision: string) =>
      events.filter((event): event is Statement => event.event === 'statement' && event.revision === revision),
    seen: () =>
      withClient(url, async (client) => {
        const { rows } = await client.query<{ label: string; lock: string; statement: string }>('SELECT * FROM seen');
        return Object.fromEntries(rows.map(({ label, lock, statement }) => [label, [lock, statement]]));
      }),
  };
}

const succeeded = { result: { kind: 'exited', code: 0, stderrTail: '' }, reporter: { kind: 'loaded' }, notes: [] };

describe.each(drivers)('with %s', (driver) => {
  test('every statement is told with its revision, class, rows and transaction, and nothing that may be secret', async () => {
    const { options, of, events, statements } = await service(
      [
        {
          id: 'r1',
          upgrade: `t = op.create_table("items", sa.Column("id", sa.Integer()), sa.Column("name", sa.Text()))
op.execute("INSERT INTO items VALUES (1, 's3cret-literal'), (2, $$s3cret-dollars$$)")
op.bulk_insert(t, [{"id": 3, "name": "s3cret-parameter"}, {"id": 4, "name": "s3cret-parameter"}])
op.execute(sa.text("UPDATE items SET name = :name WHERE id > 1").bindparams(name="s3cret-parameter"))`,
        },
        {
          id: 'r2',
          down: '"r1"',
          upgrade:
            'with op.get_context().autocommit_block():\n    op.create_index("ix", "items", ["id"], postgresql_concurrently=True)',
        },
        { id: 'r3', down: '"r2"', upgrade: 'op.add_column("items", sa.Column("age", sa.Integer()))' },
      ],
      driver,
    );
    const facts = await upgrade({ ...options, environment: { ...options.environment, ...eachItsOwn }, target: 'r3' });
    expect(facts).toMatchObject(succeeded);
    expect(of('r1').map((told) => [told.class, told.rows])).toEqual([
      ['exclusive', null],
      ['rows', 2],
      ['rows', driver === 'postgresql+asyncpg' ? null : 2],
      ['rows', 3],
      ['rows', 1],
    ]);
    expect(of('r1')[1]?.statement).toBe("INSERT INTO items VALUES (1, '?'), (2, '?')");
    expect(of('r2')).toMatchObject([
      { class: 'concurrent', statement: 'CREATE INDEX CONCURRENTLY ix ON items (id)' },
      {},
    ]);
    expect(of('r3')).toMatchObject([{ class: 'exclusive', statement: 'ALTER TABLE items ADD COLUMN age INTEGER' }, {}]);
    expect(JSON.stringify([events, facts])).not.toContain('s3cret');

    const transactions = (revision: string): readonly number[] => [
      ...new Set(of(revision).map((told) => told.transaction)),
    ];
    expect(transactions('r1')).toHaveLength(1);
    // The index is built in a transaction of its own, the version row is written in another.
    expect(transactions('r2')).toHaveLength(2);
    expect(new Set(['r1', 'r2', 'r3'].flatMap(transactions)).size).toBe(4);
    const ended = events.flatMap((event) => (event.event === 'transaction-end' ? [event.transaction] : []));
    expect(new Set(ended)).toEqual(new Set(statements().map((told) => told.transaction)));
    for (const [index, told] of events.entries()) {
      if (told.event !== 'statement') continue;
      expect(events[index - 1]).toMatchObject({ event: 'statement-start', statement: told.statement });
    }
  });

  test('limits are in force by class, also after a transaction or a savepoint was taken back', async () => {
    const { options, seen } = await service(
      [
        {
          id: 'r1',
          upgrade: `${recording}
${recorded('rows')}
op.execute("CREATE TABLE seen_by_ddl AS SELECT current_setting('lock_timeout') AS lock")
op.execute("""CREATE FUNCTION expect(wanted text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
  BEGIN
    IF current_setting('lock_timeout') <> wanted THEN RAISE 'lock_timeout is %', current_setting('lock_timeout'); END IF;
    RETURN 1;
  END $$""")`,
        },
        {
          id: 'r2',
          down: '"r1"',
          upgrade: `with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY ix ON seen (expect('20s'))")
    op.execute("DROP INDEX CONCURRENTLY ix")
    ${recorded('autocommit')}
${recorded('after')}
op.execute("SET LOCAL search_path = public")
try:
    with op.get_bind().begin_nested():
        op.execute("SELECT 1/0")
except sa.exc.DBAPIError:
    pass
${recorded('savepoint')}`,
        },
      ],
      driver,
    );
    const facts = await upgrade({ ...options, timeouts, target: 'r2' });
    expect(facts).toMatchObject(succeeded);
    expect(await seen()).toEqual({
      rows: ['3s', '1min'],
      autocommit: ['3s', '1min'],
      after: ['3s', '1min'],
      savepoint: ['3s', '1min'],
    });
  });

  test('a statement that waits too long for a lock fails the command, which says so', async () => {
    const { options, url, of } = await service(
      [
        { id: 'r1', upgrade: 'op.execute("CREATE TABLE busy (id int)")' },
        { id: 'r2', down: '"r1"', upgrade: 'op.execute("ALTER TABLE busy ADD COLUMN more int")' },
      ],
      driver,
    );
    await upgrade({ ...options, target: 'r1' });
    const facts = await withClient(url, async (client) => {
      await client.query('BEGIN; SELECT * FROM busy');
      return upgrade({ ...options, timeouts: { ...timeouts, lock: 200 }, target: 'r2' });
    });
    expect(facts).toMatchObject({ failedOn: 'lock-timeout', result: { kind: 'exited', code: 1 } });
    expect(of('r2')).toMatchObject([{ sqlstate: '55P03', class: 'exclusive', rows: null }]);
  });

  test('locks are those held after each statement, by the names of the object map', async () => {
    const { options, url, of } = await service(
      [
        {
          id: 'r1',
          upgrade: `op.execute("SELECT count(*) FROM \\"Shop\\".\\"Old items\\"")
op.execute("DROP TABLE gone")
op.execute("ALTER TABLE plain RENAME TO renamed")
op.execute("INSERT INTO renamed VALUES (1)")
op.execute("INSERT INTO renamed VALUES (1)")`,
        },
      ],
      driver,
    );
    await withClient(url, (client) =>
      client.query(
        'CREATE SCHEMA "Shop"; CREATE TABLE "Shop"."Old items" (id int); CREATE TABLE gone (id int); CREATE TABLE plain (id int)',
      ),
    );
    const facts = await upgrade({ ...options, traceLocks: 'after-each-statement', target: 'r1' });
    expect(facts).toMatchObject(succeeded);
    const locks = of('r1').map((told) =>
      told.locks
        ?.filter(({ relation }) => !relation.includes('alembic_version'))
        .map(({ relation, mode }) => `${relation} ${mode}`),
    );
    const read = ['"Shop"."Old items" AccessShareLock'];
    const dropped = [...read, 'public.gone AccessExclusiveLock'];
    const renamed = [...dropped, 'public.plain AccessExclusiveLock'];
    const written = [...renamed, 'public.plain RowExclusiveLock'];
    expect(locks.slice(0, 5)).toEqual([read, dropped, renamed, written, written]);
  });
});
