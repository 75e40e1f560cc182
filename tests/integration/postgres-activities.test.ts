import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { ApplicationFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { beforeAll, describe, expect, it } from 'vitest';
import { createAccessActivities } from '../../src/activities/preconditions/access.ts';
import { createBackupActivities } from '../../src/activities/backup/backup.ts';
import { createRestoreActivities } from '../../src/activities/recovery/restore.ts';
import { withRunStore } from '../../src/activities/run-store.ts';
import { createSchemaActivities } from '../../src/activities/schema.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { readStoredObjectMap } from '../../src/activities/stored-text.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import type { StagingEvidence } from '../../src/contract/evidence/dry-run.ts';
import type { StepInput } from '../../src/contract/evidence/step.ts';
import type { Profile, SecretReference } from '../../src/contract/profile.ts';
import { holdMigrationLock } from '../../src/postgres/advisory-lock.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { captureObjectMap, digestOf, serializeObjectMap } from '../../src/postgres/catalog/object-map.ts';
import { testProfile, testRun } from '../integration-context.ts';
import { createService, execute, query, type TestService } from '../postgres-service.ts';
import { secretFile } from '../secret-file.ts';
import { randomName, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { createKeys } from './archive-source.ts';

const stack = useStack();
let home: string;
beforeAll(async () => {
  home = await temporaryDirectory('postgres-activities');
});

const secret = (value: string): Promise<SecretReference> => secretFile(home, value);

/** A run on a production and a staging of its own. */
async function createRun(): Promise<{ production: TestService; staging: TestService; input: StepInput }> {
  const production = await createService(stack.postgres.primary);
  const staging = await createService(stack.postgres.staging);
  const keys = await createKeys();
  const template = testProfile(home);
  const profile: Profile = {
    ...template,
    postgresPrograms: stack.postgres.primary.binDirectory,
    databases: {
      production: {
        ...template.databases.production,
        administrator: await secret(production.administratorUrl),
        migrator: await secret(production.migratorUrl),
        backup: await secret(production.backupUrl),
        application: await secret(production.applicationUrl),
        applicationRoles: [production.roles.application],
        maintenanceDatabase: 'postgres',
        standbys: [{ name: stack.postgres.replica.name, sessions: 'none' }],
        maximumLag: 60_000,
        maximumLagBytes: 1_000_000_000,
        tls: 'allow',
      },
      staging: {
        administrator: await secret(staging.administratorUrl),
        migrator: await secret(staging.migratorUrl),
      },
      scratch: { administrator: await secret(stack.postgres.scratch.superuserUrl) },
    },
    restore: {
      ...template.restore,
      capacity: {
        kind: 'command',
        action: {
          kind: 'command',
          command: ['echo', '1000000000000'],
          directory: 'profile',
          environment: {},
          timeout: 10_000,
        },
      },
    },
    alembic: { ...template.alembic, versionTable: { schema: 'public', table: 'alembic_version' } },
    backup: {
      ...template.backup,
      bucket: stack.s3.bucket,
      region: stack.s3.region,
      endpoint: stack.s3.endpoint,
      forcePathStyle: true,
      prefix: randomName('postgres'),
      accessKeyId: await secret(stack.s3.accessKeyId),
      secretAccessKey: await secret(stack.s3.secretAccessKey),
      recipients: [keys.recipient],
      identity: await secret(keys.identity),
    },
    schema: [
      { kind: 'table', name: 'public.exports', releases: 'v1.*' },
      { kind: 'column', name: 'public.users.position' },
      { kind: 'table', name: 'public.elsewhere', releases: 'v2.*' },
    ],
  };
  return { production, staging, input: { run: { ...testRun, runId: randomUUID() }, profile } };
}

const secrets = createSecretVault();
const dependencies = {
  secrets,
  get stateDirectory() {
    return home;
  },
};
const asActivity = <T>(work: () => Promise<T>): Promise<T> =>
  new MockActivityEnvironment({ heartbeatTimeoutMs: 4_000 }, { logger: new DefaultLogger('ERROR') }).run(work);

const failureOf = async (work: Promise<unknown>): Promise<ApplicationFailure> => {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ApplicationFailure);
  return error as ApplicationFailure;
};

const RELEASE = [
  'CREATE TABLE public.exports (id bigserial PRIMARY KEY, user_id bigint REFERENCES public.users)',
  `ALTER TABLE public.users ADD COLUMN position integer NOT NULL DEFAULT 0`,
  `UPDATE public.alembic_version SET version_num = '0003' WHERE version_num = '0002'`,
];

describe('inspectAccess', () => {
  const { inspectAccess } = createAccessActivities(dependencies);

  it('proves access to three databases and the bucket', async () => {
    const { production, input } = await createRun();
    const evidence = await asActivity(() => inspectAccess(input));
    expect(evidence.production.database).toBe(production.database);
    expect(evidence.migratorRole).toBe(production.roles.migrator);
    expect(evidence.bucket).toContain(`s3://${stack.s3.bucket}/`);
    expect(JSON.stringify(evidence)).not.toContain('postgresql://');
  });

  it('names missing secrets, wrong databases and an absent bucket in one refusal', async () => {
    const { input } = await createRun();
    const { databases, backup } = input.profile;
    const profile: Profile = {
      ...input.profile,
      databases: {
        ...databases,
        staging: { ...databases.staging, migrator: databases.production.migrator },
        scratch: { administrator: { kind: 'file', path: join(home, 'not-there') } },
      },
      backup: { ...backup, bucket: 'no-such-bucket' },
    };
    const failure = await failureOf(asActivity(() => inspectAccess({ ...input, profile })));
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.nonRetryable).toBe(true);
    expect(failure.message).toContain('databases.scratch.administrator');
    expect(failure.message).toContain('IS the production database');
    expect(failure.message).toContain('no-such-bucket');
  });
});

