import type { ApplicationFailure } from '@temporalio/common';
import { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import type { Blocker, UpgradeProgress } from '../../src/contract/evidence/upgrade.ts';
import { execute, query } from '../postgres-service.ts';
import { useStack } from '../stack.ts';
import { createGuardedService, everyLock, type GuardedService } from './guarded-service.ts';

const stack = useStack();

const ADD_COLUMN = { id: '0003', down: '"0002"', upgrade: 'op.add_column("users", sa.Column("age", sa.Integer()))' };
const BUILD_INDEX = {
  id: '0003',
  down: '"0002"',
  upgrade:
    'with op.get_context().autocommit_block():\n    op.create_index("notes_body", "notes", ["body"], postgresql_concurrently=True)',
};
/** Python that ignores PYTHONPATH: our part cannot be loaded. */
const WITHOUT_OUR_PART = [stack.venv.python, '-I', '-m', 'alembic', 'upgrade', '{{revision}}'];

interface Blocking {
  readonly pid: number;
  readonly end: () => Promise<void>;
}

/** A session that idles in a transaction in which it has done something. */
async function block(service: GuardedService, statement: string, application = 'psql'): Promise<Blocking> {
  const client = new Client({ connectionString: service.production.superuserUrl, application_name: application });
  client.on('error', () => undefined);
  await client.connect();
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await client.query(statement);
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  return { pid: rows[0]!.pid, end: () => client.end().catch(() => undefined) };
}

const READ = 'SELECT count(*) FROM public.users';

/** Starts the step, and resolves once its heartbeat names somebody. */
function start(service: GuardedService) {
  const heard: UpgradeProgress[] = [];
  const named = Promise.withResolvers<readonly Blocker[]>();
  const running = service.upgrade((progress) => {
    heard.push(progress);
    if (progress.blockers) named.resolve(progress.blockers);
  });
  running.catch(named.reject);
  return { heard, named: named.promise, running };
}

const failureOf = (work: Promise<unknown>): Promise<ApplicationFailure> =>
  work.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: unknown) => error as ApplicationFailure,
  );

const columns = async ({ production }: GuardedService): Promise<string[]> =>
  (
    await query<{ name: string }>(
      production.superuserUrl,
      `SELECT attname AS name FROM pg_attribute WHERE attrelid = 'public.users'::regclass AND attnum > 0 ORDER BY attnum`,
    )
  ).map(({ name }) => name);

const versionRows = ({ production }: GuardedService) =>
  query(production.superuserUrl, 'SELECT version_num FROM public.alembic_version');

describe('an upgrade that nobody stands in the way of', () => {
  test('is started once', async () => {
    const service = await createGuardedService({ revisions: [ADD_COLUMN] });
    expect(await service.upgrade()).toMatchObject({ how: 'upgraded', revisions: ['0003'], tries: 1, blockers: [] });
    expect(await service.upgrade()).toMatchObject({ how: 'already-applied', tries: 0 });
  });

  test('leaves it known what others change in place from then on', async () => {
    const service = await createGuardedService({ revisions: [ADD_COLUMN] });
    const dropped = [{ table: 'public.users', column: 'age', rows: 0 }];
    await service.upgrade();
    expect(await service.countArrivals(dropped)).toMatchObject({ total: 0, unknown: [], unseen: [] });
    await execute(
      service.production.superuserUrl,
      'UPDATE public.users SET age = 7 WHERE id <= 2',
      'UPDATE public.users SET age = 8 WHERE id = 1',
    );
    expect(await service.countArrivals(dropped)).toMatchObject({
      total: 2,
      unseen: ['public.users (since the upgrade ended 3 row(s) were changed and 0 deleted, 0 inserted)'],
    });
  });
});

