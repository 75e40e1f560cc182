import { describe, expect, test } from 'vitest';
import type { WritersKeptOut } from '../../src/alembic/barrier.ts';
import { runAlembic } from '../../src/alembic/command.ts';
import { execute, query, withClient } from '../postgres-service.ts';
import { type Driver, drivers, eachItsOwn, reportedService } from './alembic-service.ts';

const BLOCK = 'with op.get_context().autocommit_block():\n    op.execute("SELECT 1")\n';
const revisions = (down: string) => [
  { id: 'r1', upgrade: 'op.execute("CREATE TABLE public.one (n int)")', downgrade: 'op.drop_table("one")' },
  {
    id: 'r2',
    down: '"r1"',
    upgrade: 'op.execute("CREATE TABLE public.\\"Two\\" (n int)")',
    downgrade: `${down}op.drop_table("Two")`,
  },
];
const keepWritersOut = ['"public"."one"', '"public"."Two"', '"public"."gone"', '"nowhere"."gone"'];
const limits = { lock: 300, concurrentLock: 300, statement: 60_000, concurrentStatement: 0 };

async function upgraded(driver: Driver, down = '') {
  const service = await reportedService(revisions(down), driver);
  const { result } = await runAlembic('upgrade', 'head', service.options);
  expect(result).toMatchObject({ code: 0 });
  const told: WritersKeptOut[] = [];
  const insert = (): Promise<string> =>
    withClient(service.url, async (client) => {
      await client.query(`SET lock_timeout = '50ms'`);
      return client.query('INSERT INTO public.one VALUES (1)').then(
        () => 'written',
        (error: { code: string }) => error.code,
      );
    });
  const down1 = (
    atWritersKeptOut: (event: WritersKeptOut) => Promise<void>,
    environment: Readonly<Record<string, string>> = {},
  ) =>
    runAlembic('downgrade', 'base', {
      ...service.options,
      environment: { ...service.environment, ...environment },
      timeouts: limits,
      keepWritersOut,
      atWritersKeptOut: async (event) => {
        told.push(event);
        await atWritersKeptOut(event);
      },
    });
  const tables = async (): Promise<string[]> =>
    (
      await query<{ t: string }>(
        service.url,
        `SELECT relname AS t FROM pg_class WHERE relname IN ('one', 'Two') ORDER BY relname`,
      )
    ).map(({ t }) => t);
  return { ...service, told, insert, down: down1, tables };
}

describe.each(drivers)('before a revision of a downgrade, with %s,', (driver) => {
  test('writers are kept out and readers are not, to the end of the one transaction', async () => {
    const { told, insert, down, url, tables } = await upgraded(driver);
    await execute(url, 'INSERT INTO public.one VALUES (1)');
    const seen: unknown[] = [];
    const facts = await down(async ({ locks }) => {
      seen.push(await insert());
      if (locks.kind === 'taken') seen.push(await query(url, 'SELECT n FROM public.one'));
    });
    expect(facts).toMatchObject({ result: { code: 0 }, notes: [] });
    expect(seen).toEqual(['55P03', [{ n: 1 }], '55P03']);
    expect(told).toMatchObject([
      { revision: 'r2', at: 'revision', committed: true, locks: { kind: 'taken' } },
      { revision: 'r1', at: 'revision', committed: false, locks: { kind: 'held' } },
    ]);
    expect(await tables()).toEqual([]);
  });

  test('they are locked anew in each transaction', async () => {
    const { told, insert, down } = await upgraded(driver);
    const seen: unknown[] = [];
    const facts = await down(async () => void seen.push(await insert()), eachItsOwn);
    expect(facts.result).toMatchObject({ code: 0 });
    expect(seen).toEqual(['55P03', '55P03']);
    expect(told.map(({ revision, locks }) => [revision, locks.kind])).toEqual([
      ['r2', 'taken'],
      ['r1', 'taken'],
    ]);
  });

  test('a block that commits is told, and they are locked again after it', async () => {
    const { told, insert, down } = await upgraded(driver, BLOCK);
    const seen: unknown[] = [];
    const facts = await down(async () => void seen.push(await insert()));
    expect(facts.result).toMatchObject({ code: 0 });
    expect(told.map(({ at, revision, locks }) => `${revision} ${at}: ${locks.kind}`)).toEqual([
      'r2 revision: taken',
      'r2 block: none',
      'r2 after-block: taken',
      'r1 revision: held',
    ]);
    expect(seen).toEqual(['55P03', 'written', '55P03', '55P03']);
  });

  test('who says no stops it, and everything is as before', async () => {
    const { down, tables } = await upgraded(driver);
    await expect(down(() => Promise.reject(new Error('more came')))).rejects.toThrow('more came');
    expect(await tables()).toEqual(['Two', 'one']);
  });

  test('a writer in flight for too long makes it fail as any lock does', async () => {
    const { down, tables, url } = await upgraded(driver);
    await withClient(url, async (writer) => {
      await writer.query('BEGIN');
      await writer.query('INSERT INTO public.one VALUES (1)');
      const facts = await down(async () => undefined);
      expect(facts.failedOn).toBe('lock-timeout');
      expect(facts.result).not.toMatchObject({ code: 0 });
      await writer.query('ROLLBACK');
    });
    expect(await tables()).toEqual(['Two', 'one']);
  });
});

test('what runs in autocommit cannot lock, says so, and goes through', async () => {
  const { told, down, tables } = await upgraded('postgresql+psycopg');
  const facts = await down(async () => undefined, { COMMIT_EACH: 'yes' });
  expect(facts.result).toMatchObject({ code: 0 });
  expect(told[0]?.locks).toEqual({ kind: 'none', why: expect.stringContaining('autocommit') });
  expect(await tables()).toEqual([]);
});

test.each(['op.execute("COMMIT")\n', 'op.get_bind().commit()\n'])(
  'a revision that commits by itself (%j) is locked again before its next statement',
  async (commit) => {
    const { told, down, insert } = await upgraded('postgresql+psycopg', commit);
    const seen: unknown[] = [];
    await down(async () => void seen.push(await insert()));
    expect(told.slice(0, 2).map(({ at, revision, locks }) => `${revision} ${at}: ${locks.kind}`)).toEqual([
      'r2 revision: taken',
      'r2 after-block: taken',
    ]);
    expect(seen.slice(0, 2)).toEqual(['55P03', '55P03']);
  },
);
