import { describe, expect, test } from 'vitest';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { upgrade } from '../../src/alembic/upgrade.ts';
import { drivers, eachItsOwn, recorded, recording, reportedService as service, succeeded } from './alembic-service.ts';
import { createRole, databaseUrl, useStack } from '../stack.ts';

const { primary } = useStack().postgres;
const timeouts = { lock: 3_000, concurrentLock: 20_000, statement: 60_000, concurrentStatement: 0 };
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
        {
          id: 'r3',
          down: '"r2"',
          upgrade: `with op.get_context().autocommit_block():
    op.execute("ALTER TABLE seen ADD CONSTRAINT apart CHECK (expect('20s') = 1) NOT VALID")
    op.execute("ALTER TABLE seen VALIDATE CONSTRAINT apart")
    op.execute("ALTER TABLE seen DROP CONSTRAINT apart")
op.execute("ALTER TABLE seen ADD CONSTRAINT behind CHECK (expect('3s') = 1) NOT VALID")
op.execute("ALTER TABLE seen VALIDATE CONSTRAINT behind")
op.execute("ALTER TABLE seen DROP CONSTRAINT behind")`,
        },
      ],
      driver,
    );
    const facts = await upgrade({ ...options, timeouts, target: 'r3' });
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

describe('a service that sets a limit itself', () => {
  const two = (own: string): readonly Parameters<typeof service>[0][number][] => [
    { id: 'r1', upgrade: `${recording}\n${own}\n${recorded('own')}` },
    { id: 'r2', down: '"r1"', upgrade: recorded('later') },
  ];

  test.each([
    [
      'for its transaction',
      'op.execute("SET LOCAL lock_timeout = \'7s\'")',
      ['7s', '1min'],
      ['3s', '1min'],
      'transaction',
    ],
    [
      'by a function',
      `op.execute("SELECT set_config('lock_timeout', '7s', true)")`,
      ['7s', '1min'],
      ['3s', '1min'],
      'transaction',
    ],
    [
      'by a function with parameters',
      `op.get_bind().execute(sa.text("SELECT set_config(:name, '7s', false)"), {"name": "lock_timeout"})`,
      ['7s', '1min'],
      ['7s', '1min'],
      'session',
    ],
    ['for its session', 'op.execute("SET statement_timeout TO \'9s\'")', ['3s', '9s'], ['3s', '9s'], 'session'],
    [
      'in a block of code',
      'op.execute("DO $$ BEGIN SET lock_timeout = \'7s\'; END $$")',
      ['7s', '1min'],
      ['7s', '1min'],
      'session',
    ],
  ])('keeps it, %s, and it is noted', async (_how, own, inRevision, later, scope) => {
    const { options, seen } = await service(two(own));
    const facts = await upgrade({
      ...options,
      environment: { ...options.environment, ...eachItsOwn },
      timeouts,
      target: 'r2',
    });
    expect(facts).toMatchObject({
      result: { code: 0 },
      notes: [expect.stringMatching(`by revision r1 itself, for its ${scope}`)],
    });
    expect(await seen()).toEqual({ own: inRevision, later });
  });

  test('gets ours again after it has set its own back', async () => {
    const { options, seen } = await service(
      two(`op.execute("SET lock_timeout = '7s'")\n${recorded('set')}\nop.execute("RESET lock_timeout")`),
    );
    await upgrade({ ...options, timeouts, target: 'r1' });
    expect(await seen()).toEqual({ set: ['7s', '1min'], own: ['3s', '1min'] });
  });

  test('gets ours again when the savepoint is taken back behind which it set its own', async () => {
    const taken = (label: string, before: string, inside: string) => `${before}
nested = op.get_bind().begin_nested()
${inside}
nested.rollback()
${recorded(label)}`;
    const { options, seen } = await service(
      two(
        `${taken('inside', 'pass', `op.execute("SET lock_timeout = '7s'")`)}
${taken('before', `op.execute("SET LOCAL statement_timeout = '9s'")`, 'op.execute("SELECT 1")')}`,
      ),
    );
    await upgrade({ ...options, timeouts, target: 'r1' });
    expect(await seen()).toEqual({ inside: ['3s', '1min'], before: ['3s', '9s'], own: ['3s', '9s'] });
  });

  test('keeps it when it is an option of its connections', async () => {
    const { options, seen } = await service(two('pass'));
    const environment = { ...options.environment, PGOPTIONS: '-c lock_timeout=7s' };
    const facts = await upgrade({ ...options, environment, timeouts, target: 'r1' });
    expect(facts).toMatchObject({
      result: { code: 0 },
      notes: [expect.stringMatching('lock_timeout is set by the service')],
    });
    expect(await seen()).toEqual({ own: ['7s', '1min'] });
  });

  test('gets none of ours where none are asked for', async () => {
    const { options, seen } = await service(two('pass'));
    await upgrade({ ...options, target: 'r2' });
    expect(await seen()).toEqual({ own: ['0', '0'], later: ['0', '0'] });
  });
});

