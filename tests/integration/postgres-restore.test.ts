import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { beforeAll, describe, expect, it } from 'vitest';
import { STEP_ERRORS, StepError } from '../../src/contract/errors.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { readContents } from '../../src/postgres/contents/contents.ts';
import { readDatabaseProperties } from '../../src/postgres/catalog/database-properties.ts';
import { readIdentity } from '../../src/postgres/identity.ts';
import { markDatabase } from '../../src/postgres/restore/database-mark.ts';
import { captureObjectMap } from '../../src/postgres/catalog/object-map.ts';
import { type RestoreRequest, restoreFresh } from '../../src/postgres/restore/restore.ts';
import { closingMark } from '../../src/postgres/swap/swap-record.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { createService, execute, majorOf, query, type TestService, withClient } from '../postgres-service.ts';
import { databaseUrl, useStack } from '../stack.ts';
import { failureOf } from '../step-failure.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const server = useStack().postgres.primary;
const major = await majorOf(server);
const signal = new AbortController().signal;
const run = promisify(execFile);

let folder: string;
beforeAll(async () => {
  folder = await temporaryDirectory('restore-test');
});

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
    ['--format=custom', '--compress=0', `--file=${file}`, `--dbname=${url.pathname.slice(1)}`],
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
    contents: await readContents([client], { sampleAbove: 1e9 }),
    properties: await readDatabaseProperties(client, service.database),
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
  jobs: 2,
  pgRestore: { file: join(server.binDirectory, 'pg_restore'), major },
  mark: { service: 'whisper', workflowId: 'migrate-whisper', expiresAt: '2030-01-01T00:00:00.000Z' },
  standbys: [{ name: useStack().postgres.replica.name, sessions: 'none' }],
  room: { capacity: { kind: 'waiver', reason: 'a test' }, freeBytes: async () => '' },
  redactor: createRedactor([]),
  signal,
  progress: () => undefined,
  ...more,
});

const databases = async (service: TestService) =>
  query<{ name: string; open: boolean; limit: number; comment: string | null }>(
    server.superuserUrl,
    `SELECT datname AS name, datallowconn AS open, datconnlimit AS limit, shobj_description(oid, 'pg_database') AS comment
     FROM pg_database WHERE starts_with(datname, $1) ORDER BY datname`,
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
      compared: { checksums: 3, samples: 0, largeObjects: 0 },
    });
    expect(phases).toEqual(expect.arrayContaining(['prepare', 'indexes', 'compare']));
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

  it('opens a production that an interrupted swap of the run has left closed', async () => {
    const service = await createService(server);
    const backup = await backUp(service);
    const runId = '0190cccc-2';
    const { freshDatabase } = await restoreFresh(restoreOf(service, backup, runId));
    const whose = { runId, service: 'whisper', workflowId: 'migrate-whisper', quarantine: 3_600_000 };
    await withClient(server.superuserUrl, (client) =>
      markDatabase(client, freshDatabase, closingMark(whose, service.database)),
    );
    await query(server.superuserUrl, `ALTER DATABASE ${service.database} ALLOW_CONNECTIONS false`);
    await restoreFresh(restoreOf(service, backup, runId));
    expect((await databases(service)).map(({ open }) => open)).toEqual([true, true]);
  });

  it('restores the unfinished index of a partitioned table as it was: not valid', async () => {
    const service = await createService(server);
    await execute(
      service.migratorUrl,
      'CREATE TABLE public.events (day date, what text) PARTITION BY RANGE (day)',
      `CREATE TABLE public.events_2026 PARTITION OF public.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')`,
      'CREATE INDEX events_what ON ONLY public.events (what)',
    );
    const { freshDatabase } = await restoreFresh(restoreOf(service, await backUp(service), '0190cccc-3'));
    expect(
      await query(
        databaseUrl(server, freshDatabase),
        `SELECT FROM pg_index WHERE indexrelid = 'events_what'::regclass`,
      ),
    ).toHaveLength(1);
  });

  it('refuses a backup of roles that are gone since, before it does anything', async () => {
    const service = await createService(server);
    const backup = await backUp(service);
    const ledger = { ...backup.ledger, roles: [service.roles.owner, 'gone_since'] };
    const error = await failureOf(restoreFresh(restoreOf(service, { ...backup, ledger }, '0190cccc-4')));
    expect(error.type).toBe(STEP_ERRORS.refused);
    expect(error.message).toContain('role "gone_since"');
    expect(error.message).not.toContain(`role "${service.roles.owner}"`);
    expect(await databases(service)).toHaveLength(1);
  });

  it('brings sequences ahead of the recorded value and of their columns', async () => {
    const service = await createService(server);
    await execute(service.superuserUrl, `SELECT setval('public.users_id_seq', 1, false)`);
    const backup = await backUp(service);
    const sequences = backup.ledger.contents.sequences.map((state) =>
      state.sequence === 'public.notes_id_seq' ? { ...state, lastValue: '2345' } : state,
    );
    const ledger = { ...backup.ledger, contents: { ...backup.ledger.contents, sequences } };
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
    expect(error.message).toContain('table public.notes: 2000 rows recorded, 1999 rows found');
    expect(error.message).toContain('changed column public.users.name');
    expect(error.message).toContain('Production is untouched');
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
      restoreFresh(restoreOf(service, backup, '0190ffff-1', { pgRestore: { file: 'pg_restore', major: major + 1 } })),
    );
    expect(error.type).toBe(STEP_ERRORS.refused);
    expect(error.message).toContain('lacks CREATEDB');
    expect(error.message).toContain('a superuser is connected');
    expect(error.message).toContain(`pg_restore is of version ${major + 1}`);
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
