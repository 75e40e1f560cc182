import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { BlockerRegister, type BlockerRules } from '../../src/postgres/blocker-register.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { type BlockingSession, lookAtMigration } from '../../src/postgres/lock-waits.ts';
import { watchMigration, type WatchedMigration, type WatchOptions } from '../../src/postgres/lock-watch.ts';
import { createService, execute, query, type TestService } from '../postgres-service.ts';
import { useStack } from '../stack.ts';

let service: TestService;
beforeAll(async () => {
  service = await createService(useStack().postgres.primary);
  await execute(service.superuserUrl, `ALTER ROLE ${service.roles.migrator} RESET lock_timeout`);
});

const opened: Client[] = [];
afterAll(() => Promise.all(opened.map((client) => client.end().catch(() => undefined))));

async function connect(url: string, application = 'test'): Promise<Client> {
  const client = new Client({ connectionString: url, application_name: application });
  client.on('error', () => undefined);
  await client.connect();
  opened.push(client);
  return client;
}

/** A session that has done something in a transaction and idles. */
async function block(statement: string, url = service.backupUrl, application = 'test'): Promise<Client> {
  const client = await connect(url, application);
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await client.query(statement);
  return client;
}

const pidOf = async (client: Client): Promise<number> =>
  (await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]!.pid;

interface Watched {
  readonly looks: WatchedMigration[];
  readonly blind: string[];
  readonly register: BlockerRegister;
  readonly watch: ReturnType<typeof watchMigration>;
  readonly last: () => WatchedMigration | undefined;
}

async function watching(
  work: (watched: Watched) => Promise<void>,
  changes: Partial<WatchOptions> & { readonly rules?: Partial<BlockerRules> } = {},
): Promise<void> {
  const looks: WatchedMigration[] = [];
  const blind: string[] = [];
  const register = new BlockerRegister({ endAfter: 'never', ownRoles: [service.roles.migrator], ...changes.rules });
  const watch = watchMigration({
    administrator: parseConnectionUrl(service.administratorUrl),
    runId: crypto.randomUUID(),
    step: 'test',
    role: service.roles.migrator,
    versionTable: {},
    limits: { lock: 0, concurrentLock: 0, statement: 0 },
    limitsInside: () => 'not-known',
    isBeyond: () => false,
    register,
    inTry: 1,
    signal: new AbortController().signal,
    onLook: (seen) => looks.push(seen),
    onBlind: (why) => blind.push(why),
    ...changes,
  });
  try {
    await work({ looks, blind, register, watch, last: () => looks.at(-1) });
  } finally {
    await watch.end();
  }
}

/** What happens while the watch has looked and has not judged yet. */
function betweenLookAndStop(work: (blockers: readonly BlockingSession[]) => Promise<void>): BlockerRegister {
  const register = new BlockerRegister({ endAfter: 'never', ownRoles: [] });
  register.meet = (_, blockers) => work(blockers);
  return register;
}

async function isWaiting(client: Client): Promise<boolean> {
  const { processID } = client as Client & { readonly processID: number };
  const rows = await query(service.superuserUrl, 'SELECT FROM pg_locks WHERE pid = $1 AND NOT granted', [processID]);
  return rows.length > 0;
}

const soon = { timeout: 20_000 };

const ALTER = 'ALTER TABLE public.users ADD COLUMN IF NOT EXISTS extra integer';
const READ = 'SELECT count(*) FROM public.users';

