import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, readdirSync, readFileSync, statSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { STEP_ERRORS, StepError } from '../../src/contract/errors.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { readContents } from '../../src/postgres/contents/contents.ts';
import { parseDatabaseMark } from '../../src/postgres/restore/database-mark.ts';
import { readDatabaseProperties } from '../../src/postgres/catalog/database-properties.ts';
import { readIdentity } from '../../src/postgres/identity.ts';
import { captureObjectMap } from '../../src/postgres/catalog/object-map.ts';
import {
  restoreBackup,
  type RestoreBackupRequest,
  restoreFresh,
  type RestoreProgress,
  type RestoreRequest,
} from '../../src/postgres/restore/restore.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { createService, execute, majorOf, query, type TestService } from '../postgres-service.ts';
import { createDatabase, databaseUrl, randomName, useStack } from '../stack.ts';
import { failureOf } from '../step-failure.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const server = useStack().postgres.primary;
const major = await majorOf(server);
const signal = new AbortController().signal;

let folder: string;
beforeAll(async () => {
  folder = await temporaryDirectory('restore-fill');
});

const libpq = (url: string): Record<string, string> => {
  const { hostname, port, username, password, pathname } = new URL(url);
  return {
    PATH: process.env['PATH'] ?? '',
    PGHOST: hostname,
    PGPORT: port,
    PGUSER: username,
    PGPASSWORD: decodeURIComponent(password),
    PGDATABASE: pathname.slice(1),
  };
};

interface Backup {
  readonly file: string;
  readonly ledger: RestoreRequest['ledger'];
}

/** As `backup.capture` takes them. */
async function backUp(url: string): Promise<Backup> {
  const file = join(folder, `${randomName('backup')}.dump`);
  await promisify(execFile)(join(server.binDirectory, 'pg_dump'), ['-Fc', '-Z0', `--file=${file}`], {
    env: libpq(url),
  });
  const ledger = await withConnection(url, { runId: 'backup', step: 'test', signal }, async (client) => ({
    database: await readIdentity(client),
    contents: await readContents([client], { sampleAbove: Number.POSITIVE_INFINITY }),
    properties: await readDatabaseProperties(client, new URL(url).pathname.slice(1)),
    objectMap: await captureObjectMap(client),
  }));
  return { file, ledger };
}

const fillOf = (backup: Backup, target: string, more: Partial<RestoreBackupRequest> = {}): RestoreBackupRequest => ({
  target,
  runId: randomName('run'),
  step: 'test',
  ledger: backup.ledger,
  openBackup: () => createReadStream(backup.file),
  dumpBytes: 1,
  jobs: 2,
  pgRestore: { file: join(server.binDirectory, 'pg_restore') },
  scratchParent: folder,
  redactor: createRedactor([]),
  signal,
  progress: () => undefined,
  ...more,
});

const isScratchFolder = (name: string): boolean => name.startsWith('migration-runbook-restore-');
const scratchFolders = async (): Promise<string[]> => (await readdir(folder)).filter(isScratchFolder);

/** What does not follow the plain order of definitions, rows, indexes. */
const PECULIAR = [
  'CREATE TABLE ledger (id int PRIMARY KEY, amount numeric NOT NULL)',
  'INSERT INTO ledger SELECT g, g * 1.5 FROM generate_series(1, 3000) g',
  'CREATE TABLE entry (id serial PRIMARY KEY, ledger int REFERENCES ledger, secret text)',
  `INSERT INTO entry (ledger, secret) SELECT g, 'a row that only the rows hold ' || g FROM generate_series(1, 3000) g`,
  'CREATE INDEX entry_secret ON entry (secret)',
  `COMMENT ON INDEX entry_secret IS 'an index has a comment'`,
  'CREATE STATISTICS entry_both ON ledger, secret FROM entry',
  'CREATE MATERIALIZED VIEW total AS SELECT sum(amount) AS amount FROM ledger',
  'CREATE UNIQUE INDEX total_amount ON total (amount)',
  'CREATE MATERIALIZED VIEW by_key AS SELECT id, count(*) FROM ledger GROUP BY ledger.id WITH NO DATA',
  'CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$',
  'CREATE TRIGGER entry_refuse BEFORE INSERT ON entry FOR EACH ROW EXECUTE FUNCTION refuse()',
  `CREATE RULE entry_keep AS ON DELETE TO entry DO INSTEAD NOTHING`,
  'ALTER TABLE entry ENABLE ROW LEVEL SECURITY',
  'CREATE POLICY entry_mine ON entry USING (id > 0)',
  'ALTER TABLE entry ADD CONSTRAINT entry_later CHECK (id > 0) NOT VALID',
  'CREATE TABLE part (day date, value int) PARTITION BY RANGE (day)',
  `CREATE TABLE part_2026 PARTITION OF part FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')`,
  `INSERT INTO part SELECT date '2026-01-01' + g, g FROM generate_series(1, 300) g`,
  'CREATE INDEX part_day ON part (day)',
  'CREATE PUBLICATION everything FOR TABLE ledger',
  `SELECT lo_from_bytea(4711, decode(repeat('c0ffee', 30000), 'hex'))`,
  `CREATE FUNCTION no_new_tables() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nothing is created here'; END $$`,
  `CREATE EVENT TRIGGER watch ON ddl_command_start WHEN TAG IN ('CREATE INDEX', 'CREATE TABLE', 'ALTER TABLE', 'GRANT') EXECUTE FUNCTION no_new_tables()`,
  `COMMENT ON EVENT TRIGGER watch IS 'an event trigger has a comment'`,
] as const;