describe('checkReplication and inspectProduction', () => {
  const activities = createAccessActivities(dependencies);

  it('tell what production is, with its object map in the store', async () => {
    const { input } = await createRun();
    expect((await asActivity(() => activities.checkReplication(input))).standbys).toHaveLength(1);
    const state = await asActivity(() => activities.inspectProduction(input));
    expect(state).toMatchObject({ versionRows: ['0002'], versioned: 'versioned', invalidIndexes: [] });
    expect(state.objectMap.uri).toMatch(/\/production\/object-map-[0-9a-f]{16}\.json$/);
    const signal = new AbortController().signal;
    const stored = await withRunStore(secrets, input, signal, (store) =>
      readStoredObjectMap(store, state.objectMap, signal),
    );
    expect(digestOf(stored)).toBe(state.objectMapDigest);
    expect(state.differences).toBeUndefined();
  });

  it('name how production differs from what it is expected to be', async () => {
    const { production, input } = await createRun();
    const { objectMap: expected } = await asActivity(() => activities.inspectProduction(input));
    const same = await asActivity(() => activities.inspectProduction({ ...input, expected }));
    expect(same.differences).toEqual([]);
    await execute(
      production.migratorUrl,
      'ALTER TABLE public.users ADD COLUMN by_hand text',
      'DROP INDEX public.notes_robots',
      'ALTER TABLE public.notes ALTER COLUMN body TYPE varchar(300)',
    );
    const changed = await asActivity(() => activities.inspectProduction({ ...input, expected }));
    expect(changed.differences).toEqual([
      'added column public.users.by_hand',
      'removed index public.notes_robots',
      'changed column public.notes.body: text -> character varying(300)',
    ]);
  });

  it('name 100 differences at most', async () => {
    const { production, input } = await createRun();
    const { objectMap: expected } = await asActivity(() => activities.inspectProduction(input));
    const columns = Array.from({ length: 130 }, (_, index) => `c${index} int`).join(', ');
    await execute(production.migratorUrl, `CREATE TABLE public.wide (${columns})`);
    const { differences } = await asActivity(() => activities.inspectProduction({ ...input, expected }));
    expect(differences).toHaveLength(100);
  });
});

