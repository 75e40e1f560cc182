import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { Client } from 'pg';
import { describe, expect, it } from 'vitest';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import { underMigrationLock } from '../../src/postgres/advisory-lock.ts';
import { carryFence, createDatabaseLike } from '../../src/postgres/catalog/database-properties.ts';
import { parseDatabaseMark } from '../../src/postgres/restore/database-mark.ts';
import { freshDatabaseName } from '../../src/postgres/restore/restore.ts';
import { swapDatabases, type SwapRequest } from '../../src/postgres/swap/swap.ts';
import { createService, execute, query, type TestService, withClient } from '../postgres-service.ts';
import { databaseUrl, useStack } from '../stack.ts';
import { failureOf } from '../step-failure.ts';
import type { FrozenSwap } from './frozen-swap.ts';

const { primary: server, replica } = useStack().postgres;
const signal = new AbortController().signal;

/** A service whose production has been migrated, and a fresh database beside it that stands where it stood before. */
async function restored(runId: string): Promise<{ service: TestService; fresh: string }> {
  const service = await createService(server);
  const fresh = await restoreBeside(service, runId);
  await execute(
    service.migratorUrl,
    'DELETE FROM public.notes WHERE id <= 100',
    `UPDATE public.alembic_version SET version_num = '0003'`,
  );
  return { service, fresh };
}

/** A database as a restore leaves it: owned and filled as production, nobody but its owner's members let in. */
async function restoreBeside(service: TestService, runId: string): Promise<string> {
  const fresh = freshDatabaseName(service.database, runId);
  await withClient(server.superuserUrl, (client) => createDatabaseLike(client, service.database, fresh));
  await execute(
    databaseUrl(server, fresh),
    `SET ROLE ${service.roles.owner}`,
    'CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY)',
    `INSERT INTO public.alembic_version VALUES ('0002')`,
    'CREATE TABLE public.notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint, body text)',
    `INSERT INTO public.notes (body) SELECT repeat('x', 20) FROM generate_series(1, 2000)`,
    `GRANT USAGE ON SCHEMA public TO ${service.roles.application}`,
    `GRANT SELECT, INSERT ON public.notes, public.alembic_version TO ${service.roles.application}`,
  );
  return fresh;
}

const swapOf = (service: TestService, fresh: string, runId: string, more: Partial<SwapRequest> = {}): SwapRequest => ({
  url: service.administratorUrl,
  maintenanceDatabase: 'postgres',
  fresh,
  runId,
  service: 'whisper-transcriber',
  workflowId: 'migrate-whisper-transcriber',
  quarantine: 3_600_000,
  step: 'recovery.restore/swap',
  standbys: [{ name: replica.name, sessions: 'none' }],
  signal,
  progress: () => undefined,
  ...more,
});

const databases = async (service: TestService) =>
  query<{ name: string; oid: number; open: boolean; comment: string | null }>(
    server.superuserUrl,
    `SELECT datname AS name, oid::int8::float8 AS oid, datallowconn AS open, shobj_description(oid, 'pg_database') AS comment
     FROM pg_database WHERE starts_with(datname, $1) ORDER BY datname`,
    [service.database],
  );

/** ACL, settings and comment of the database that has this name, without OIDs. */
const propertiesOf = (service: TestService) =>
  query(
    server.superuserUrl,
    `SELECT (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(d.datacl) a) AS acl, d.datconnlimit, d.datcollate, d.encoding,
            pg_get_userbyid(d.datdba) AS owner, shobj_description(d.oid, 'pg_database') AS comment,
            (SELECT array_agg(coalesce(r.rolname, '-') || ' ' || s.setconfig::text ORDER BY 1)
             FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = d.oid) AS settings
     FROM pg_database d WHERE d.datname = $1`,
    [service.database],
  );

const version = async (service: TestService): Promise<string> =>
  (await query<{ v: string }>(service.administratorUrl, 'SELECT version_num AS v FROM public.alembic_version'))[0]!.v;

