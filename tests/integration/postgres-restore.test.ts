import { execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { STEP_ERRORS, StepError } from '../../src/contract/errors.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { readIdentity } from '../../src/postgres/identity.ts';
import { captureObjectMap } from '../../src/postgres/object-map.ts';
import { type RestoreRequest, restoreFresh } from '../../src/postgres/restore.ts';
import { readRowCounts } from '../../src/postgres/row-counts.ts';
import { swapDatabases, type SwapRequest } from '../../src/postgres/swap.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { createService, execute, query, type TestService } from '../postgres-service.ts';
import { databaseUrl, useStack } from '../stack.ts';

const server = useStack().postgres.primary;
const signal = new AbortController().signal;
const run = promisify(execFile);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'restore-test-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A dump and its ledger, as `backup.capture` takes them. */
interface Backup {
  readonly file: string;
  readonly ledger: RestoreRequest['ledger'];
}

async function backUp(service: TestService): Promise<Backup> {
  const file = join(folder, `${service.database}-${randomUUID()}.dump`);
  const url = new URL(service.backupUrl);
  await run(
    join(server.binDirectory, 'pg_dump'),
    ['--format=custom', `--file=${file}`, `--dbname=${url.pathname.slice(1)}`],
    {
      env: {
        PATH: process.env['PATH'],
        PGHOST: url.hostname,
        PGPORT: url.port,
        PGUSER: url.username,
        PGPASSWORD: url.password,
      },
    },
  );
  const ledger = await withConnection(service.backupUrl, { runId: 'backup', step: 'test', signal }, async (client) => ({
    database: await readIdentity(client),
    counts: await readRowCounts(client),
    objectMap: await captureObjectMap(client),
  }));
  return { file, ledger };
}

const restoreOf = (
  service: TestService,
  backup: Backup,
  runId: string,
  more: Partial<RestoreRequest> = {},
): RestoreRequest => ({
  url: service.administratorUrl,
  maintenanceDatabase: 'postgres',
  runId,
  step: 'recovery.restore',
  ledger: backup.ledger,
  openBackup: () => createReadStream(backup.file),
  dumpBytes: 0,
  pgRestore: { file: join(server.binDirectory, 'pg_restore'), major: 18 },
  redactor: createRedactor([]),
  signal,
  progress: () => undefined,
  ...more,
});

const swapOf = (service: TestService, fresh: string, runId: string, more: Partial<SwapRequest> = {}): SwapRequest => ({
  url: service.administratorUrl,
  maintenanceDatabase: 'postgres',
  fresh,
  runId,
  step: 'recovery.restore/swap',
  signal,
  progress: () => undefined,
  ...more,
});

const failureOf = async (work: Promise<unknown>): Promise<StepError> => {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(StepError);
  return error as StepError;
};

const databases = async (service: TestService) =>
  query<{ name: string; open: boolean; limit: number; comment: string | null }>(
    server.superuserUrl,
    `SELECT datname AS name, datallowconn AS open, datconnlimit AS limit, shobj_description(oid, 'pg_database') AS comment
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

/** What a migration that damages data leaves: rows lost and changed, a table with a foreign key to an old one, a newer version. */
const damage = (service: TestService): Promise<void> =>
  execute(
    service.migratorUrl,
    `UPDATE public.users SET name = 'damaged'`,
    'DELETE FROM public.notes WHERE id <= 100',
    'CREATE TABLE public.exports (id bigserial PRIMARY KEY, user_id bigint REFERENCES public.users)',
    'INSERT INTO public.exports (user_id) SELECT id FROM public.users',
    `UPDATE public.alembic_version SET version_num = '0003'`,
  );

describe('restoring into a fresh database', () => {
  it('gives back exactly what was backed up, beside a production that is only read, by an administrator who is no superuser', async () => {
    const service = await createService(server);
    const backup = await backUp(service);
    await damage(service);
    const phases: string[] = [];
    const evidence = await restoreFresh(
      restoreOf(service, backup, '0190aaaa-1', {
        progress: ({ phase }) => void (phases.at(-1) === phase || phases.push(phase)),
      }),
    );
    expect(evidence).toMatchObject({
      freshDatabase: `${service.database}_restore_0190aaaa-1`,
      tables: 3,
      rows: 2501,
      sequences: 2,
      left: [
        { table: 'public.exports', production: 500, restored: 0 },
        { table: 'public.notes', production: 1900, restored: 2000 },
      ],
    });
    expect(phases).toEqual(expect.arrayContaining(['prepare', 'compare', 'analyze', 'count-production']));
    const fresh = databaseUrl(server, evidence.freshDatabase);
    expect(await query(fresh, 'SELECT version_num FROM public.alembic_version')).toEqual([{ version_num: '0002' }]);
    expect(await query(fresh, `SELECT FROM public.users WHERE name = 'damaged'`)).toHaveLength(0);
    expect(await query(fresh, `SELECT FROM pg_stats WHERE tablename = 'users' AND attname = 'name'`)).toHaveLength(1);
    expect(await query(fresh, `INSERT INTO public.notes (user_id) VALUES (1) RETURNING id`)).toEqual([{ id: '2001' }]);
    expect(
      await query(service.superuserUrl, `SELECT count(*)::int AS n FROM public.users WHERE name = 'damaged'`),
    ).toEqual([{ n: 500 }]);
  });

  it('drops what an earlier attempt left, sessions in it included', async () => {
    const service = await createService(server);
    const backup = await backUp(service);
    const runId = '0190bbbb-1';
    await restoreFresh(restoreOf(service, backup, runId));
    const fresh = `${service.database}_restore_0190bbbb-1`;
    await execute(databaseUrl(server, fresh), 'DELETE FROM public.notes');
    const curious = new Client({ connectionString: service.applicationUrl.replace(service.database, fresh) });
    curious.on('error', () => undefined);
    await curious.connect();
    const again = await restoreFresh(restoreOf(service, backup, runId));
    expect(again.rows).toBe(2501);
    await curious.end().catch(() => undefined);
  });

  it('brings sequences ahead of the recorded value and of their columns', async () => {
    const service = await createService(server);
    await execute(service.superuserUrl, `SELECT setval('public.users_id_seq', 1, false)`);
    const backup = await backUp(service);
    const sequences = backup.ledger.counts.sequences.map((state) =>
      state.sequence === 'public.notes_id_seq' ? { ...state, lastValue: '2345' } : state,
    );
    const ledger = { ...backup.ledger, counts: { ...backup.ledger.counts, sequences } };
    const { freshDatabase } = await restoreFresh(restoreOf(service, { ...backup, ledger }, '0190cccc-1'));
    const fresh = databaseUrl(server, freshDatabase);
    expect(await query(fresh, `SELECT nextval('public.users_id_seq') AS next`)).toEqual([{ next: '501' }]);
    expect(await query(fresh, `SELECT nextval('public.notes_id_seq') AS next`)).toEqual([{ next: '2346' }]);
  });

  it('fails, naming table and object, when the copy is not what the ledger says', async () => {
    const service = await createService(server);
    const before = await backUp(service);
    await execute(
      service.migratorUrl,
      'DELETE FROM public.notes WHERE id = 7',
      'ALTER TABLE public.users ALTER COLUMN name DROP NOT NULL',
    );
    const later = await backUp(service);
    const error = await failureOf(
      restoreFresh(restoreOf(service, { file: later.file, ledger: before.ledger }, '0190dddd-1')),
    );
    expect(error.type).toBe(STEP_ERRORS.checkFailed);
    expect(error.message).toContain('table public.notes: 2000 rows were backed up, 1999 were restored');
    expect(error.message).toContain('changed column public.users.name');
    expect(error.message).toContain('production is untouched');
  });

  it('fails when the dump breaks off, and leaves production alone', async () => {
    const service = await createService(server);
    const backup = await backUp(service);
    async function* half() {
      let given = 0;
      for await (const chunk of createReadStream(backup.file, { highWaterMark: 4096 })) {
        given += 1;
        if (given > 4) throw new StepError(STEP_ERRORS.backupDamaged, 'the object ends early');
        yield chunk as Uint8Array;
      }
    }
    const error = await failureOf(restoreFresh(restoreOf(service, backup, '0190eeee-1', { openBackup: half })));
    expect(error.type).toBe(STEP_ERRORS.backupDamaged);
    expect(await query(service.superuserUrl, 'SELECT count(*)::int AS n FROM public.notes')).toEqual([{ n: 2000 }]);
  });

  it('refuses with every reason before it does anything', async () => {
    const service = await createService(server);
    const backup = await backUp(service);
    await query(server.superuserUrl, `ALTER ROLE ${service.roles.administrator} NOCREATEDB`);
    const superuser = new Client({ connectionString: service.superuserUrl });
    superuser.on('error', () => undefined);
    await superuser.connect();
    const error = await failureOf(
      restoreFresh(restoreOf(service, backup, '0190ffff-1', { pgRestore: { file: 'pg_restore', major: 15 } })),
    );
    expect(error.type).toBe(STEP_ERRORS.refused);
    expect(error.message).toContain('lacks CREATEDB');
    expect(error.message).toContain('a superuser is connected');
    expect(error.message).toContain('pg_restore is of version 15');
    expect(await databases(service)).toHaveLength(1);
    await superuser.end();
  });

  it('refuses the backup of another database', async () => {
    const service = await createService(server);
    const other = await createService(server);
    const error = await failureOf(restoreFresh(restoreOf(service, await backUp(other), '01900000-1')));
    expect(error.type).toBe(STEP_ERRORS.refused);
    expect(error.message).toContain(`the backup was taken of database "${other.database}"`);
  });
});

describe('swapping the restored database in', () => {
  async function restored(runId: string): Promise<{ service: TestService; fresh: string }> {
    const service = await createService(server);
    const backup = await backUp(service);
    await damage(service);
    const { freshDatabase } = await restoreFresh(restoreOf(service, backup, runId));
    return { service, fresh: freshDatabase };
  }

  it('replaces production under a connected writer, keeps the old database aside and carries over what no dump holds', async () => {
    const runId = '0190a001-1';
    const { service, fresh } = await restored(runId);
    const before = await propertiesOf(service);
    const writer = await startWriter(service.applicationUrl);
    await writer.wrote(3);
    const evidence = await swapDatabases(swapOf(service, fresh, runId));
    const keptAside = `${service.database}_before_0190a001-1`;
    expect(evidence).toMatchObject({ database: service.database, keptAside });
    expect(evidence.endedSessions).toBeGreaterThanOrEqual(1);
    expect(evidence.shutOut).toBeGreaterThan(0);
    await writer.wrote(3);
    const writes = await writer.stop();

    expect(await query(service.applicationUrl, 'SELECT version_num FROM public.alembic_version')).toEqual([
      { version_num: '0002' },
    ]);
    expect(await propertiesOf(service)).toEqual(before);
    const [production, aside] = await databases(service);
    expect(production).toMatchObject({ name: service.database, open: true });
    expect(aside).toMatchObject({ name: keptAside, open: false });
    expect(aside?.comment).toContain(`Put aside by run ${runId}`);
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

  it('answers a second time with what the first attempt did', async () => {
    const runId = '0190a002-1';
    const { service, fresh } = await restored(runId);
    const first = await swapDatabases(swapOf(service, fresh, runId));
    const second = await swapDatabases(swapOf(service, fresh, runId));
    expect(second.keptAside).toBe(first.keptAside);
    expect(second.endedSessions).toBe(first.endedSessions);
    expect((await databases(service)).map(({ name }) => name)).toEqual([service.database, first.keptAside]);
  });

  it('lets connections in again when an attempt died between shut-out and renaming, then swaps', async () => {
    const runId = '0190a003-1';
    const { service, fresh } = await restored(runId);
    await dieAt('shut-out', swapOf(service, fresh, runId));
    expect((await databases(service)).find(({ name }) => name === service.database)?.open).toBe(false);
    await expect(query(service.applicationUrl, 'SELECT 1')).rejects.toThrow(/not currently accepting connections/);

    // Something that stops this attempt before it would shut out again.
    const setting = `ALTER ROLE ${service.roles.application} IN DATABASE ${service.database}`;
    await query(server.superuserUrl, `${setting} SET log_min_duration_statement = 5`);
    expect((await failureOf(swapDatabases(swapOf(service, fresh, runId)))).type).toBe(STEP_ERRORS.refused);
    expect(await query(service.applicationUrl, 'SELECT version_num FROM public.alembic_version')).toEqual([
      { version_num: '0003' },
    ]);

    await query(server.superuserUrl, `${setting} RESET log_min_duration_statement`);
    const evidence = await swapDatabases(swapOf(service, fresh, runId));
    expect(evidence.keptAside).toBe(`${service.database}_before_0190a003-1`);
    expect(await query(service.applicationUrl, 'SELECT version_num FROM public.alembic_version')).toEqual([
      { version_num: '0002' },
    ]);
  });

  it('lets connections in again when it fails, and when it is cancelled', async () => {
    const runId = '0190a004-1';
    const { service, fresh } = await restored(runId);
    const stop = new AbortController();
    await expect(
      swapDatabases(
        swapOf(service, fresh, runId, {
          signal: stop.signal,
          progress: (phase) => {
            if (phase === 'shut-out') stop.abort(new Error('cancelled'));
          },
        }),
      ),
    ).rejects.toThrow('cancelled');
    expect(await query(service.applicationUrl, 'SELECT version_num FROM public.alembic_version')).toEqual([
      { version_num: '0003' },
    ]);
    expect((await databases(service)).map(({ name }) => name)).toEqual([service.database, fresh]);
  });

  it('refuses with every reason before anybody is shut out', async () => {
    const runId = '0190a005-1';
    const { service, fresh } = await restored(runId);
    const superuser = new Client({ connectionString: service.superuserUrl });
    superuser.on('error', () => undefined);
    await superuser.connect();
    await query(
      server.superuserUrl,
      `ALTER ROLE ${service.roles.application} IN DATABASE ${service.database} SET log_min_duration_statement = 5`,
    );
    const error = await failureOf(swapDatabases(swapOf(service, fresh, runId)));
    expect(error.type).toBe(STEP_ERRORS.refused);
    expect(error.message).toContain('a superuser is connected');
    expect(error.message).toContain('a setting of database');
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
    const service = await createService(server);
    const backup = await backUp(service);
    for (const _ of [1, 2]) {
      const { freshDatabase } = await restoreFresh(restoreOf(service, backup, runId));
      await swapDatabases(swapOf(service, freshDatabase, runId));
    }
    expect((await databases(service)).map(({ name }) => name)).toEqual([
      service.database,
      `${service.database}_before_0190a007-1`,
      `${service.database}_before_0190a007-1_2`,
    ]);
  });
});

/** Runs the swap in a process of its own that kills itself as the phase begins. */
async function dieAt(phase: string, request: SwapRequest): Promise<void> {
  const module = new URL('../../src/postgres/swap.ts', import.meta.url).href;
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
          await client.query(`INSERT INTO public.notes (user_id, body) VALUES (1, 'writer ' || now())`);
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
