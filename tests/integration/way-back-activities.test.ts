import { randomUUID } from 'node:crypto';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { beforeAll, describe, expect, it } from 'vitest';
import { createAccessActivities } from '../../src/activities/preconditions/access.ts';
import { createBackupActivities } from '../../src/activities/backup/backup.ts';
import { createRestoreActivities } from '../../src/activities/recovery/restore.ts';
import { compareRowsWithBackup } from '../../src/activities/recovery/rolled-back-rows.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { createWayBackActivities } from '../../src/activities/recovery/way-back.ts';
import type { RestoreInput } from '../../src/contract/evidence/restore.ts';
import type { Profile, SecretReference } from '../../src/contract/profile.ts';
import { holdMigrationLock } from '../../src/postgres/advisory-lock.ts';
import { testProfile, testRun } from '../integration-context.ts';
import { createService, execute, query, type TestService } from '../postgres-service.ts';
import { secretFile } from '../secret-file.ts';
import { randomName, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { createKeys, never } from './archive-source.ts';

const stack = useStack();
let home: string;
beforeAll(async () => {
  home = await temporaryDirectory('way-back');
});

const secret = (value: string): Promise<SecretReference> => secretFile(home, value);

const dependencies = {
  secrets: createSecretVault(),
  get stateDirectory() {
    return home;
  },
};
const { inspectProduction } = createAccessActivities(dependencies);
const backups = createBackupActivities(dependencies);
const { restoreFreshDatabase, swapDatabases } = createRestoreActivities(dependencies);
const { estimateWayBack, salvageRows } = createWayBackActivities(dependencies);
const compareRows = compareRowsWithBackup(dependencies);

const asActivity = <T>(work: () => Promise<T>): Promise<T> =>
  new MockActivityEnvironment({ heartbeatTimeoutMs: 4_000 }, { logger: new DefaultLogger('ERROR') }).run(work);

interface World {
  readonly production: TestService;
  readonly input: RestoreInput;
}

/** A production of which this run has taken a backup. */
async function backedUp(): Promise<World> {
  const production = await createService(stack.postgres.primary);
  const keys = await createKeys();
  const template = testProfile(home);
  const profile: Profile = {
    ...template,
    postgresPrograms: stack.postgres.primary.binDirectory,
    databases: {
      ...template.databases,
      production: {
        ...template.databases.production,
        administrator: await secret(production.administratorUrl),
        migrator: await secret(production.migratorUrl),
        backup: await secret(production.backupUrl),
        applicationRoles: [production.roles.application],
        maintenanceDatabase: 'postgres',
        standbys: [{ name: stack.postgres.replica.name, sessions: 'none' }],
        tls: 'allow',
      },
    },
    restore: { ...template.restore, capacity: { kind: 'waiver', reason: 'a test has room' } },
    alembic: { ...template.alembic, versionTable: { schema: 'public', table: 'alembic_version' } },
    backup: {
      ...template.backup,
      bucket: stack.s3.bucket,
      region: stack.s3.region,
      endpoint: stack.s3.endpoint,
      forcePathStyle: true,
      prefix: randomName('way-back'),
      accessKeyId: await secret(stack.s3.accessKeyId),
      secretAccessKey: await secret(stack.s3.secretAccessKey),
      recipients: [keys.recipient],
      identity: await secret(keys.identity),
    },
  };
  const step = { run: { ...testRun, runId: randomUUID() }, profile };
  const before = await asActivity(() => inspectProduction(step));
  const backup = await asActivity(() => backups.captureBackup({ ...step, step: 'backup.capture' }));
  return { production, input: { ...step, backup, before } };
}

const UPGRADE = [
  'CREATE TABLE public.exports (id bigserial PRIMARY KEY, user_id bigint REFERENCES public.users)',
  'INSERT INTO public.exports (user_id) SELECT id FROM public.users WHERE id <= 10',
  `UPDATE public.alembic_version SET version_num = '0003'`,
];

describe('estimateWayBack', () => {
  it('tells what was written since the backup, by table, largest first, without the version table', async () => {
    const { production, input } = await backedUp();
    await execute(production.migratorUrl, ...UPGRADE);
    await execute(
      production.applicationUrl,
      `UPDATE public.users SET name = 'changed' WHERE id <= 30`,
      'DELETE FROM public.notes WHERE id <= 2',
    );
    expect(await asActivity(() => estimateWayBack(input))).toEqual({
      basis: 'statistics',
      since: input.backup.capturedAt,
      backupAge: expect.any(Number),
      tables: [
        { table: 'public.users', inserted: 0, updated: 30, deleted: 0 },
        { table: 'public.exports', inserted: 10, updated: 0, deleted: 0 },
        { table: 'public.notes', inserted: 0, updated: 0, deleted: 2 },
      ],
      furtherTables: 0,
      total: { inserted: 10, updated: 30, deleted: 2 },
      unknown: [],
      by: 'anybody',
      predictedMilliseconds: expect.any(Number),
    });
  });

  it('is an upper bound: what was rolled back counts', async () => {
    const { production, input } = await backedUp();
    await execute(
      production.applicationUrl,
      'BEGIN',
      `INSERT INTO public.users (name) SELECT 'never' FROM generate_series(1, 25)`,
      'ROLLBACK',
    );
    expect((await asActivity(() => estimateWayBack(input))).total.inserted).toBe(25);
  });

  it('names the tables that were rebuilt, emptied or dropped as not known', async () => {
    const { production, input } = await backedUp();
    await execute(
      production.migratorUrl,
      'TRUNCATE public.notes',
      'ALTER TABLE public.notes ALTER COLUMN body TYPE varchar(50)',
    );
    const cost = await asActivity(() => estimateWayBack(input));
    expect(cost.unknown).toEqual(['public.notes']);
    expect(cost.total).toEqual({ inserted: 0, updated: 0, deleted: 0 });
  });

  it('names columns that the migration dropped: what users wrote there since the backup is nowhere', async () => {
    const { production, input } = await backedUp();
    await execute(production.migratorUrl, 'ALTER TABLE public.notes DROP COLUMN body');
    expect((await asActivity(() => estimateWayBack(input))).unknown).toEqual([
      'public.notes.body (what was written there since, before the migration dropped it)',
    ]);
    const behindFence = { ...input, fencedSince: new Date(Date.parse(input.backup.capturedAt) - 1).toISOString() };
    expect((await asActivity(() => estimateWayBack(behindFence))).unknown).toEqual([]);
  });

  it('says that it was the migration alone only where the fence was up before the backup', async () => {
    const { input } = await backedUp();
    const by = async (fencedSince: string) => (await asActivity(() => estimateWayBack({ ...input, fencedSince }))).by;
    const at = Date.parse(input.backup.capturedAt);
    expect(await by(new Date(at - 1).toISOString())).toBe('migration');
    expect(await by(new Date(at + 1).toISOString())).toBe('anybody');
  });

  it('refuses to compare with the backup of another database', async () => {
    const { input } = await backedUp();
    const backup = { ...input.backup, database: { ...input.backup.database, database: 'elsewhere' } };
    await expect(asActivity(() => estimateWayBack({ ...input, backup }))).rejects.toMatchObject({
      type: 'StepRefused',
    });
  });
});

describe('compareRowsWithBackup', () => {
  it('is content with rows that came back, whatever the version table holds and wherever a column stands', async () => {
    const { production, input } = await backedUp();
    await execute(
      production.migratorUrl,
      ...UPGRADE,
      'CREATE TABLE public.kept AS SELECT id, body FROM public.notes',
      'ALTER TABLE public.notes DROP COLUMN body',
      'ALTER TABLE public.notes ADD COLUMN body text',
      'UPDATE public.notes n SET body = k.body FROM public.kept k WHERE k.id = n.id',
      'DROP TABLE public.kept, public.exports',
    );
    const [counts] = await query<{ users: number; notes: number }>(
      production.administratorUrl,
      'SELECT (SELECT count(*)::int FROM public.users) AS users, (SELECT count(*)::int FROM public.notes) AS notes',
    );
    const found = await asActivity(() => compareRows(input));
    expect(found).toMatchObject({ findings: [], samples: 0, largeObjects: 0 });
    expect(found.rows).toBeGreaterThanOrEqual(counts!.users + counts!.notes);
  });

  it('names a table with a changed row, one with a row more, and one that was left behind', async () => {
    const { production, input } = await backedUp();
    await execute(
      production.migratorUrl,
      `UPDATE public.users SET name = upper(name) || '!' WHERE id = 3`,
      'DELETE FROM public.notes WHERE id = 2',
      'CREATE TABLE public.exports (id bigint)',
    );
    expect((await asActivity(() => compareRows(input))).findings).toEqual([
      expect.stringMatching(/^table public\.exports: not recorded/),
      expect.stringMatching(/^table public\.notes: \d+ rows recorded, \d+ rows found/),
      expect.stringMatching(/^table public\.users: \d+ rows in both, but not the same/),
    ]);
  });

  it('names a sequence that fell back, not one that is further on', async () => {
    const { production, input } = await backedUp();
    const [sequence] = await query<{ name: string }>(
      production.administratorUrl,
      `SELECT pg_get_serial_sequence('public.users', 'id') AS name`,
    );
    const setTo = (value: string) =>
      execute(production.administratorUrl, `SELECT setval('${sequence!.name}', ${value})`);
    await setTo(`(SELECT last_value + 5 FROM ${sequence!.name})`);
    expect((await asActivity(() => compareRows(input))).findings).toEqual([]);
    await setTo('1');
    expect((await asActivity(() => compareRows(input))).findings).toEqual([
      expect.stringMatching(/^sequence public\.users_id_seq: at 1, was at \d+$/),
    ]);
  });

  it('refuses to compare with the backup of another database', async () => {
    const { input } = await backedUp();
    const backup = { ...input.backup, database: { ...input.backup.database, database: 'elsewhere' } };
    await expect(asActivity(() => compareRows({ ...input, backup }))).rejects.toMatchObject({ type: 'StepRefused' });
  });
});

describe('salvageRows', () => {
  it('compares the restored copy with production exactly, before the swap', async () => {
    const { production, input } = await backedUp();
    await execute(production.migratorUrl, ...UPGRADE);
    await execute(
      production.applicationUrl,
      `UPDATE public.users SET name = 'changed' WHERE id <= 30`,
      `UPDATE public.users SET name = 'user ' || id WHERE id <= 10`,
      `INSERT INTO public.notes (user_id, body) VALUES (1, 'written after the backup')`,
    );
    const estimated = await asActivity(() => estimateWayBack(input));
    const restored = await asActivity(() => restoreFreshDatabase(input));
    const { cost, archive, manifest } = await asActivity(() => salvageRows({ ...input, restored }));
    expect(cost).toMatchObject({
      basis: 'comparison',
      tables: [
        { table: 'public.users', inserted: 0, updated: 20, deleted: 0 },
        { table: 'public.exports', inserted: 10, updated: 0, deleted: 0 },
        { table: 'public.notes', inserted: 1, updated: 0, deleted: 0 },
      ],
      total: { inserted: 11, updated: 20, deleted: 0 },
      unknown: [],
      by: 'anybody',
    });
    expect(estimated.total).toEqual({ inserted: 11, updated: 40, deleted: 0 });
    const folder = `${input.profile.backup.prefix}/${input.run.service}/${input.run.runId}/recovery/`;
    const stored = [archive, manifest].map((document) => document?.uri.split(folder)[1]);
    expect(stored).toEqual([
      expect.stringMatching(/^salvage-\w+-1\.sql\.zst\.age$/),
      expect.stringMatching(/^salvage-\w+-1\.json$/),
    ]);
    expect(JSON.stringify(cost)).not.toContain('written after');
    await asActivity(() => swapDatabases({ ...input, restored }));
  });

  it('stores nothing where the restored copy is all that production has', async () => {
    const { production, input } = await backedUp();
    await execute(production.migratorUrl, `UPDATE public.alembic_version SET version_num = '0003'`);
    const restored = await asActivity(() => restoreFreshDatabase(input));
    const salvage = await asActivity(() => salvageRows({ ...input, restored }));
    expect(salvage).toMatchObject({ cost: { tables: [], unknown: [] }, archive: null, manifest: null });
  });

  it('waits for nobody: it is refused while another run holds the migration lock', async () => {
    const { production, input } = await backedUp();
    const restored = await asActivity(() => restoreFreshDatabase(input));
    const lock = await holdMigrationLock(production.administratorUrl, {
      database: production.database,
      maintenanceDatabase: 'postgres',
      runId: 'another-run',
      step: 'apply.upgrade',
      signal: never(),
    });
    try {
      await expect(asActivity(() => salvageRows({ ...input, restored }))).rejects.toMatchObject({
        type: 'StepRefused',
      });
    } finally {
      await lock.release();
    }
  });
});
