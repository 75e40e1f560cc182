import { Client } from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import { STEP_ERRORS, StepError } from '../../src/contract/errors.ts';
import {
  holdMigrationLock,
  type MigrationLock,
  type MigrationLockOptions,
  underMigrationLock,
} from '../../src/postgres/advisory-lock.ts';
import { type ConnectionOptions, withConnection } from '../../src/postgres/connection.ts';
import { dropInvalidIndexes, listInvalidIndexes } from '../../src/postgres/catalog/leftover-indexes.ts';
import { openTransactions } from '../../src/postgres/lock-waits.ts';
import { endSessions, listSessions } from '../../src/postgres/sessions.ts';
import { createService, execute, query, withClient } from '../postgres-service.ts';
import { createDatabase, createRole, databaseUrl, randomName, useStack } from '../stack.ts';

const server = useStack().postgres.primary;
const signal = new AbortController().signal;
const options = (runId = 'run-one'): ConnectionOptions => ({ runId, step: 'test', signal });

const opened: Client[] = [];
async function connect(url: string): Promise<Client> {
  const client = new Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  opened.push(client);
  return client;
}
afterEach(async () => {
  await Promise.all(opened.splice(0).map((client) => client.end().catch(() => undefined)));
});

describe('ending sessions', () => {
  it('ends those of one role, running or idle in a transaction, and sees them gone', async () => {
    const role = await createRole(server);
    const other = await createRole(server);
    const url = databaseUrl(server, 'postgres', role);
    const busy = await connect(url);
    busy.query('SELECT pg_sleep(60)').catch(() => undefined);
    const idle = await connect(url);
    await idle.query('BEGIN');
    const neighbor = await connect(databaseUrl(server, 'postgres', other));
    const { ended } = await withConnection(server.superuserUrl, options(), (client) =>
      endSessions(client, { of: { role: role.name }, signal }),
    );
    expect(ended.map((session) => session.role)).toEqual([role.name, role.name]);
    expect(
      await query(server.superuserUrl, 'SELECT FROM pg_stat_activity WHERE usename = $1', [role.name]),
    ).toHaveLength(0);
    expect((await neighbor.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  });

  it('ends those who come back as well', async () => {
    const role = await createRole(server);
    const url = databaseUrl(server, 'postgres', role);
    let stubborn = 3;
    const comeBack = async (): Promise<void> => {
      // A session may be ended before its client is told that it has one: that was no coming back.
      const client = await connect(url).catch(() => undefined);
      if (client === undefined) return comeBack();
      client.once('end', () => {
        stubborn -= 1;
        if (stubborn > 0) void comeBack();
      });
    };
    await comeBack();
    await withConnection(server.superuserUrl, options(), async (client) => {
      await expect
        .poll(async () => {
          await endSessions(client, { of: { role: role.name }, signal });
          return stubborn;
        })
        .toBe(0);
    });
    expect(
      await query(server.superuserUrl, 'SELECT FROM pg_stat_activity WHERE usename = $1', [role.name]),
    ).toHaveLength(0);
  });

  it('names the superuser that an administrator cannot end, and ends the others all the same', async () => {
    const service = await createService(server);
    await connect(service.applicationUrl);
    const superuser = await connect(service.superuserUrl);
    const { rows } = await superuser.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const error = await withConnection(service.administratorUrl, { ...options(), database: 'postgres' }, (client) =>
      endSessions(client, { of: { database: service.database }, within: 1_000, signal }).catch(
        (reason: unknown) => reason,
      ),
    );
    expect(error).toBeInstanceOf(StepError);
    expect((error as StepError).type).toBe(STEP_ERRORS.stateUnexpected);
    expect((error as StepError).message).toContain(`pid ${rows[0]!.pid}`);
    expect((error as StepError).message).toContain('a superuser, whom only a superuser may end');
    expect(
      await query(service.superuserUrl, 'SELECT FROM pg_stat_activity WHERE usename = $1', [service.roles.application]),
    ).toHaveLength(0);
  });
});

describe('old transactions', () => {
  it('lists those open for too long, with who holds them', async () => {
    const database = await createDatabase(server);
    const holder = await connect(`${database.url}?application_name=reporting`);
    await holder.query('BEGIN');
    await holder.query('SELECT 1');
    await withConnection(database.url, options(), async (client) => {
      expect(await openTransactions(client, 3_600_000, 'migrator')).toEqual([]);
      await expect
        .poll(async () => (await openTransactions(client, 50, 'migrator')).map(({ application }) => application))
        .toEqual(['reporting']);
    });
  });
});

describe('the migration lock', () => {
  const held: MigrationLock[] = [];
  afterEach(async () => {
    await Promise.all(held.splice(0).map((lock) => lock.release()));
  });
  const take = async (database: string, more: Partial<MigrationLockOptions> = {}): Promise<MigrationLock> => {
    const lock = await holdMigrationLock(server.superuserUrl, {
      database,
      maintenanceDatabase: 'postgres',
      runId: 'run-one',
      step: 'apply.upgrade',
      signal,
      ...more,
    });
    held.push(lock);
    return lock;
  };

  it('is held by one run, and tells the second who has it', async () => {
    const database = randomName('db');
    const lock = await take(database);
    const error = await take(database, { runId: 'run-two' }).catch((reason: unknown) => reason);
    expect((error as StepError).type).toBe(STEP_ERRORS.refused);
    expect((error as StepError).message).toMatch(
      new RegExp(`pid ${lock.pid}.*migration-runbook/run-one/apply.upgrade/lock`),
    );
    await lock.release();
    await take(database, { runId: 'run-two' });
  });

  it('keeps other databases free', async () => {
    const one = await take(randomName('db'));
    const other = await take(randomName('db'), { runId: 'run-two' });
    expect(other.pid).not.toBe(one.pid);
  });

  it('is taken over from an earlier attempt of the same run, which learns that it has lost it', async () => {
    const database = randomName('db');
    const first = await take(database);
    const second = await take(database);
    expect((await first.lost).message).toContain('lost');
    expect(await query(server.superuserUrl, 'SELECT FROM pg_stat_activity WHERE pid = $1', [second.pid])).toHaveLength(
      1,
    );
  });

  describe('bound sessions', () => {
    const optionsOf = (database: string): MigrationLockOptions => ({
      database,
      maintenanceDatabase: 'postgres',
      runId: 'run-one',
      step: 'apply.upgrade',
      signal,
    });
    const inScope = (step: string) => ({ runId: 'run-one', step, signal: new AbortController().signal });

    it('of an attempt that lost the lock are gone before the next one has it', async () => {
      const database = randomName('db');
      const pids: number[] = [];
      const began = Promise.withResolvers<void>();
      const first = underMigrationLock(server.superuserUrl, optionsOf(database), () =>
        withConnection(server.superuserUrl, inScope('a'), async (client, { pid }) => {
          pids.push(pid);
          began.resolve();
          await client.query('SELECT pg_sleep(60)');
        }),
      );
      first.catch(() => undefined);
      await began.promise;
      await underMigrationLock(server.superuserUrl, optionsOf(database), async () => {
        // Whoever runs a statement holds at least the lock on its own transaction. A process whose transaction is over and
        // whose locks are gone may take a moment more to leave.
        expect(await query(server.superuserUrl, 'SELECT FROM pg_locks WHERE pid = ANY ($1)', [pids])).toEqual([]);
        await expect
          .poll(() => query(server.superuserUrl, 'SELECT FROM pg_stat_activity WHERE pid = ANY ($1)', [pids]))
          .toEqual([]);
      });
      await expect(first).rejects.toThrow(/terminat|connection/);
    });

    it('cannot be opened any more once another has the lock', async () => {
      const database = randomName('db');
      const open = Promise.withResolvers<void>();
      const began = Promise.withResolvers<void>();
      const first = underMigrationLock(server.superuserUrl, optionsOf(database), async () => {
        began.resolve();
        await open.promise;
        return withConnection(server.superuserUrl, inScope('late'), () => Promise.resolve('worked'));
      });
      await began.promise;
      await underMigrationLock(server.superuserUrl, optionsOf(database), async () => {
        open.resolve();
        await expect(first).rejects.toThrow('no longer held by this attempt');
      });
    });

    it('are let be where the lock that is taken is of another database', async () => {
      await underMigrationLock(server.superuserUrl, optionsOf(randomName('db')), () =>
        withConnection(server.superuserUrl, inScope('a'), async (client) => {
          await take(randomName('db'));
          expect((await client.query('SELECT 1')).rowCount).toBe(1);
        }),
      );
    });
  });

  it('is not taken from a later attempt by one that was frozen before it came to the lock', async () => {
    const database = randomName('db');
    const later = await take(database);
    const given = new StepError(STEP_ERRORS.unavailable, 'given up for lost');
    await expect(take(database, { requireCurrent: () => Promise.reject(given) })).rejects.toBe(given);
    expect(await query(server.superuserUrl, 'SELECT FROM pg_stat_activity WHERE pid = $1', [later.pid])).toHaveLength(
      1,
    );
  });

  it('is not kept by an attempt that was given up for lost', async () => {
    const database = randomName('db');
    const given = new StepError(STEP_ERRORS.unavailable, 'given up for lost');
    await expect(take(database, { requireCurrent: () => Promise.reject(given) })).rejects.toBe(given);
    await take(database, { runId: 'run-two' });
  });

  it('does not stand in the way of renaming the database', async () => {
    const database = await createDatabase(server);
    await take(database.name);
    await execute(server.superuserUrl, `ALTER DATABASE ${database.name} RENAME TO ${database.name}_renamed`);
    const renamed = await query(server.superuserUrl, 'SELECT FROM pg_database WHERE datname = $1', [
      `${database.name}_renamed`,
    ]);
    expect(renamed).toHaveLength(1);
  });
});

describe('invalid indexes', () => {
  it('drops what an interrupted concurrent build left, and only that', async () => {
    const service = await createService(server);
    // A unique build over duplicates fails half-way: the first one before the migration, the second one its doing.
    await execute(service.migratorUrl, `INSERT INTO public.users (name) VALUES ('twice'), ('twice')`);
    const failedBuild = (name: string): Promise<void> =>
      execute(service.migratorUrl, `CREATE UNIQUE INDEX CONCURRENTLY ${name} ON public.users (name)`);
    await expect(failedBuild('was_there')).rejects.toThrow(/could not create unique index/);
    const list = () =>
      withConnection(service.administratorUrl, options(), async (client) =>
        (await listInvalidIndexes(client)).map(({ name }) => name),
      );
    const before = await list();
    expect(before).toEqual(['public.was_there']);
    await expect(failedBuild('half_built')).rejects.toThrow(/could not create unique index/);
    const result = await withConnection(service.administratorUrl, options(), (client) =>
      dropInvalidIndexes(client, before, async () => undefined),
    );
    expect(result).toEqual({
      dropped: ['public.half_built'],
      kept: [{ name: 'public.was_there', why: 'was invalid before' }],
    });
    expect(await list()).toEqual(before);
  });

  it('leaves an index alone that somebody is building at this moment', async () => {
    const service = await createService(server);
    await withClient(service.applicationUrl, async (blocker) => {
      await blocker.query('BEGIN');
      await blocker.query('UPDATE public.users SET name = name WHERE id = 1');
      const builder = await connect(service.migratorUrl);
      await builder.query('SET lock_timeout = 0');
      const building = builder.query('CREATE INDEX CONCURRENTLY in_progress ON public.users (name)');
      await withConnection(service.administratorUrl, options(), async (client) => {
        await expect.poll(async () => (await listInvalidIndexes(client)).length).toBe(1);
        expect(await dropInvalidIndexes(client, [], async () => undefined)).toEqual({
          dropped: [],
          kept: [{ name: 'public.in_progress', why: 'is being built' }],
        });
      });
      await blocker.query('COMMIT');
      await building;
    });
    expect(await withConnection(service.administratorUrl, options(), listInvalidIndexes)).toEqual([]);
  });

  it('sees the sessions of a role that acts as another under its login name', async () => {
    const service = await createService(server);
    await connect(service.migratorUrl);
    const sessions = await withConnection(service.administratorUrl, options(), (client) =>
      listSessions(client, { role: service.roles.migrator }),
    );
    expect(sessions).toHaveLength(1);
  });
});