describe('the end of a command', () => {
  test('by a statement time limit is told from a cancel', async () => {
    const sleeping = [{ id: 'r1', upgrade: 'op.execute("SELECT pg_sleep(60)")' }];
    const [limited, cancelled] = await Promise.all([service(sleeping), service(sleeping)]);
    const byLimit = await upgrade({ ...limited.options, timeouts: { ...timeouts, statement: 300 }, target: 'r1' });
    expect(byLimit.failedOn).toBe('statement-timeout');
    expect(limited.of('r1')).toMatchObject([{ sqlstate: '57014', class: 'rows' }]);

    const running = upgrade({ ...cancelled.options, timeouts, target: 'r1' });
    await expect
      .poll(
        () =>
          withClient(cancelled.url, async (client) => {
            const { rowCount } = await client.query(
              `SELECT pg_cancel_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND query = 'SELECT pg_sleep(60)' AND state = 'active'`,
            );
            return rowCount;
          }),
        { timeout: 30_000 },
      )
      .toBe(1);
    expect(await running).toMatchObject({ result: { code: 1 } });
    expect((await running).failedOn).toBeUndefined();
    expect(cancelled.of('r1')).toMatchObject([{ sqlstate: '57014' }]);
  });

  test('is no failure on a limit that the migration itself got over', async () => {
    const { options, url, of } = await service([
      {
        id: 'r1',
        upgrade: `try:
    with op.get_bind().begin_nested():
        op.execute("LOCK TABLE busy")
except sa.exc.OperationalError:
    op.execute("CREATE TABLE instead (id int)")`,
      },
    ]);
    const facts = await withClient(url, async (client) => {
      await client.query('CREATE TABLE busy (id int)');
      await client.query('BEGIN; LOCK TABLE busy');
      return upgrade({ ...options, timeouts: { ...timeouts, lock: 200 }, target: 'r1' });
    });
    expect(facts).toMatchObject(succeeded);
    expect(facts.failedOn).toBeUndefined();
    expect(of('r1').map((told) => told.sqlstate ?? told.statement)).toContain('55P03');
  });

  test('by something else than a limit, after it had got over one, is told apart', async () => {
    const { options, url } = await service([
      {
        id: 'r1',
        upgrade: `try:
    with op.get_bind().begin_nested():
        op.execute("LOCK TABLE busy")
except sa.exc.OperationalError:
    op.execute("CREATE TABLE instead (id int)")
raise ValueError("a bug of the revision")`,
      },
    ]);
    const facts = await withClient(url, async (client) => {
      await client.query('CREATE TABLE busy (id int)');
      await client.query('BEGIN; LOCK TABLE busy');
      return upgrade({ ...options, timeouts: { ...timeouts, lock: 200 }, target: 'r1' });
    });
    expect(facts.result).toMatchObject({ kind: 'exited', code: 1 });
    expect(facts.failedOn).toBeUndefined();
  });

  test('by a constraint that is checked at the commit is told', async () => {
    const { options, statements } = await service([
      {
        id: 'r1',
        upgrade: `op.execute("CREATE TABLE parent (id int PRIMARY KEY)")
op.execute("CREATE TABLE child (parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
op.execute("INSERT INTO child VALUES (1)")`,
      },
    ]);
    const facts = await upgrade({ ...options, target: 'r1' });
    expect(facts.result).toMatchObject({ code: 1 });
    expect(statements().at(-1)).toMatchObject({ statement: 'COMMIT', sqlstate: '23503' });
  });
});

describe('what goes wrong in our part does not reach the migration', () => {
  test('when the catalog may not be read', async () => {
    const { options, url, environment, of, name } = await service([
      { id: 'r1', upgrade: 'op.execute("CREATE TABLE one (id int)")\nop.execute("INSERT INTO one VALUES (1)")' },
    ]);
    const role = await createRole(primary);
    await withClient(url, (client) =>
      client.query(`REVOKE SELECT ON pg_locks, pg_settings FROM PUBLIC; GRANT ALL ON SCHEMA public TO ${role.name}`),
    );
    const DATABASE_URL = databaseUrl(primary, name, role).replace(/^postgres(ql)?:/, 'postgresql+psycopg:');
    const facts = await upgrade({
      ...options,
      environment: { ...environment, DATABASE_URL },
      timeouts,
      traceLocks: 'after-each-statement',
      target: 'r1',
    });
    expect(facts).toMatchObject({ result: { code: 0 }, reporter: { kind: 'loaded' } });
    expect(facts.notes).toEqual([
      expect.stringMatching('setting limits.*pg_settings'),
      expect.stringMatching('reading the locks.*pg_locks'),
    ]);
    expect(of('r1').map((told) => told.locks)).toEqual([undefined, undefined, undefined]);
    await withClient(url, (client) => client.query(`DROP OWNED BY ${role.name} CASCADE`));
  });

  test('when it is given limits that are none', async () => {
    const { options, of } = await service([{ id: 'r1', upgrade: 'op.execute("SELECT 1")' }]);
    const facts = await upgrade({ ...options, timeouts: { ...timeouts, lock: Number.NaN }, target: 'r1' });
    expect(facts).toMatchObject({ result: { code: 0 }, notes: [expect.stringMatching('setting limits')] });
    expect(of('r1')).toHaveLength(2);
  });
});

test('all of very many statements are told', async () => {
  const { options, of } = await service([
    {
      id: 'r1',
      upgrade: `op.execute("CREATE TABLE many (id int)")
for index in range(1000):
    op.execute("INSERT INTO many VALUES (%d)" % index)`,
    },
  ]);
  const facts = await upgrade({ ...options, traceLocks: 'after-each-statement', target: 'r1' });
  expect(facts).toMatchObject(succeeded);
  expect(of('r1').filter((told) => told.statement.startsWith('INSERT INTO many'))).toHaveLength(1000);
});