describe('a migration that is watched', () => {
  test('is seen to wait: for what, for whom, and what it runs', async () => {
    const blocker = await block(READ, service.backupUrl, 'reporting');
    const migration = await connect(service.migratorUrl);
    await watching(async ({ last, register }) => {
      const altering = migration.query(`${ALTER} DEFAULT 4711`);
      await expect.poll(() => last()?.blockers, soon).toHaveLength(1);
      expect(last()).toMatchObject({
        wait: { kind: 'relation', relation: 'public.users', mode: 'AccessExclusiveLock' },
        blockers: [
          {
            pid: await pidOf(blocker),
            role: service.roles.backup,
            application: 'reporting',
            state: 'idle in transaction',
            waitedFor: 'AccessExclusiveLock on public.users',
          },
        ],
        running: [{ statement: 'ALTER TABLE public.users ADD COLUMN IF NOT EXISTS extra integer DEFAULT ?' }],
        versionRows: ['0002'],
      });
      await blocker.end();
      await altering;
      await expect.poll(() => last()?.blockers, soon).toEqual([]);
      expect(register.words()).toHaveLength(1);
    });
  });

  test('is told apart from others that wait', async () => {
    const blocker = await block(READ);
    const other = await connect(service.superuserUrl);
    await watching(async ({ looks }) => {
      const locking = other.query('LOCK TABLE public.users IN ACCESS EXCLUSIVE MODE').catch(() => undefined);
      await expect.poll(() => looks.length, soon).toBeGreaterThan(4);
      expect(looks.every(({ blockers }) => blockers.length === 0)).toBe(true);
      await blocker.end();
      await locking;
    });
  });

  test('is seen to wait for rows that somebody has changed', async () => {
    const blocker = await block('UPDATE public.users SET name = name WHERE id = 1', service.applicationUrl);
    const migration = await connect(service.migratorUrl);
    await watching(async ({ last }) => {
      const updating = migration.query('UPDATE public.users SET name = name');
      await expect.poll(() => last()?.wait, soon).toMatchObject({ kind: 'rows', waitedFor: 'rows of public.users' });
      await blocker.query('ROLLBACK');
      await updating;
    });
  });

  test('is stopped at its limit where it keeps none itself', async () => {
    const blocker = await block(READ);
    const migration = await connect(service.migratorUrl);
    await watching(
      async ({ watch }) => {
        await expect(migration.query(ALTER)).rejects.toMatchObject({ code: '57014' });
        await expect
          .poll(() => watch.stopped, soon)
          .toMatchObject({ kind: 'lock-timeout', wait: { relation: 'public.users' } });
      },
      { limits: { lock: 300, concurrentLock: 0, statement: 0 } },
    );
    await blocker.end();
  });

  test('ends its wait itself where it keeps the limit', async () => {
    const blocker = await block(READ);
    const migration = await connect(service.migratorUrl);
    await migration.query(`SET lock_timeout = '300ms'`);
    await watching(
      async ({ watch }) => {
        await expect(migration.query(ALTER)).rejects.toMatchObject({ code: '55P03' });
        expect(watch.stopped).toBeUndefined();
      },
      { limits: { lock: 300, concurrentLock: 0, statement: 0 }, limitsInside: () => 'kept' },
    );
    await blocker.end();
  });

  test('may wait longer for old snapshots than for locks', async () => {
    const blocker = await block('SELECT count(*) FROM pg_class');
    const migration = await connect(service.migratorUrl);
    await watching(
      async ({ looks, last, watch }) => {
        const building = migration.query('CREATE INDEX CONCURRENTLY notes_by_body ON public.notes (body)');
        await expect.poll(() => last()?.wait, soon).toMatchObject({ kind: 'snapshots' });
        const seen = looks.length;
        await expect.poll(() => looks.length, soon).toBeGreaterThan(seen + 5);
        expect(last()).toMatchObject({
          index: expect.stringContaining('public.notes'),
          blockers: [{ pid: await pidOf(blocker), waitedFor: 'the end of older transactions' }],
        });
        await blocker.end();
        await building;
        expect(watch.stopped).toBeUndefined();
      },
      { limits: { lock: 300, concurrentLock: 60_000, statement: 300 } },
    );
  });

  test('may not, while it keeps readers of another table out itself', async () => {
    const blocker = await block('LOCK TABLE public.notes IN SHARE MODE', service.superuserUrl);
    const migration = await connect(service.migratorUrl);
    await migration.query('BEGIN; LOCK TABLE public.users');
    await watching(
      async ({ watch }) => {
        const validating = migration.query('ALTER TABLE public.notes VALIDATE CONSTRAINT notes_checked');
        await expect(validating).rejects.toMatchObject({ code: '57014' });
        await expect
          .poll(() => watch.stopped, soon)
          .toMatchObject({ kind: 'lock-timeout', wait: { relation: 'public.notes' } });
      },
      { limits: { lock: 300, concurrentLock: 60_000, statement: 0 } },
    );
    await migration.query('ROLLBACK');
    await blocker.end();
  });

  test('is stopped when a statement runs for too long', async () => {
    const migration = await connect(service.migratorUrl);
    await watching(
      async ({ watch }) => {
        await expect(migration.query('SELECT pg_sleep(60)')).rejects.toMatchObject({ code: '57014' });
        await expect.poll(() => watch.stopped, soon).toMatchObject({ kind: 'statement-timeout' });
      },
      { limits: { lock: 0, concurrentLock: 0, statement: 300 } },
    );
  });

  test('is stopped at once when it waits for what it must not', async () => {
    const blocker = await block(READ);
    const migration = await connect(service.migratorUrl);
    await watching(
      async ({ watch }) => {
        await expect(migration.query(ALTER)).rejects.toMatchObject({ code: '57014' });
        await expect.poll(() => watch.stopped, soon).toMatchObject({ kind: 'beyond-footprint' });
      },
      { isBeyond: ({ relation }) => relation === 'public.users' },
    );
    await blocker.end();
  });

  test('counts as stopped only where it was hit: the lock was had between look and cancel', async () => {
    const blocker = await block(READ);
    const migration = await connect(service.migratorUrl);
    const altering = migration.query(ALTER);
    let isOver = false;
    await watching(
      async ({ watch, looks }) => {
        await altering;
        await expect.poll(() => isOver, soon).toBe(true);
        const seen = looks.length;
        await expect.poll(() => looks.length, soon).toBeGreaterThan(seen + 1);
        expect(watch.stopped).toBeUndefined();
      },
      {
        isBeyond: ({ relation }) => relation === 'public.users',
        register: betweenLookAndStop(async (blockers) => {
          if (blockers.length === 0) return;
          await blocker.query('COMMIT');
          await altering;
          isOver = true;
        }),
      },
    );
    expect(isOver).toBe(true);
  });

  test('is not hit for the statement before', async () => {
    const blocker = await block('SELECT count(*) FROM pg_class');
    const migration = await connect(service.migratorUrl);
    const slow = migration.query('SELECT pg_sleep(1)');
    let building: Promise<unknown> | undefined;
    await watching(
      async ({ last, watch }) => {
        await expect.poll(() => last()?.wait, soon).toMatchObject({ kind: 'snapshots' });
        await blocker.query('COMMIT');
        await building;
        expect(watch.stopped).toBeUndefined();
      },
      {
        limits: { lock: 0, concurrentLock: 0, statement: 100 },
        register: betweenLookAndStop(async () => {
          if (building) return;
          await slow;
          building = migration.query('CREATE INDEX CONCURRENTLY notes_not_hit ON public.notes (body)');
          building.catch(() => undefined);
          await expect.poll(() => isWaiting(migration), soon).toBe(true);
        }),
      },
    );
  });

  test('that has got on after it was stopped is not stopped any more', async () => {
    const blocker = await block(READ);
    const migration = await connect(service.migratorUrl);
    await watching(
      async ({ watch, looks }) => {
        const aFewLooks = async (): Promise<void> => {
          const seen = looks.length;
          await expect.poll(() => looks.length, soon).toBeGreaterThan(seen + 2);
        };
        await migration.query('BEGIN');
        await expect(migration.query(ALTER)).rejects.toMatchObject({ code: '57014' });
        await migration.query('ROLLBACK');
        await migration.query('SELECT pg_advisory_unlock_all()');
        await aFewLooks();
        expect(watch.stopped).toMatchObject({ kind: 'lock-timeout' });
        await migration.query(READ);
        await expect.poll(() => watch.stopped, soon).toBeUndefined();

        const before = Date.now();
        await expect(migration.query(ALTER)).rejects.toMatchObject({ code: '57014' });
        await expect.poll(() => watch.stopped, soon).toBeDefined();
        watch.gotOn(before);
        expect(watch.stopped).toMatchObject({ kind: 'lock-timeout' });
        watch.gotOn(Date.now());
        expect(watch.stopped).toBeUndefined();
      },
      { limits: { lock: 300, concurrentLock: 0, statement: 0 } },
    );
    await blocker.end();
  });

  test('goes on being watched after the connection was lost', async () => {
    await watching(async ({ looks, blind }) => {
      await expect.poll(() => looks.length, soon).toBeGreaterThan(0);
      await query(
        service.superuserUrl,
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE '%test/watch'`,
      );
      await expect.poll(() => blind.length, soon).toBeGreaterThan(0);
      const seen = looks.length;
      await expect.poll(() => looks.length, soon).toBeGreaterThan(seen);
    });
  });
});

describe('a session in the way', () => {
  const immediately = { rules: { endAfter: 0 } };

  test('is ended after the time that is set', async () => {
    const blocker = await block(READ);
    const migration = await connect(service.migratorUrl);
    await watching(async ({ register }) => {
      await migration.query(ALTER);
      // The migration may hear that it has the lock before the watch hears that it has ended the session.
      await expect.poll(() => register.words().join(), soon).toContain('its session was ended');
    }, immediately);
    await expect(blocker.query('SELECT 1')).rejects.toThrow(/terminat|not queryable/);
  });

  test('is not ended before', async () => {
    const blocker = await block(READ);
    const migration = await connect(service.migratorUrl);
    await watching(
      async ({ looks }) => {
        const altering = migration.query(ALTER);
        await expect.poll(() => looks.filter(({ blockers }) => blockers.length > 0).length, soon).toBeGreaterThan(4);
        await blocker.query('COMMIT');
        await altering;
      },
      { rules: { endAfter: 600_000 } },
    );
  });

  test.each([
    { whose: 'of this tool', application: 'migration-runbook/abc/backup', why: 'a session of this tool' },
    { whose: 'of a superuser', application: 'psql', why: 'a superuser, whom only a superuser may end' },
  ])('is left alone and said to be so: $whose', async ({ application, why }) => {
    const blocker = await block(READ, service.superuserUrl, application);
    const migration = await connect(service.migratorUrl);
    await watching(async ({ register }) => {
      const altering = migration.query(ALTER);
      await expect.poll(() => register.words().join(), soon).toContain(`not ended: ${why}`);
      await blocker.query('COMMIT');
      await altering;
    }, immediately);
  });

  test('is left alone and said to be so: the migration’s own other session', async () => {
    const blocker = await block(READ, service.migratorUrl);
    const migration = await connect(service.migratorUrl);
    await watching(async ({ register }) => {
      const altering = migration.query(ALTER);
      await expect.poll(() => register.words().join(), soon).toContain('not ended: a session of this tool');
      await blocker.query('COMMIT');
      await altering;
    }, immediately);
  });

  test('is ended only after it has been in the way in every look for that time', async () => {
    const blocker = await block(READ);
    const migration = await connect(service.migratorUrl);
    const administrator = await connect(service.administratorUrl);
    const altering = migration.query(ALTER);
    altering.catch(() => undefined);
    await expect.poll(() => isWaiting(migration), soon).toBe(true);
    const { waits } = await lookAtMigration(administrator, service.roles.migrator);
    const blocking = waits.flatMap(({ blockers }) => blockers);
    expect(blocking).toMatchObject([{ pid: await pidOf(blocker) }]);
    const register = new BlockerRegister({ endAfter: 10_000, ownRoles: [] });
    vi.useFakeTimers({ toFake: ['Date'] });
    try {
      const after = async (seconds: number, seen: Parameters<BlockerRegister['meetBoth']>[1]): Promise<string> => {
        vi.setSystemTime(Date.now() + seconds * 1000);
        await register.meetBoth(administrator, seen, 1);
        return register.words().join();
      };
      const none = { blocking: [], awaited: [] };
      await after(0, { ...none, blocking });
      await after(1, { ...none, blocking });
      await after(1, none);
      expect(await after(60, { ...none, blocking })).not.toContain('ended');
      // Who was only waited for blocks nobody yet.
      expect(await after(1, { ...none, awaited: blocking })).not.toContain('ended');
      expect(await after(60, { ...none, awaited: blocking })).not.toContain('ended');
      expect(await after(1, { ...none, blocking })).not.toContain('ended');
      expect(await after(9, { ...none, blocking })).not.toContain('ended');
      expect(await after(2, { ...none, blocking })).toContain('its session was ended');
    } finally {
      vi.useRealTimers();
    }
    await altering;
  });

  test('is outlasted, or named once patience is over', async () => {
    const blocker = await block(READ);
    const migration = await connect(service.migratorUrl);
    const from = Date.now();
    await watching(async ({ register }) => {
      const altering = migration.query(ALTER);
      await expect.poll(() => register.words(), soon).toHaveLength(1);
      const outlast = (patience: number) =>
        withConnection(
          service.administratorUrl,
          { runId: 'r', step: 's', signal: new AbortController().signal },
          (client) =>
            register.outlast(client, { from, patience, signal: new AbortController().signal, tell: () => undefined }),
        );
      expect(await outlast(300)).toMatchObject([{ pid: await pidOf(blocker) }]);
      // Another transaction of the same session is nobody that was in the way.
      await blocker.query('COMMIT');
      await altering;
      await blocker.query('BEGIN');
      expect(await outlast(20_000)).toEqual([]);
    });
  });
});