describe('an upgrade that fails on the rows it finds', () => {
  test('says which constraint it was and keeps no value of a row: not in the failure, the heartbeat or the log', async () => {
    const service = await createGuardedService({
      revisions: [
        {
          id: '0003',
          down: '"0002"',
          upgrade: `op.execute("UPDATE users SET name = 'ann@' || 'example.com' WHERE id < 3")
op.create_unique_constraint("users_name_key", "users", ["name"])`,
        },
      ],
    });
    const heard: UpgradeProgress[] = [];
    const failure = await failureOf(service.upgrade((progress) => heard.push(progress)));
    const log = await service.archivedLog();
    for (const text of [failure.message, log]) {
      expect(text).toContain('could not create unique index "users_name_key"');
      expect(text).toContain('Key (name)=(?) is duplicated.');
    }
    expect(JSON.stringify([failure.message, failure.details, heard, log])).not.toContain('ann@example.com');
    expect(log).toMatch(/^# Values of rows .* are struck out/);
  });
});

describe('an upgrade that was cut off where its rows cannot be judged', () => {
  test('is not resumed, and says that an earlier start is why', async () => {
    const service = await createGuardedService({
      revisions: [
        {
          id: '0003',
          down: '"0002"',
          upgrade:
            'with op.get_context().autocommit_block():\n    op.execute("UPDATE users SET name = name")\nraise SystemExit(9)',
        },
      ],
    });
    const first = await failureOf(service.upgrade());
    const failure = await failureOf(service.upgrade());
    expect(failure.type).toBe(STEP_ERRORS.stateUnexpected);
    expect(failure.message).toContain(`an earlier start of the upgrade failed (${first.message})`);
    expect(failure.message).toMatch(/is not resumed: .*may have changed rows/);
    expect(await versionRows(service)).toEqual([{ version_num: '0002' }]);
  });
});

describe('an upgrade that a transaction stands in the way of', () => {
  test('names it in the heartbeat, gives way, and succeeds by itself after it has ended', async () => {
    const service = await createGuardedService({ revisions: [ADD_COLUMN] });
    const blocker = await block(service, READ, 'reporting');
    const { named, heard, running } = start(service);
    const [first] = await named;
    expect(first).toMatchObject({
      pid: blocker.pid,
      application: 'reporting',
      state: 'idle in transaction',
      waitedFor: 'AccessExclusiveLock on public.users',
    });
    await expect.poll(() => heard.at(-1)?.phase, { timeout: 20_000 }).toContain('to end');
    await blocker.end();
    const evidence = await running;
    expect(evidence).toMatchObject({ how: 'upgraded', tries: 2 });
    expect(evidence.blockers.join()).toMatch(/^try 1: pid \d+ \(reporting\) of role "postgres", idle in transaction/);
    expect(heard.some(({ statement }) => statement?.includes('ALTER TABLE users ADD COLUMN'))).toBe(true);
    expect(await columns(service)).toContain('age');
  });

  test('is kept to the limit from outside where our part cannot be loaded', async () => {
    const service = await createGuardedService({
      revisions: [ADD_COLUMN],
      alembic: { commands: { upgrade: WITHOUT_OUR_PART } },
    });
    const blocker = await block(service, READ);
    const { named, heard, running } = start(service);
    expect(await named).toMatchObject([{ pid: blocker.pid }]);
    await expect.poll(() => heard.at(-1)?.phase, { timeout: 20_000 }).toContain('to end');
    await blocker.end();
    expect(await running).toMatchObject({ how: 'upgraded', tries: 2 });
  });

  test('is given up when patience is over, with its name, and production as it was', async () => {
    const service = await createGuardedService({ revisions: [ADD_COLUMN], guard: { patience: 500 } });
    const before = await columns(service);
    const blocker = await block(service, READ, 'forgotten');
    const failure = await failureOf(service.upgrade());
    expect(failure).toMatchObject({ type: STEP_ERRORS.processFailed });
    expect(failure.message).toContain(`pid ${blocker.pid} (forgotten)`);
    expect(failure.message).toContain('production is unchanged');
    expect(await columns(service)).toEqual(before);
    expect(await versionRows(service)).toEqual([{ version_num: '0002' }]);
    await blocker.end();
  });

  test('is named where the upgrade cannot be tried again, for its rows may have been changed outside its transaction', async () => {
    const service = await createGuardedService({
      revisions: [
        {
          id: '0003',
          down: '"0002"',
          upgrade:
            'op.add_column("users", sa.Column("age", sa.Integer()))\nwith op.get_context().autocommit_block():\n    op.execute("UPDATE users SET age = 1")',
        },
      ],
    });
    const blocking = await block(service, READ, 'nightly report');
    const failure = await failureOf(service.upgrade());
    await blocking.end();
    expect(failure.type).toBe(STEP_ERRORS.stateUnexpected);
    expect(failure.message).toContain('the upgrade was given up after try 1 of 5');
    expect(failure.message).toContain('may have changed rows outside its transaction');
    expect(failure.message).toContain('from which it is not tried again');
    expect(failure.message).toContain('nightly report');
    expect(await columns(service)).not.toContain('age');
  });

  test('is given up when its tries are used up', async () => {
    const service = await createGuardedService({ revisions: [ADD_COLUMN], guard: { tries: 1 } });
    const blocker = await block(service, READ);
    const failure = await failureOf(service.upgrade());
    expect(failure.message).toContain('after 1 of 1 tries');
    expect(failure.message).toContain(`pid ${blocker.pid}`);
    await blocker.end();
  });

  test('ends its session where the profile allows that', async () => {
    const service = await createGuardedService({ revisions: [ADD_COLUMN], guard: { endBlockersAfter: 0 } });
    // The administrator is no superuser and may not end one.
    const client = new Client({ connectionString: service.production.backupUrl });
    client.on('error', () => undefined);
    await client.connect();
    await client.query('BEGIN');
    await client.query(READ);
    const evidence = await service.upgrade();
    expect(evidence.how).toBe('upgraded');
    expect(evidence.blockers.join()).toContain('its session was ended');
    await expect(client.query('SELECT 1')).rejects.toThrow(/terminat|not queryable/);
  });

  test('says so where it may not end it', async () => {
    const service = await createGuardedService({
      revisions: [ADD_COLUMN],
      guard: { endBlockersAfter: 0, patience: 500 },
    });
    const blocker = await block(service, READ);
    const failure = await failureOf(service.upgrade());
    expect(failure.message).toContain('a superuser, whom only a superuser may end');
    await blocker.end();
  });

  test('goes on where it was, with the revisions that are committed left alone', async () => {
    const second = {
      id: '0004',
      down: '"0003"',
      upgrade: 'op.add_column("notes", sa.Column("stars", sa.Integer()))',
    };
    const first = { ...ADD_COLUMN, upgrade: 'op.create_table("once", sa.Column("id", sa.Integer()))' };
    const service = await createGuardedService({ revisions: [first, second] });
    const blocker = await block(service, 'SELECT count(*) FROM public.notes');
    const { named, heard, running } = start(service);
    await named;
    await expect.poll(() => heard.at(-1)?.phase, { timeout: 20_000 }).toContain('to end');
    await expect.poll(() => heard.at(-1)?.versionRows).toEqual(['0003']);
    await blocker.end();
    expect(await running).toMatchObject({ how: 'upgraded', tries: 2 });
    expect(await versionRows(service)).toEqual([{ version_num: '0004' }]);
  });
});

describe('old transactions', () => {
  test('are waited for before Alembic starts', async () => {
    const service = await createGuardedService({ revisions: [ADD_COLUMN], maximumTransactionAge: 50 });
    const blocker = await block(service, 'SELECT 1', 'old');
    const { named, heard, running } = start(service);
    expect(await named).toMatchObject([{ pid: blocker.pid, waitedFor: 'the start of Alembic' }]);
    expect(heard.at(-1)?.phase).toBe('waiting for transactions older than 50 ms');
    await blocker.end();
    expect(await running).toMatchObject({ how: 'upgraded', tries: 1 });
  });

  test('refuse the upgrade by name when they outlast the patience', async () => {
    const service = await createGuardedService({
      revisions: [ADD_COLUMN],
      maximumTransactionAge: 50,
      guard: { patience: 300 },
    });
    const blocker = await block(service, 'SELECT 1', 'old');
    const failure = await failureOf(service.upgrade());
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.message).toContain(`pid ${blocker.pid} (old)`);
    await blocker.end();
  });
});