describe('filling an empty database', () => {
  it('restores what has an order of its own: rights, materialized views, event triggers, policies, large objects', async () => {
    const { url } = await createDatabase(server, 'peculiar');
    // The owner may not even read or fill his own tables any more: nothing that comes before the rights may meet them.
    const before = PECULIAR.slice(0, -3);
    const after = PECULIAR.slice(-3);
    const service = await createService(server);
    await execute(
      url,
      `CREATE SCHEMA app AUTHORIZATION ${service.roles.owner}`,
      `SET search_path = app, public`,
      ...before,
      `ALTER TABLE ledger OWNER TO ${service.roles.owner}`,
      `ALTER TABLE entry OWNER TO ${service.roles.owner}`,
      `REVOKE ALL ON ledger, entry FROM ${service.roles.owner}`,
      `GRANT SELECT ON ledger TO ${service.roles.application}`,
      `ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO ${service.roles.application}`,
      ...after,
    );
    const backup = await backUp(url);
    const copy = await createDatabase(server, 'peculiar_copy');
    const restored = await restoreBackup(fillOf(backup, copy.url));
    expect(restored).toMatchObject({ tables: 3, rows: 6300, compared: { checksums: 3, samples: 0, largeObjects: 1 } });
    expect(await query(copy.url, 'SELECT amount::float8 FROM app.total')).toEqual([{ amount: 6752250 }]);
    expect(await query(copy.url, `SELECT relispopulated FROM pg_class WHERE relname = 'by_key'`)).toEqual([
      { relispopulated: false },
    ]);
    await expect(execute(copy.url, 'CREATE TABLE app.more ()')).rejects.toThrow('nothing is created here');
    expect(await scratchFolders()).toEqual([]);
  });

  it('writes definitions to its scratch file and no row, for nobody else to read', async () => {
    const service = await createService(server);
    await execute(
      service.superuserUrl,
      `UPDATE public.users SET name = 'Ms Row ' || id`,
      `COMMENT ON TABLE public.users IS 'a definition to be found'`,
    );
    const backup = await backUp(service.superuserUrl);
    const copy = await createDatabase(server, 'scratch_file');
    const seen: { mode: number; text: string }[] = [];
    // While the restore waits for it: a moment later the folder may be gone.
    const look = (): void => {
      for (const name of readdirSync(folder).filter(isScratchFolder)) {
        const inside = join(folder, name);
        for (const path of [inside, ...readdirSync(inside).map((file) => join(inside, file))]) {
          const { mode } = statSync(path);
          seen.push({ mode: mode & 0o777, text: path === inside ? '' : readFileSync(path, 'latin1') });
        }
      }
    };
    await restoreBackup(
      fillOf(backup, copy.url, {
        progress: ({ phase }) => {
          if (phase === 'indexes') look();
        },
      }),
    );
    const texts = seen.map(({ text }) => text).join('');
    expect(texts).toContain('a definition to be found');
    expect(texts).not.toContain('Ms Row');
    expect([...new Set(seen.map(({ mode }) => mode.toString(8)))].sort()).toEqual(['600', '700']);
    expect(await scratchFolders()).toEqual([]);
  });

  it('refuses a database that is not empty', async () => {
    const service = await createService(server);
    const backup = await backUp(service.superuserUrl);
    const error = await failureOf(restoreBackup(fillOf(backup, service.superuserUrl)));
    expect(error.type).toBe(STEP_ERRORS.stateUnexpected);
    expect(error.message).toContain('is not empty (public.');
  });

  it('finds rows that are as many but not the same', async () => {
    const service = await createService(server);
    const before = await backUp(service.superuserUrl);
    await execute(service.superuserUrl, `UPDATE public.notes SET body = 'another' WHERE id = 5`);
    const later = await backUp(service.superuserUrl);
    const copy = await createDatabase(server, 'changed');
    const error = await failureOf(restoreBackup(fillOf({ ...later, ledger: before.ledger }, copy.url)));
    expect(error.type).toBe(STEP_ERRORS.checkFailed);
    expect(error.message).toContain('table public.notes: 2000 rows in both, but not the same ones');
  });

  it('takes a statement that the server refuses for an answer, said without the rows it quotes', async () => {
    const service = await createService(server);
    const backup = await backUp(service.superuserUrl);
    const copy = await createDatabase(server, 'conflict');
    await execute(copy.url, `CREATE DOMAIN public.state AS text`);
    const error = await failureOf(restoreBackup(fillOf(backup, copy.url)));
    expect(error.type).toBe(STEP_ERRORS.refused);
    expect(error.message).toContain('type "state" already exists');
    expect(error.message).not.toContain('creating');
  });

  it('is not done before the stream has proven itself, even when nothing more is to be read', async () => {
    const empty = await createDatabase(server, 'no_rows');
    const backup = await backUp(empty.url);
    async function* doubtful() {
      yield* createReadStream(backup.file) as AsyncIterable<Uint8Array>;
      throw new StepError(STEP_ERRORS.backupDamaged, 'the digest is another');
    }
    const copy = await createDatabase(server, 'no_rows_copy');
    expect((await restoreBackup(fillOf(backup, copy.url))).tables).toBe(0);
    const second = await createDatabase(server, 'no_rows_copy');
    const error = await failureOf(restoreBackup(fillOf(backup, second.url, { openBackup: doubtful })));
    expect(error.type).toBe(STEP_ERRORS.backupDamaged);
  });
});