describe('diffSchema and validateSchema', () => {
  const { inspectProduction } = createAccessActivities(dependencies);
  const { diffSchema, validateSchema } = createSchemaActivities(dependencies);

  /** Staging's evidence as `dry-run.staging` leaves it, around a change made by hand. */
  async function stage(input: StepInput, staging: TestService, changes: readonly string[]): Promise<StagingEvidence> {
    const signal = new AbortController().signal;
    const map = async (): Promise<string> =>
      serializeObjectMap(
        await withConnection(staging.administratorUrl, { runId: 'r', step: 's', signal }, captureObjectMap),
      );
    const before = await map();
    await execute(staging.migratorUrl, ...changes);
    const after = await map();
    return withRunStore(secrets, input, signal, async ({ archive }) => ({
      before: ['0002'],
      after: ['0003'],
      tests: '',
      log: await archive('staging/log', '', 'text/plain'),
      upgradeMilliseconds: 1,
      mapBefore: await archive('staging/before.json', before, 'application/json'),
      mapAfter: await archive('staging/after.json', after, 'application/json'),
      schemaBefore: await archive('staging/before.sql', '\\restrict abc\nCREATE TABLE a ();\n', 'application/sql'),
      schemaAfter: await archive(
        'staging/after.sql',
        '\\restrict xyz\nCREATE TABLE a ();\nCREATE TABLE b ();\n',
        'application/sql',
      ),
      nothingToDo: changes.length === 0,
    }));
  }

  /** The roles of staging are called otherwise here. */
  const OTHER_ROLES = { login: 'nobody', role: 'migrator', differences: ['the copy is of another service'] };
  const revision = (id: string, downRevisions: readonly string[], dependsOn: readonly string[] = []) => ({
    revision: id,
    downRevisions,
    dependsOn,
    branchLabels: [],
    file: `${id}.py`,
    sha256: 'a'.repeat(64),
    doc: '',
    transactional: 'yes' as const,
    outsideTransaction: 'nothing' as const,
    downgradeTransactional: 'yes' as const,
    downgrade: 'present' as const,
    operations: ['execute'],
  });
  /** `0003` follows `0002`, all others begin a branch of their own. */
  const to = (...targetRevisions: string[]) => ({
    startRevisions: ['0002'],
    targetRevisions,
    path: targetRevisions.map((id) => revision(id, id === '0003' ? ['0002'] : [])),
  });

  it('archive the difference, and find production changed as the copy was', async () => {
    const { production, staging, input } = await createRun();
    const evidence = await stage(input, staging, RELEASE);
    const diff = await asActivity(() => diffSchema({ ...input, staging: evidence }));
    expect(diff.added).toEqual(expect.arrayContaining(['table public.exports', 'column public.users.position']));
    expect(diff.removed).toEqual([]);
    const text = await withRunStore(secrets, input, new AbortController().signal, async ({ store }) =>
      Buffer.from(
        (await store.get(diff.diff.uri.slice(store.uri('').length), new AbortController().signal))!,
      ).toString(),
    );
    expect(text).toContain('\n+CREATE TABLE b ();');
    expect(text).not.toContain('restrict');

    const before = await asActivity(() => inspectProduction(input));
    await execute(production.migratorUrl, ...RELEASE);
    const validation = await asActivity(() =>
      validateSchema({ ...input, before, rehearsed: { ...evidence, imitated: OTHER_ROLES }, graph: to('0003') }),
    );
    expect(validation.expected).toEqual(['table public.exports', 'column public.users.position']);
    expect(validation.versionRows).toEqual(['0003']);
    expect(validation.changes).toBeGreaterThanOrEqual(5);
    expect(validation.notCompared).toContainEqual(
      expect.stringMatching(
        /^ownership table public\.exports: added in production to .*nobody can tell.*of another service/,
      ),
    );
  });

  it('fail, naming each difference between production and the rehearsal', async () => {
    const { production, staging, input } = await createRun();
    const rehearsed = await stage(input, staging, [
      ...RELEASE,
      'ALTER TABLE public.notes ADD CONSTRAINT short CHECK (length(body) < 5000)',
      'ALTER TABLE public.notes ALTER COLUMN body SET DEFAULT $$-$$',
    ]);
    const before = await asActivity(() => inspectProduction(input));
    await execute(
      production.migratorUrl,
      `ALTER TABLE public.users ADD COLUMN position bigint NOT NULL DEFAULT 0`,
      'CREATE INDEX by_somebody_else ON public.users (name)',
      'ALTER TABLE public.notes ADD CONSTRAINT short CHECK (length(body) < 5000) NOT VALID',
      `INSERT INTO public.users (name) VALUES ('user 1')`,
    );
    await expect(
      execute(production.migratorUrl, 'CREATE UNIQUE INDEX CONCURRENTLY twice ON public.users (name)'),
    ).rejects.toThrow(/could not create unique index/);
    const failure = await failureOf(
      asActivity(() =>
        validateSchema({ ...input, before, rehearsed: { ...rehearsed, imitated: OTHER_ROLES }, graph: to('0003') }),
      ),
    );
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    for (const text of [
      'production stands at 0002, not at 0003',
      'table public.exports is expected and missing',
      'table public.exports: added in the rehearsal, untouched in production',
      'column public.users.position: added in production to bigint',
      'index public.by_somebody_else: added in production, untouched in the rehearsal',
      'constraint public.notes.short: not validated in production, validated in the rehearsal',
      'column public.notes.body: changed in the rehearsal, untouched in production',
      'index public.twice is invalid',
    ]) {
      expect(failure.message + JSON.stringify(failure.details)).toContain(text);
    }
    expect(failure.message).toMatch(/more, all in s3:\/\/.*\/validation\/schema-findings\.txt/);
  });

  it('want every target, and leave the rows of other branches alone', async () => {
    const { production, staging, input } = await createRun();
    await execute(production.migratorUrl, `INSERT INTO public.alembic_version VALUES ('other')`);
    const rehearsed = await stage(input, staging, RELEASE);
    const before = await asActivity(() => inspectProduction(input));
    await execute(production.migratorUrl, ...RELEASE);
    const validate = (...targets: string[]) =>
      asActivity(() =>
        validateSchema({ ...input, before, rehearsed: { ...rehearsed, imitated: OTHER_ROLES }, graph: to(...targets) }),
      );
    expect((await validate('0003')).versionRows).toEqual(['0003', 'other']);
    expect((await failureOf(validate('0003', '0009'))).message).toContain('not at 0009');
    await execute(production.migratorUrl, `INSERT INTO public.alembic_version VALUES ('stray')`);
    expect((await failureOf(validate('0003'))).message).toContain('at revision stray, which is not the target');
  });

  it('want no row of a target that another one depends on', async () => {
    const { production, staging, input } = await createRun();
    const rehearsed = { ...(await stage(input, staging, RELEASE)), imitated: OTHER_ROLES };
    const before = await asActivity(() => inspectProduction(input));
    await execute(production.migratorUrl, ...RELEASE);
    await execute(production.migratorUrl, `UPDATE public.alembic_version SET version_num = 'plugin2'`);
    const graph = {
      startRevisions: ['0002'],
      targetRevisions: ['0003', 'plugin2'],
      path: [revision('0003', ['0002']), revision('plugin2', [], ['0003'])],
    };
    const validate = () => asActivity(() => validateSchema({ ...input, before, rehearsed, graph }));
    expect((await validate()).versionRows).toEqual(['plugin2']);
    await execute(production.migratorUrl, `UPDATE public.alembic_version SET version_num = '0003'`);
    const { message } = await failureOf(validate());
    expect(message).toContain('production stands at 0003, not at plugin2');
    expect(message).toContain('at revision 0003, which is not the target');
  });
});

