import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { execFile } from 'node:child_process';
import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { beforeAll, describe, expect, it } from 'vitest';
import { createBackupActivities } from '../../src/activities/backup/backup.ts';
import type { ActivityDependencies } from '../../src/activities/dependencies.ts';
import { createPlanActivities } from '../../src/activities/plan.ts';
import { archiveReport } from '../../src/activities/report.ts';
import { withRunStore } from '../../src/activities/run-store.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { createToolingActivities } from '../../src/activities/tooling.ts';
import { sha256 } from '../../src/archive/canonical.ts';
import { findManifest } from '../../src/archive/manifest.ts';
import type { StepInput } from '../../src/contract/evidence/step.ts';
import type { MigrationPlan } from '../../src/contract/plan.ts';
import type { Profile } from '../../src/contract/profile.ts';
import { createService } from '../fixtures/alembic/service.ts';
import { testProfile, testRun } from '../integration-context.ts';
import { databaseUrl, randomName, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { sample } from '../unit/report-sample.ts';
import { type BackupSource, createBackupSource, createKeys, never } from './archive-source.ts';

const run = promisify(execFile);
const stack = useStack();
let home: string;
let source: BackupSource;
let identity: string;
let profile: Profile;
let input: StepInput;
let dependencies: ActivityDependencies;

/** A secrets manager's client as teams have them: prints the secret of a path, fails where there is none. */
const SECRETCTL = '#!/bin/sh\n[ "$1" = read ] && exec cat "$SECRETS/$2"\nexit 2\n';

async function writeSecret(path: string, value: string): Promise<void> {
  const file = join(home, 'secrets', path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, `${value}\n`, { mode: 0o600 });
}

async function releaseRepository(): Promise<{ readonly url: string; readonly commit: string }> {
  const { root } = await createService([{ id: 'r1' }, { id: 'r2', down: '"r1"' }]);
  const git = (...args: readonly string[]) =>
    run('git', ['-C', root, '-c', 'user.name=Test', '-c', 'user.email=test@example.com', ...args]);
  await git('init', '--quiet', '--initial-branch=main');
  await git('add', '--all');
  await git('commit', '--quiet', '--message', 'Release');
  const { stdout } = await git('rev-parse', 'HEAD');
  return { url: root, commit: stdout.trim() };
}

beforeAll(async () => {
  home = await temporaryDirectory('archive-activities');
  await mkdir(join(home, 'bin'));
  await writeFile(join(home, 'bin', 'secretctl'), SECRETCTL, { mode: 0o755 });
  process.env['PATH'] = `${join(home, 'bin')}:${process.env['PATH']}`;
  process.env['SECRETS'] = join(home, 'secrets');
  process.env['BACKUP_ACCESS_KEY_ID'] = stack.s3.accessKeyId;
  process.env['BACKUP_SECRET_ACCESS_KEY'] = stack.s3.secretAccessKey;

  source = await createBackupSource();
  const keys = await createKeys();
  identity = keys.identity;
  const backupUrl = databaseUrl(stack.postgres.primary, source.database, source.role);
  for (const name of [
    'ADMINISTRATOR_URL',
    'MIGRATOR_URL',
    'BACKUP_URL',
    'DATABASE_URL',
    'REPLICA1_ADMINISTRATOR_URL',
  ]) {
    await writeSecret(`prod/whisper-transcriber/${name}`, backupUrl);
  }
  for (const path of [
    'ci/github-token',
    'staging/whisper-transcriber/ADMINISTRATOR_URL',
    'staging/whisper-transcriber/MIGRATOR_URL',
    'staging/whisper-transcriber/ADMIN_PASSWORD',
    'scratch/ADMINISTRATOR_URL',
    'chat/OPERATIONS_WEBHOOK',
    'prod/whisper-transcriber/REDIS_URL',
  ]) {
    await writeSecret(path, `value of ${path}`);
  }
  await writeSecret('backups/AGE_IDENTITY', identity);

  const repository = await releaseRepository();
  const template = testProfile(home);
  profile = {
    ...template,
    repository: { url: repository.url, prepareTimeout: 60_000 },
    postgresPrograms: stack.postgres.primary.binDirectory,
    alembic: { ...template.alembic, python: stack.venv.python },
    backup: {
      ...template.backup,
      bucket: stack.s3.bucket,
      region: stack.s3.region,
      endpoint: stack.s3.endpoint,
      forcePathStyle: true,
      prefix: randomName('activities'),
      recipients: [keys.recipient],
    },
  };
  input = { run: { ...testRun, commit: repository.commit }, profile };
  dependencies = {
    profilesDirectory: home,
    stateDirectory: join(home, 'state'),
    client: new Client({ connection: Connection.lazy({ address: stack.temporal.address }) }),
    secrets: createSecretVault(),
  };
});

const environmentOf = (info: ConstructorParameters<typeof MockActivityEnvironment>[0] = {}): MockActivityEnvironment =>
  new MockActivityEnvironment(
    { heartbeatTimeoutMs: 4_000, workflowExecution: { workflowId: testRun.workflowId, runId: testRun.runId }, ...info },
    { logger: new DefaultLogger('ERROR') },
  );

/** Runs the work as the worker would run an activity. */
const asActivity = <T>(work: () => Promise<T>, environment = environmentOf()): Promise<T> => environment.run(work);

describe('captureBackup and verifyBackup', () => {
  it('take a backup by the profile and prove it, with heartbeats on the way', async () => {
    const activities = createBackupActivities(dependencies);
    const environment = environmentOf();
    const beats: unknown[] = [];
    environment.on('heartbeat', (details: unknown) => beats.push(details));
    const backup = await asActivity(() => activities.captureBackup({ ...input, step: 'backup.capture' }), environment);
    expect(backup.uri).toBe(
      `s3://${stack.s3.bucket}/${profile.backup.prefix}/whisper-transcriber/${testRun.runId}/backup.capture.dump.zst.age`,
    );
    expect(beats.length).toBeGreaterThan(0);
    expect(JSON.stringify(beats)).not.toContain(source.role.password);
    const verified = await asActivity(() => activities.verifyBackup({ ...input, backup }));
    expect(verified).toMatchObject({ uri: backup.uri, dumpSha256: backup.dumpSha256, tableData: 5 });
    expect(verified.predictedRestore).toEqual({ from: 'dump', milliseconds: backup.milliseconds * 4 });
    const manifest = await findManifest(source.store, backup.uri, never());
    expect(manifest).toMatchObject({
      service: 'whisper-transcriber',
      backup,
      verified: { milliseconds: verified.milliseconds, by: `run ${testRun.runId}` },
    });
    const { sha256: _, ...published } = manifest.backup;
    for (const secret of [source.role.password, identity, stack.s3.secretAccessKey])
      expect(JSON.stringify(published)).not.toContain(secret);
  });

  it('leave the backup of the execution before a workflow reset: production may have been changed since', async () => {
    const activities = createBackupActivities(dependencies);
    const capture = (environment?: MockActivityEnvironment) =>
      asActivity(() => activities.captureBackup({ ...input, step: 'backup.reset' }), environment);
    const before = await capture();
    const workflowExecution = { workflowId: testRun.workflowId, runId: randomUUID() };
    const after = await capture(environmentOf({ workflowExecution }));
    expect(after.key).not.toBe(before.key);
    for (const backup of [before, after]) {
      const verified = await asActivity(() => activities.verifyBackup({ ...input, backup }));
      expect(verified.dumpSha256).toBe(backup.dumpSha256);
      expect((await findManifest(source.store, backup.uri, never())).backup).toEqual(backup);
    }
  });

  it('leave the report of the execution before a workflow reset beside that of the one that went on', async () => {
    const archive = (environment?: MockActivityEnvironment) =>
      asActivity(() => archiveReport(dependencies)({ ...input, report: sample }), environment);
    const first = await archive();
    const workflowExecution = { workflowId: testRun.workflowId, runId: randomUUID() };
    const second = await archive(environmentOf({ workflowExecution }));
    expect(first.json.uri).toMatch(/\/report\.json$/);
    expect(second.json.uri).toMatch(/\/report-\w+\.json$/);
    expect((await archive()).json.uri).toBe(first.json.uri);
  });

  it('predict a restore from the last drill that passed, in proportion to the size', async () => {
    const activities = createBackupActivities(dependencies);
    const backup = await asActivity(() => activities.captureBackup({ ...input, step: 'backup.predicted' }));
    const drill = (change: object): string =>
      JSON.stringify({
        format: 'migration-runbook/drill/1',
        outcome: 'passed',
        milliseconds: 10_000,
        backup: { databaseBytes: backup.database.sizeBytes / 2 },
        ...change,
      });
    const folder = `${profile.backup.prefix}/whisper-transcriber/drills`;
    await source.store.put(`${folder}/1.json`, drill({}), 'application/json', never());
    await delay(1_100);
    await source.store.put(`${folder}/2.json`, drill({ outcome: 'failed', milliseconds: null }), 'text/json', never());
    await source.store.put(`${folder}/3.json`, 'no record', 'application/json', never());
    const verified = await asActivity(() => activities.verifyBackup({ ...input, backup }));
    expect(verified.predictedRestore).toEqual({ from: 'drill', milliseconds: 20_000 });
  });

  it('fail as ApplicationFailure that cannot be retried when the object was damaged', async () => {
    const activities = createBackupActivities(dependencies);
    const backup = await asActivity(() => activities.captureBackup({ ...input, step: 'backup.damaged' }));
    await source.store.put(backup.key, 'x'.repeat(backup.bytes), 'application/octet-stream', never());
    await expect(asActivity(() => activities.verifyBackup({ ...input, backup }))).rejects.toMatchObject({
      name: 'ApplicationFailure',
      type: 'BackupDamaged',
      nonRetryable: true,
    });
  });
});

describe('sealPlan and identifyRun', () => {
  const plan = {
    format: 'migration-runbook/plan/1',
    service: 'whisper-transcriber',
    warnings: [],
  } as unknown as MigrationPlan;

  it('store the canonical plan under its digest and name the run as the server does', async () => {
    const activities = createPlanActivities(dependencies);
    const sealed = await asActivity(() => activities.sealPlan({ ...input, plan }));
    const text = '{"format":"migration-runbook/plan/1","service":"whisper-transcriber","warnings":[]}';
    expect(sealed.digest).toBe(sha256(text));
    expect(sealed.uri).toContain(`/plan-${sealed.digest.slice(0, 12)}.json`);
    const key = sealed.uri.slice(source.store.uri('').length);
    expect(Buffer.from((await source.store.get(key, never()))!).toString()).toBe(text);

    const workflowExecution = { workflowId: 'migrate-x', runId: 'run-after-a-reset' };
    const environment = environmentOf({ workflowExecution });
    expect(await asActivity(() => activities.identifyRun(), environment)).toEqual({
      currentRunId: 'run-after-a-reset',
    });
  });

  it('refuse a plan with a secret in it, for a masked one would not be what its digest says', async () => {
    const activities = createPlanActivities(dependencies);
    const careless = { ...plan, warnings: [`password ${stack.s3.secretAccessKey}`] } as MigrationPlan;
    const sealing = asActivity(() => activities.sealPlan({ ...input, plan: careless }));
    await expect(sealing).rejects.toMatchObject({ type: 'StepRefused' });
    await expect(sealing).rejects.not.toThrow(stack.s3.secretAccessKey);
  });
});

it('what is archived for a run has known secrets struck out', async () => {
  const stored = await withRunStore(dependencies.secrets, input, never(), ({ archive }) =>
    archive('note.txt', `key=${stack.s3.secretAccessKey}.`, 'text/plain'),
  );
  const key = stored.uri.slice(source.store.uri('').length);
  expect(Buffer.from((await source.store.get(key, never()))!).toString()).toBe('key=[redacted].');
});

describe('verifyTooling', () => {
  const verify = (change: Partial<Profile> = {}) =>
    asActivity(() =>
      createToolingActivities(dependencies).verifyTooling({
        ...input,
        profile: { ...profile, ...change },
      }),
    );

  it('tells the versions of everything the migration is done with', async () => {
    const evidence = await verify();
    expect(evidence.programs).toEqual({
      psql: expect.stringMatching(/^\d+\.\d+/),
      pg_dump: expect.anything(),
      pg_restore: expect.anything(),
    });
    expect(evidence.alembic).toMatch(/^1\./);
    expect(evidence.sqlalchemy).toMatch(/^\d/);
    expect(evidence.python).toMatch(/^3\./);
    expect(evidence.secretsResolved).toBe(15);
  });

  it('names all that is missing in one message', async () => {
    const failure: unknown = await verify({
      postgresPrograms: '/no/such/folder',
      alembic: { ...profile.alembic, python: '.venv/bin/python' },
      backup: { ...profile.backup, identity: { kind: 'environment', name: 'NOT_SET_ANYWHERE' } },
    }).catch((error: unknown) => error);
    expect(failure).toMatchObject({ type: 'StepRefused', nonRetryable: true });
    const { findings } = (failure as { details: [{ findings: string[] }] }).details[0];
    expect(findings).toEqual([
      expect.stringMatching(/^backup\.identity: .*NOT_SET_ANYWHERE/),
      expect.stringContaining('psql was not found in /no/such/folder'),
      expect.stringContaining('pg_dump was not found'),
      expect.stringContaining('pg_restore was not found'),
      expect.stringMatching(/^Alembic at v1\.1\.0: .*\.venv\/bin\/python/),
    ]);
    for (const finding of findings) expect(String(failure)).toContain(finding);
  });

  describe('where approvals may be signed', () => {
    const approvals = (signers: Profile['approvals']['signers']): Partial<Profile> => ({
      approvals: { ...profile.approvals, signatures: 'optional', signers },
    });
    const signer = { name: 'erin@example.com', key: 'ssh-ed25519 AAAA' };

    /** The programs of this host but for one, or with another in its place. */
    async function withSshKeygen<T>(script: string | undefined, work: () => Promise<T>): Promise<T> {
      const before = process.env['PATH'] ?? '';
      const folder = await temporaryDirectory('no-ssh-keygen');
      try {
        for (const other of before.split(':')) {
          for (const name of await readdir(other).catch(() => [])) {
            if (name !== 'ssh-keygen') await symlink(join(other, name), join(folder, name)).catch(() => undefined);
          }
        }
        if (script !== undefined) await writeFile(join(folder, 'ssh-keygen'), script, { mode: 0o755 });
        process.env['PATH'] = folder;
        return await work();
      } finally {
        process.env['PATH'] = before;
      }
    }

    it('names ssh-keygen when it is missing, beside whatever else is', async () => {
      const failure: unknown = await withSshKeygen(undefined, () =>
        verify({ ...approvals([signer]), postgresPrograms: '/no/such/folder' }),
      ).catch((error: unknown) => error);
      expect(failure).toMatchObject({ type: 'StepRefused', nonRetryable: true });
      const { findings } = (failure as { details: [{ findings: string[] }] }).details[0];
      expect(findings).toHaveLength(4);
      expect(findings.at(-1)).toMatch(/^approvals\.signers: .*ssh-keygen \(OpenSSH 8\.2 or newer\) on the PATH/);
    });

    it('names it when it is too old to verify', async () => {
      const old = '#!/bin/sh\necho "unknown option -- Y" >&2\nexit 1\n';
      await expect(withSshKeygen(old, () => verify(approvals([signer])))).rejects.toMatchObject({
        type: 'StepRefused',
        message: expect.stringMatching(
          /^approvals\.signers: ssh-keygen could not look .*unknown option -- Y/,
        ) as string,
      });
    });

    it('does without it when nobody can sign', async () => {
      await expect(withSshKeygen(undefined, () => verify(approvals([])))).resolves.toMatchObject({
        python: expect.stringMatching(/^3\./) as string,
      });
    });
  });

  it('names the commit that is gone, and tries again where production merely does not answer', async () => {
    await writeSecret('elsewhere/BACKUP_URL', 'postgresql://reader:some-password@127.0.0.1:9/app');
    const unreachable = { kind: 'command', command: ['secretctl', 'read', 'elsewhere/BACKUP_URL'] } as const;
    const production = { ...profile.databases.production, backup: unreachable };
    const failure: unknown = await verify({ databases: { ...profile.databases, production } }).catch(
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ type: 'OutsideUnavailable', nonRetryable: false });
    expect(String(failure)).not.toContain('some-password');

    const lost = { ...input, run: { ...input.run, commit: 'b'.repeat(40) } };
    await expect(asActivity(() => createToolingActivities(dependencies).verifyTooling(lost))).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringContaining('b'.repeat(40)),
    });
  });
});