const restoreOf = (service: TestService, backup: Backup, runId: string): RestoreRequest => ({
  ...fillOf(backup, ''),
  url: service.administratorUrl,
  maintenanceDatabase: 'postgres',
  runId,
  ledger: backup.ledger,
  pgRestore: { file: join(server.binDirectory, 'pg_restore'), major },
  mark: { service: 'whisper', workflowId: 'migrate-whisper', expiresAt: '2030-01-01T00:00:00.000Z' },
  standbys: [{ name: useStack().postgres.replica.name, sessions: 'none' }],
  room: { capacity: { kind: 'waiver', reason: 'a test' }, freeBytes: async () => '' },
});

/** Restores in a process of its own that kills itself in the phase, in `data` in the middle of the stream. */
async function dieIn(phase: RestoreProgress['phase'], request: RestoreRequest, file: string): Promise<void> {
  const module = (name: string): string => JSON.stringify(new URL(`../../src/${name}`, import.meta.url).href);
  const script = `
    const { restoreFresh } = await import(${module('postgres/restore/restore.ts')});
    const { createRedactor } = await import(${module('process/redactor.ts')});
    const { createReadStream } = await import('node:fs');
    const { phase, file, request } = JSON.parse(process.env.REQUEST);
    const die = () => process.kill(process.pid, 'SIGKILL');
    async function* stream() {
      let bytes = 0;
      for await (const chunk of createReadStream(file, { highWaterMark: 4096 })) {
        bytes += chunk.byteLength;
        yield chunk;
        if (phase === 'data' && bytes > 100_000) die();
      }
    }
    await restoreFresh({ ...request, openBackup: stream, redactor: createRedactor([]), signal: new AbortController().signal,
      room: { ...request.room, freeBytes: async () => '' },
      progress: (now) => { if (now.phase === phase) die(); } });`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    env: {
      PATH: process.env['PATH'],
      REQUEST: JSON.stringify({ phase, file, request: { ...request, signal: undefined } }),
    },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [, ended] = (await once(child, 'exit')) as [number | null, string | null];
  expect(ended).toBe('SIGKILL');
}