describe('restoreFreshDatabase and swapDatabases', () => {
  const { inspectProduction } = createAccessActivities(dependencies);
  const backups = createBackupActivities(dependencies);
  const { restoreFreshDatabase, swapDatabases } = createRestoreActivities(dependencies);

  it('bring production back from the stored backup', async () => {
    const { production, input } = await createRun();
    const before = await asActivity(() => inspectProduction(input));
    const backup = await asActivity(() => backups.captureBackup({ ...input, step: 'backup.capture' }));
    expect(backup.objectMapDigest).toBe(before.objectMapDigest);
    await execute(production.migratorUrl, ...RELEASE, 'DELETE FROM public.notes');

    const restored = await asActivity(() => restoreFreshDatabase({ ...input, backup, before }));
    expect(restored).toMatchObject({ rows: backup.rows, tables: backup.tables });
    expect(restored.compared).toEqual({ checksums: backup.tables, samples: 0, largeObjects: 0 });
    const swapped = await asActivity(() => swapDatabases({ ...input, backup, before, restored }));
    expect(swapped).toMatchObject({ database: production.database, versionRows: ['0002'] });

    const after = await asActivity(() => inspectProduction(input));
    expect(after.versionRows).toEqual(before.versionRows);
    expect(after.identity.oid).not.toBe(before.identity.oid);
    expect(await query(production.applicationUrl, 'SELECT count(*)::int AS n FROM public.notes')).toEqual([
      { n: 2000 },
    ]);
    // No session of the run, no lock, is left.
    expect(
      await query(production.superuserUrl, 'SELECT FROM pg_stat_activity WHERE usename = $1', [
        production.roles.administrator,
      ]),
    ).toEqual([]);
  });

  it('refuse to start while another run holds the migration lock', async () => {
    const { input } = await createRun();
    const before = await asActivity(() => inspectProduction(input));
    const backup = await asActivity(() => backups.captureBackup({ ...input, step: 'backup.capture' }));
    const lock = await holdMigrationLock(
      await secrets.resolve(
        input.profile.databases.production.administrator,
        input.profile,
        new AbortController().signal,
      ),
      {
        database: before.identity.database,
        maintenanceDatabase: 'postgres',
        runId: 'another-run',
        step: 'apply.upgrade',
        signal: new AbortController().signal,
      },
    );
    const failure = await failureOf(asActivity(() => restoreFreshDatabase({ ...input, backup, before })));
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.message).toContain('migration-runbook/another-');
    await lock.release();
  });
});