/** A session that stays, as a client library keeps it: its loss is noticed by nobody but itself. */
async function stay(url: string): Promise<Client> {
  const client = new Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

describe('swapping the restored database in', () => {
  it('replaces production under a connected writer, keeps the old database aside and carries over what no dump holds', async () => {
    const runId = '0190a001-1';
    const { service, fresh } = await restored(runId);
    const before = await propertiesOf(service);
    const writer = await startWriter(service.applicationUrl);
    await writer.wrote(3);
    const evidence = await swapDatabases(swapOf(service, fresh, runId));
    const keptAside = `${service.database}_before_0190a001-1`;
    expect(evidence).toMatchObject({ database: service.database, keptAside, standbySessions: 0, openItems: [] });
    expect(evidence.endedSessions).toBeGreaterThanOrEqual(1);
    expect(evidence.shutOut).toBeGreaterThan(0);
    await writer.wrote(3);
    const writes = await writer.stop();

    expect(await version(service)).toBe('0002');
    expect(await propertiesOf(service)).toEqual(before);
    const [production, aside] = await databases(service);
    expect(production).toMatchObject({ name: service.database, open: true });
    expect(aside).toMatchObject({ name: keptAside, open: false });
    expect(aside?.comment).toContain(`Put aside by run ${runId}`);
    expect(parseDatabaseMark(aside?.comment, aside?.oid)).toMatchObject({
      kind: 'kept-aside',
      runId,
      service: 'whisper-transcriber',
      workflowId: 'migrate-whisper-transcriber',
      expiresAt: evidence.quarantineUntil,
    });
    // Every confirmed write is in one of the two; the one under way at the time may have been committed unconfirmed.
    await query(server.superuserUrl, `ALTER DATABASE "${keptAside}" ALLOW_CONNECTIONS true`);
    const written = async (database: string) =>
      (
        await query<{ n: number }>(
          databaseUrl(server, database),
          `SELECT count(*)::int AS n FROM public.notes WHERE body LIKE 'writer %'`,
        )
      )[0]!.n;
    const found = (await written(service.database)) + (await written(keptAside));
    expect([writes, writes + 1]).toContain(found);
  });

  it('is not starved by clients that log in again and again, into production and into the restored database', async () => {
    const runId = '0190a008-1';
    const { service, fresh } = await restored(runId);
    await query(server.superuserUrl, `GRANT CONNECT ON DATABASE "${fresh}" TO ${service.roles.application}`);
    const writer = await startWriter(service.applicationUrl);
    const storm = await Promise.all([
      ...Array.from({ length: 8 }, () => startWriter(service.applicationUrl)),
      startWriter(service.applicationUrl.replace(service.database, fresh)),
    ]);
    await writer.wrote(3);
    const evidence = await swapDatabases(swapOf(service, fresh, runId));
    expect(evidence.keptAside).toBe(`${service.database}_before_0190a008-1`);
    await writer.wrote(3);
    await Promise.all([writer, ...storm].map((client) => client.stop()));
    expect(await version(service)).toBe('0002');
  });

  it('answers a second time with what the first attempt did', async () => {
    const runId = '0190a002-1';
    const { service, fresh } = await restored(runId);
    const first = await swapDatabases(swapOf(service, fresh, runId));
    const second = await swapDatabases(swapOf(service, fresh, runId));
    expect(second).toMatchObject({
      database: first.database,
      keptAside: first.keptAside,
      endedSessions: first.endedSessions,
      quarantineUntil: first.quarantineUntil,
    });
    expect((await databases(service)).map(({ name }) => name)).toEqual([service.database, first.keptAside]);
  });

  it('does not take the record of another run for its own', async () => {
    const runId = '0190a009-1';
    const { service, fresh } = await restored(runId);
    await swapDatabases(swapOf(service, fresh, runId));
    const error = await failureOf(swapDatabases(swapOf(service, fresh, '0190a009-2')));
    expect(error.type).toBe(STEP_ERRORS.stateUnexpected);
    expect(error.message).toContain('restore again');
  });

  it.each(['shut-out', 'sessions-ended'] as const)(
    'lets connections in again when an attempt died after %s, then swaps',
    async (phase) => {
      const runId = `0190a003-${phase}`;
      const { service, fresh } = await restored(runId);
      await dieAt(phase, swapOf(service, fresh, runId));
      expect((await databases(service)).map(({ open }) => open)).toEqual([false, false]);
      await expect(query(service.applicationUrl, 'SELECT 1')).rejects.toThrow(/not currently accepting connections/);

      // Something that stops this attempt before it would shut out again.
      const setting = `ALTER ROLE ${service.roles.application} IN DATABASE ${service.database}`;
      await query(server.superuserUrl, `${setting} SET log_min_duration_statement = 5`);
      expect((await failureOf(swapDatabases(swapOf(service, fresh, runId)))).type).toBe(STEP_ERRORS.refused);
      expect((await databases(service)).map(({ open }) => open)).toEqual([true, true]);
      expect(await version(service)).toBe('0003');

      await query(server.superuserUrl, `${setting} RESET log_min_duration_statement`);
      const evidence = await swapDatabases(swapOf(service, fresh, runId));
      expect(evidence.keptAside).toMatch(new RegExp(`^${service.database}_before_`));
      expect(await version(service)).toBe('0002');
    },
  );

  it('tells what was done when an attempt died after the names had changed', async () => {
    const runId = '0190a010-1';
    const { service, fresh } = await restored(runId);
    await dieAt('swapped', swapOf(service, fresh, runId));
    const evidence = await swapDatabases(swapOf(service, fresh, runId));
    expect(evidence).toMatchObject({ keptAside: `${service.database}_before_0190a010-1`, openItems: [] });
    expect((await databases(service)).map(({ open }) => open)).toEqual([true, false]);
    expect(await version(service)).toBe('0002');
  });

  it.each(['shut-out', 'sessions-ended'] as const)(
    'lets connections in again when it is cancelled at %s',
    async (at) => {
      const runId = `0190a004-${at}`;
      const { service, fresh } = await restored(runId);
      const stop = new AbortController();
      await expect(
        swapDatabases(
          swapOf(service, fresh, runId, {
            signal: stop.signal,
            progress: (phase) => {
              if (phase === at) stop.abort(new Error('cancelled'));
            },
          }),
        ),
      ).rejects.toThrow('cancelled');
      expect(await databases(service)).toEqual([
        expect.objectContaining({ name: service.database, open: true }),
        expect.objectContaining({ name: fresh, open: true }),
      ]);
      expect(await version(service)).toBe('0003');
    },
  );

  it('lets connections in again when a session cannot be ended, soon', async () => {
    const runId = '0190a011-1';
    const { service, fresh } = await restored(runId);
    let superuser: Client | undefined;
    const error = await failureOf(
      swapDatabases(
        swapOf(service, fresh, runId, {
          // Comes after everything has been looked at; the door is still open.
          inspectFresh: async () => {
            superuser = await stay(service.superuserUrl);
            return [];
          },
        }),
      ),
    );
    expect(error.type).toBe(STEP_ERRORS.stateUnexpected);
    expect(error.message).toContain('the administrator may not end it');
    expect((await databases(service)).map(({ name, open }) => [name, open])).toEqual([
      [service.database, true],
      [fresh, true],
    ]);
    await superuser!.end();
    await swapDatabases(swapOf(service, fresh, runId));
    expect(await version(service)).toBe('0002');
  });

  it('refuses with every reason before anybody is shut out', async () => {
    const runId = '0190a005-1';
    const { service, fresh } = await restored(runId);
    const superuser = await stay(service.superuserUrl);
    await query(
      server.superuserUrl,
      `ALTER ROLE ${service.roles.application} IN DATABASE ${service.database} SET log_min_duration_statement = 5`,
    );
    const error = await failureOf(
      swapDatabases(
        swapOf(service, fresh, runId, {
          standbys: [{ name: replica.name, sessions: 'end' }],
          inspectFresh: async (client) => {
            const { rows } = await client.query<{ name: string }>('SELECT current_database() AS name');
            return [`looked at ${rows[0]!.name}`];
          },
        }),
      ),
    );
    expect(error.type).toBe(STEP_ERRORS.refused);
    expect(error.message).toContain('a superuser is connected');
    expect(error.message).toContain('a setting of database');
    expect(error.message).toContain(`standby "${replica.name}": give databases.production.standbys[].administrator`);
    expect(error.message).toContain(`looked at ${fresh}`);
    expect((await databases(service)).every(({ open }) => open)).toBe(true);
    await superuser.end();
  });

  it('does not open a database that somebody else has closed', async () => {
    const runId = '0190a006-1';
    const { service, fresh } = await restored(runId);
    await query(server.superuserUrl, `ALTER DATABASE ${service.database} ALLOW_CONNECTIONS false`);
    const error = await failureOf(swapDatabases(swapOf(service, fresh, runId)));
    expect(error.type).toBe(STEP_ERRORS.stateUnexpected);
    expect((await databases(service)).find(({ name }) => name === service.database)?.open).toBe(false);
  });

  it('keeps a second database aside under a number when one run restores twice', async () => {
    const runId = '0190a007-1';
    const { service, fresh } = await restored(runId);
    await swapDatabases(swapOf(service, fresh, runId));
    const again = await restoreBeside(service, runId);
    const second = await swapDatabases(swapOf(service, again, runId));
    expect((await databases(service)).map(({ name }) => name)).toEqual([
      service.database,
      `${service.database}_before_0190a007-1`,
      `${service.database}_before_0190a007-1_2`,
    ]);
    expect(await swapDatabases(swapOf(service, again, runId))).toMatchObject({ keptAside: second.keptAside });
  });

  it('leaves the old database closed though an earlier attempt that was given up for lost opens it meanwhile', async () => {
    const runId = '0190a013-1';
    const { service, fresh } = await restored(runId);
    const open = (): unknown =>
      execFileSync(join(server.binDirectory, 'psql'), [
        server.superuserUrl,
        '--command',
        `ALTER DATABASE ${service.database} ALLOW_CONNECTIONS true`,
      ]);
    const { keptAside } = await swapDatabases(
      swapOf(service, fresh, runId, { progress: (phase) => void (phase === 'sessions-ended' && open()) }),
    );
    expect((await databases(service)).map(({ name, open: isOpen }) => [name, isOpen])).toEqual([
      [service.database, true],
      [keptAside, false],
    ]);
  });

  it('carries the fence and touches no right and no other setting, for nobody would give them back', async () => {
    const runId = '0190a014-1';
    const { service, fresh } = await restored(runId);
    const { application, migrator } = service.roles;
    await execute(
      server.superuserUrl,
      `ALTER DATABASE ${service.database} SET default_transaction_read_only = on`,
      `ALTER ROLE ${migrator} IN DATABASE ${service.database} SET default_transaction_read_only = off`,
      `ALTER ROLE ${application} IN DATABASE "${fresh}" SET default_transaction_read_only = on`,
      `ALTER ROLE ${application} IN DATABASE "${fresh}" SET work_mem = '5MB'`,
      // An administrator who is no superuser could not set it again.
      `ALTER DATABASE "${fresh}" SET log_min_duration_statement = 1000`,
    );
    const maintenance = new URL(service.administratorUrl);
    maintenance.pathname = '/postgres';
    expect(await withClient(maintenance.href, (client) => carryFence(client, service.database, fresh))).toEqual([]);
    expect(
      await query(
        server.superuserUrl,
        `SELECT s.setrole::regrole::text AS role, s.setconfig AS settings
         FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = $1 ORDER BY s.setrole <> 0, 1`,
        [fresh],
      ),
    ).toEqual(
      expect.arrayContaining([
        { role: '-', settings: ['log_min_duration_statement=1000', 'default_transaction_read_only=on'] },
        { role: application, settings: ['work_mem=5MB'] },
        { role: migrator, settings: ['default_transaction_read_only=off'] },
      ]),
    );
  });

  it('cuts names at 63 bytes, never inside a character, and keeps what tells the run', async () => {
    const runId = '0190a012-4242-7000-8000-00000000f00d';
    const { service } = await restored(runId);
    const long = `${service.database}_${'ї'.repeat(20)}`;
    await query(server.superuserUrl, `ALTER DATABASE ${service.database} RENAME TO "${long}"`);
    const renamed: TestService = {
      ...service,
      database: long,
      administratorUrl: service.administratorUrl.replace(service.database, encodeURIComponent(long)),
    };
    const fresh = freshDatabaseName(long, runId);
    await withClient(server.superuserUrl, (client) => createDatabaseLike(client, long, fresh));
    const { keptAside } = await swapDatabases(swapOf(renamed, fresh, runId));
    expect(Buffer.byteLength(keptAside)).toBeLessThanOrEqual(63);
    expect(keptAside).toMatch(/_before_00000000f00d$/);
    expect(keptAside.startsWith(`${service.database}_ї`)).toBe(true);
    expect((await databases(service)).map(({ name }) => name)).toContain(long);
  });
});

/** Runs the swap in a process of its own that kills itself as the phase begins. */
async function dieAt(phase: string, request: SwapRequest): Promise<void> {
  const module = new URL('../../src/postgres/swap/swap.ts', import.meta.url).href;
  const script = `
    const { swapDatabases } = await import(${JSON.stringify(module)});
    const request = JSON.parse(process.env.REQUEST);
    await swapDatabases({ ...request, signal: new AbortController().signal, progress: (phase) => {
      if (phase === ${JSON.stringify(phase)}) process.kill(process.pid, 'SIGKILL');
    } });`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    env: { PATH: process.env['PATH'], REQUEST: JSON.stringify({ ...request, signal: undefined }) },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [, ended] = (await once(child, 'exit')) as [number | null, string | null];
  expect(ended).toBe('SIGKILL');
}

interface Writer {
  /** Waits for so many more confirmed writes. */
  readonly wrote: (more: number) => Promise<void>;
  /** @returns confirmed writes in all */
  readonly stop: () => Promise<number>;
}

/** Inserts one row after another, and connects again whenever it is thrown out. */
async function startWriter(url: string): Promise<Writer> {
  let confirmed = 0;
  let running = true;
  const work = async (): Promise<void> => {
    while (running) {
      const client = new Client({ connectionString: url });
      client.on('error', () => undefined);
      try {
        await client.connect();
        while (running) {
          await client.query(`INSERT INTO public.notes (user_id, body) VALUES (1, 'writer ' || clock_timestamp())`);
          confirmed += 1;
        }
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 10));
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  };
  const done = work();
  return {
    wrote: async (more) => {
      const goal = confirmed + more;
      await expect.poll(() => confirmed, { timeout: 20_000 }).toBeGreaterThanOrEqual(goal);
    },
    stop: async () => {
      running = false;
      await done;
      return confirmed;
    },
  };
}

describe('a swap whose worker was frozen right before the renaming', () => {
  it('changes nothing any more once another attempt has held the lock, and leaves production open', async () => {
    const runId = '0190a0fe-1';
    const { service, fresh } = await restored(runId);
    const before = await databases(service);
    const { signal: _signal, progress: _progress, ...request } = swapOf(service, fresh, runId);
    const gate = new SharedArrayBuffer(4);
    const workerData: FrozenSwap = {
      request: { ...request, url: service.administratorUrl },
      database: service.database,
      gate,
    };
    const frozen = new Worker(new URL('frozen-swap.ts', import.meta.url), { workerData });
    expect(await once(frozen, 'message')).toEqual(['frozen']);

    // As any later step begins; then a person decides to keep what there is.
    const { maintenanceDatabase, step, url } = workerData.request;
    const lock = { database: service.database, maintenanceDatabase, runId, step: `${step}/later`, signal };
    await underMigrationLock(url, lock, async () =>
      execute(
        databaseUrl(server, 'postgres'),
        `ALTER DATABASE "${service.database}" ALLOW_CONNECTIONS true`,
        `ALTER DATABASE "${fresh}" ALLOW_CONNECTIONS true`,
      ),
    );

    const ended = once(frozen, 'message');
    const view = new Int32Array(gate);
    Atomics.store(view, 0, 1);
    Atomics.notify(view, 0);
    expect(await ended).not.toEqual(['swapped']);
    const facts = (rows: Awaited<ReturnType<typeof databases>>) =>
      rows.map(({ name, oid, open }) => ({ name, oid, open }));
    expect(facts(await databases(service))).toEqual(facts(before));
    expect(await version(service)).toBe('0003');
    await frozen.terminate();
  });
});