describe('a restore beside production', () => {
  it.each(['prepare', 'data', 'indexes', 'compare'] as const)(
    'killed in the phase %s and repeated ends with one good database and nothing left over',
    async (phase) => {
      const service = await createService(server);
      const backup = await backUp(service.superuserUrl);
      const runId = randomName('killed-run');
      const request = restoreOf(service, backup, runId);
      await dieIn(phase, request, backup.file);
      expect(await scratchFolders()).toHaveLength(phase === 'indexes' ? 1 : 0);

      const restored = await restoreFresh(request);
      expect(restored.rows).toBe(2501);
      const found = await query<{ name: string; comment: string }>(
        server.superuserUrl,
        `SELECT datname AS name, shobj_description(oid, 'pg_database') AS comment FROM pg_database
         WHERE starts_with(datname, $1) AND datname <> $1`,
        [service.database],
      );
      expect(found.map(({ name }) => name)).toEqual([restored.freshDatabase]);
      expect(parseDatabaseMark(found[0]?.comment)).toMatchObject({ kind: 'restore', runId, service: 'whisper' });
      expect(await query(databaseUrl(server, restored.freshDatabase), 'SELECT count(*)::int AS n FROM notes')).toEqual([
        { n: 2000 },
      ]);
      expect(await scratchFolders()).toEqual([]);
      expect(
        await query(server.superuserUrl, 'SELECT FROM pg_stat_activity WHERE usename = $1', [
          service.roles.administrator,
        ]),
      ).toEqual([]);
    },
  );

  it('gives an owner back what he has revoked from himself, by an administrator who is no superuser', async () => {
    const service = await createService(server);
    // Checking the foreign key anew needs to read both tables: it must come before the rights.
    await execute(
      service.superuserUrl,
      `REVOKE ALL ON public.users, public.notes FROM ${service.roles.owner}`,
      `CREATE MATERIALIZED VIEW public.total AS SELECT sum(amount) FROM (VALUES (1), (2)) AS v (amount)`,
      `ALTER MATERIALIZED VIEW public.total OWNER TO ${service.roles.owner}`,
    );
    const backup = await backUp(service.superuserUrl);
    const { freshDatabase } = await restoreFresh(restoreOf(service, backup, '0190fbfb-1'));
    const fresh = databaseUrl(server, freshDatabase);
    expect(await query(fresh, 'SELECT sum FROM public.total')).toEqual([{ sum: '3' }]);
    expect(
      await query(fresh, `SELECT has_table_privilege($1, 'public.users', 'SELECT') AS may`, [service.roles.owner]),
    ).toEqual([{ may: false }]);
  });

  it('leaves a database of that name alone that is not from its run', async () => {
    const service = await createService(server);
    const backup = await backUp(service.superuserUrl);
    const request = restoreOf(service, backup, '0190fefe-1');
    const name = `${service.database}_restore_0190fefe-1`;
    await execute(server.superuserUrl, `CREATE DATABASE "${name}"`, `COMMENT ON DATABASE "${name}" IS 'of somebody'`);
    const error = await failureOf(restoreFresh(request));
    expect(error.type).toBe(STEP_ERRORS.stateUnexpected);
    expect(error.message).toContain('its comment says "of somebody"');
  });

  it('refuses where there is no room for a second copy, before it makes one', async () => {
    const service = await createService(server);
    const backup = await backUp(service.superuserUrl);
    const request: RestoreRequest = {
      ...restoreOf(service, backup, '0190fcfc-1'),
      room: {
        capacity: {
          kind: 'command',
          action: { kind: 'command', command: ['df'], directory: 'profile', environment: {}, timeout: 1_000 },
        },
        freeBytes: async () => '1000',
      },
    };
    const error = await failureOf(restoreFresh(request));
    expect(error.type).toBe(STEP_ERRORS.refused);
    expect(error.message).toContain('no room for a second copy');
    expect(
      await query(server.superuserUrl, 'SELECT FROM pg_database WHERE starts_with(datname, $1)', [service.database]),
    ).toHaveLength(1);
  });

  it('works while the fence is up', async () => {
    const service = await createService(server);
    const backup = await backUp(service.superuserUrl);
    await execute(
      server.superuserUrl,
      `ALTER DATABASE ${service.database} SET default_transaction_read_only = on`,
      `ALTER ROLE ${service.roles.administrator} SET default_transaction_read_only = on`,
    );
    const { freshDatabase } = await restoreFresh(restoreOf(service, backup, '0190fdfd-1'));
    expect(await query(databaseUrl(server, freshDatabase, undefined), 'SHOW default_transaction_read_only')).toEqual([
      { default_transaction_read_only: 'on' },
    ]);
  });
});