describe('old transactions where the profile allows to end who blocks', () => {
  const started = (patience: number) =>
    createGuardedService({
      revisions: [ADD_COLUMN],
      maximumTransactionAge: 50,
      guard: { endBlockersAfter: 0, patience },
      footprint: { locksBy: 'statements', locks: [everyLock('public.users')] },
    });

  /** Of a role that the administrator may end. */
  async function reportOn(service: GuardedService, table: string): Promise<Client> {
    const client = new Client({ connectionString: service.production.backupUrl, application_name: 'nightly report' });
    client.on('error', () => undefined);
    await client.connect();
    await client.query('BEGIN');
    await client.query(`SELECT count(*) FROM ${table}`);
    return client;
  }

  test('are left alone where they hold nothing that the migration needs', async () => {
    const service = await started(1_500);
    const report = await reportOn(service, 'public.notes');
    const failure = await failureOf(service.upgrade());
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.message).toContain('(nightly report)');
    expect((await report.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    await report.end();
  });

  test('are ended where they hold a lock that conflicts with one of the rehearsal', async () => {
    const service = await started(60_000);
    const report = await reportOn(service, 'public.users');
    const evidence = await service.upgrade();
    expect(evidence).toMatchObject({ how: 'upgraded', tries: 1 });
    expect(evidence.blockers.join()).toMatch(/nightly report.*the start of Alembic waited.*its session was ended/);
    await expect(report.query('SELECT 1')).rejects.toThrow(/terminat|not queryable/);
  });
});

describe('an upgrade that has got over a lock it could not have', () => {
  const gotOver = (then: string) => ({
    id: '0003',
    down: '"0002"',
    upgrade: `try:
    with op.get_bind().begin_nested():
        op.execute("ALTER TABLE users ADD COLUMN age integer")
except Exception:
    op.execute("CREATE TABLE instead (id integer PRIMARY KEY)")
    ${then}`,
  });

  test.each([
    { how: 'by the limits inside', command: {} },
    { how: 'by a stop from outside', command: { commands: { upgrade: WITHOUT_OUR_PART } } },
  ])('and fails for another reason is not started again, and that reason is told: $how', async ({ command }) => {
    const service = await createGuardedService({
      revisions: [gotOver(`op.execute("SELECT pg_sleep(1)")\n    raise ValueError("a bug of the revision")`)],
      alembic: command,
    });
    const blocker = await block(service, READ);
    const { heard, running } = start(service);
    const failure = await failureOf(running);
    expect(failure.type).toBe(STEP_ERRORS.processFailed);
    expect(failure.message).toContain('ValueError: a bug of the revision');
    expect(heard.every((progress) => (progress.try ?? 1) === 1)).toBe(true);
    await blocker.end();
  });

  test('and fails in a statement is told with that failure', async () => {
    const twice = 'op.execute("INSERT INTO users SELECT * FROM users")';
    const service = await createGuardedService({ revisions: [gotOver(twice)] });
    const blocker = await block(service, READ);
    const failure = await failureOf(service.upgrade());
    expect(failure.message).toContain('duplicate key value violates unique constraint');
    await blocker.end();
  });
});

describe('an index built concurrently', () => {
  test('waits behind an old snapshot for longer than other statements may, and succeeds', async () => {
    const service = await createGuardedService({ revisions: [BUILD_INDEX], guard: { lockTimeout: 200 } });
    const blocker = await block(service, 'SELECT count(*) FROM pg_class', 'snapshot');
    const { named, heard, running } = start(service);
    expect(await named).toMatchObject([{ pid: blocker.pid, waitedFor: 'the end of older transactions' }]);
    await expect.poll(() => heard.at(-1)?.index, { timeout: 10_000 }).toContain('public.notes');
    // Several times the limit of other statements.
    await expect.poll(() => heard.filter(({ blockers }) => blockers).length, { timeout: 20_000 }).toBeGreaterThan(15);
    await blocker.end();
    expect(await running).toMatchObject({ how: 'upgraded', tries: 1 });
  });

  test('is dropped and built anew when it could not wait any longer', async () => {
    const service = await createGuardedService({
      revisions: [BUILD_INDEX],
      guard: { concurrentLockTimeout: 500 },
    });
    const blocker = await block(service, 'SELECT count(*) FROM pg_class');
    const { named, heard, running } = start(service);
    await named;
    await expect.poll(() => heard.at(-1)?.phase, { timeout: 20_000 }).toContain('to end');
    await blocker.end();
    expect(await running).toMatchObject({
      how: 'upgraded',
      tries: 2,
      droppedInvalidIndexes: ['public.notes_body'],
    });
  });
});

describe('an index that was dropped by an attempt that did not live to tell', () => {
  const INVALID = 'CREATE UNIQUE INDEX CONCURRENTLY twice ON public.users (kind)';
  const leaveInvalid = ({ production }: GuardedService): Promise<unknown> =>
    execute(production.superuserUrl, INVALID).catch(() => undefined);

  test('is told by the next, and not once it is there again', async () => {
    const service = await createGuardedService({ revisions: [BUILD_INDEX] });
    await leaveInvalid(service);
    const lost = await service.evaluate();
    expect(lost).toMatchObject({
      droppedInvalidIndexes: ['public.twice'],
      leftovers: ['index public.twice (invalid)'],
    });
    const next = await service.evaluate();
    expect(next).toMatchObject({ droppedInvalidIndexes: ['public.twice'], leftovers: ['index public.twice'] });
    expect(next.reality).toEqual({ kind: 'unchanged' });

    expect(await service.upgrade()).toMatchObject({ how: 'upgraded', droppedInvalidIndexes: ['public.twice'] });
    await execute(service.production.superuserUrl, 'CREATE INDEX twice ON public.users (kind)');
    expect(await service.evaluate()).toMatchObject({ droppedInvalidIndexes: [], leftovers: [] });
  });
});

describe('a lock that the rehearsal did not take', () => {
  const rehearsed = (locksBy: 'statements' | 'sampled') => ({
    locksBy,
    locks: [{ relation: 'public.users', mode: 'RowExclusiveLock', milliseconds: 1, revision: '0003' }],
  });

  test('stops the upgrade as soon as it is waited for, naming relation and mode', async () => {
    const service = await createGuardedService({
      revisions: [ADD_COLUMN],
      guard: { lockTimeout: 60_000, tries: 1 },
      footprint: rehearsed('statements'),
    });
    const blocker = await block(service, READ);
    const failure = await failureOf(service.upgrade());
    expect(failure.type).toBe(STEP_ERRORS.stateUnexpected);
    expect(failure.message).toContain('AccessExclusiveLock on public.users, which the rehearsal was not seen to take');
    await blocker.end();
  });

  test('does not stop it where the rehearsal was only sampled', async () => {
    const service = await createGuardedService({ revisions: [ADD_COLUMN], footprint: rehearsed('sampled') });
    const blocker = await block(service, READ);
    const { named, running } = start(service);
    await named;
    await blocker.end();
    expect(await running).toMatchObject({ how: 'upgraded' });
  });
});
