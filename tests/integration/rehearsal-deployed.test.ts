import { randomUUID } from 'node:crypto';
import { join, resolve } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeProfile } from '../../scripts/scenarios/profile.ts';
import { deployExample, type Example, stopExample } from '../../scripts/stack/example.ts';
import { createBackupActivities } from '../../src/activities/backup/backup.ts';
import type { ActivityDependencies } from '../../src/activities/dependencies.ts';
import { integrationContext, secretAccess } from '../../src/activities/integration-context.ts';
import { createRehearsalScratchActivities } from '../../src/activities/dry-run/rehearsal-scratch.ts';
import { productionRoles, scratchWorld } from '../../src/activities/dry-run/rehearsal-world.ts';
import { releaseAlembic } from '../../src/activities/release-alembic.ts';
import { upgrade } from '../../src/alembic/upgrade.ts';
import type { StepInput } from '../../src/contract/evidence/step.ts';
import type { Profile } from '../../src/contract/profile.ts';
import type { DeployedTrial, RehearsalRestore } from '../../src/contract/evidence/rehearsal.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { tryDeployedRelease } from '../../src/rehearsal/deployed.ts';
import { rehearsalEnvironment } from '../../src/rehearsal/environment.ts';
import { rehearsalTarget } from '../../src/rehearsal/login.ts';
import { withTrialCopy } from '../../src/rehearsal/scratch.ts';
import { resolveTag } from '../../src/repository/checkout.ts';
import { execute, query } from '../postgres-service.ts';
import { databaseUrl, randomName, useStack } from '../stack.ts';
import { never } from './archive-source.ts';
import { asActivity } from './rehearsal-world.ts';

const stack = useStack();
const { scratch } = stack.postgres;
let example: Example;
let dependencies: ActivityDependencies;
let step: StepInput;
let restored: RehearsalRestore;

beforeAll(async () => {
  example = await deployExample(stack, { database: randomName('reh'), service: 'none' });
  const written = await writeProfile({ ...example, apiUrl: 'http://127.0.0.1:1' });
  const { profile } = await loadProfile(written.directory, written.service);
  const secrets = createSecretVault();
  dependencies = {
    profilesDirectory: written.directory,
    stateDirectory: join(example.directory, 'state'),
    client: new Client({ connection: Connection.lazy({ address: stack.temporal.address }) }),
    secrets,
  };
  const tag = { url: profile.repository.url, tag: 'v1.1.0', signal: never(), redactor: secrets.redactor };
  step = {
    run: {
      runId: randomUUID(),
      workflowId: 'migrate-whisper-transcriber',
      service: 'whisper-transcriber',
      releaseTag: 'v1.1.0',
      changeTicket: 'CHG-1',
      requestedBy: 'dana@example.com',
      commit: await resolveTag(tag),
    },
    profile,
  };
  const backup = await asActivity(() =>
    createBackupActivities(dependencies).captureBackup({ ...step, step: 'backup.capture' }),
  );
  const graph = {
    startRevisions: ['0002_audit_log'],
    targetRevision: 'head',
    targetRevisions: ['head'],
    path: [],
    downgrade: { kind: 'impossible', why: 'not asked for here' },
    risks: [],
    unknown: [],
  } as const;
  restored = await asActivity(() =>
    createRehearsalScratchActivities(dependencies).restoreForRehearsal({
      ...step,
      step: 'dry-run.rehearsal',
      graph,
      backup,
    }),
  );
}, 240_000);
afterAll(async () => {
  await asActivity(() => createRehearsalScratchActivities(dependencies).dropRehearsal(step));
  await stopExample(example);
});

const tools = { signal: never(), progress: () => undefined, attempt: 1 };

const withProfile = (change: Partial<Profile['application']>): StepInput => ({
  ...step,
  profile: { ...step.profile, application: { ...step.profile.application, ...change } },
});

const telling = (...words: readonly string[]): Partial<Profile['application']> => ({
  deployed: {
    required: true,
    source: {
      kind: 'command',
      action: { kind: 'command', command: words, directory: 'profile', environment: {}, timeout: 10_000 },
    },
  },
});

const tried = async (input: StepInput, upgraded: string): Promise<DeployedTrial> =>
  tryDeployedRelease({
    world: await scratchWorld(dependencies, input, never()),
    upgraded,
    application: (await productionRoles(dependencies, input, never())).application,
    context: integrationContext(dependencies, input, tools),
    stateDirectory: dependencies.stateDirectory,
    progress: () => undefined,
  });

/** The deployed release on a copy that was upgraded, after `spoil` has had it. */
const onUpgraded = (
  input: StepInput,
  spoil: (database: string) => Promise<void> = async () => undefined,
  after: (database: string) => Promise<void> = async () => undefined,
): Promise<DeployedTrial> =>
  asActivity(async () => {
    const world = await scratchWorld(dependencies, input, never());
    const roles = await productionRoles(dependencies, input, never());
    return withTrialCopy(world, { of: restored.database, purpose: 'trial' }, async ({ database }) => {
      const release = await releaseAlembic(dependencies, input, tools);
      const { target } = await rehearsalTarget(world, { copy: database, as: roles.migrator });
      const access = secretAccess(dependencies, input, never());
      const { migration } = await rehearsalEnvironment(input.profile, release.checkout, target, access);
      const { result } = await upgrade({
        ...release,
        environment: migration,
        target: 'head',
        signal: never(),
        redactor: dependencies.secrets.redactor,
      });
      expect(result).toMatchObject({ kind: 'exited', code: 0 });
      await spoil(database);
      const trial = await tried(input, database);
      await after(database);
      return trial;
    });
  });

const recordings = async (database: string): Promise<number> => {
  const [row] = await query<{ n: number }>(
    databaseUrl(scratch, database),
    'SELECT count(*)::int AS n FROM public.recordings',
  );
  return row!.n;
};

const left = (): Promise<{ datname: string }[]> =>
  query(scratch.superuserUrl, 'SELECT datname FROM pg_database WHERE strpos(datname, $1) > 0', [
    step.run.runId.slice(-12),
  ]);

describe('the deployed release on the upgraded copy', { timeout: 180_000 }, () => {
  it('boots, passes its flows as the application’s role, and leaves no row there', async () => {
    const before = await recordings(restored.database);
    const trial = await onUpgraded(withProfile(telling('echo', 'v1.0.0')), undefined, async (database) => {
      expect(await recordings(database)).toBe(before);
    });
    expect(trial).toMatchObject({
      kind: 'passed',
      release: 'v1.0.0',
      commit: example.commit,
      flows: { flows: [{ name: 'upload and playback' }, { name: 'admin login' }] },
    });
    expect(await left()).toEqual([{ datname: restored.database }]);
  });

  it('fails, with what it said, where the upgrade has taken something it needs', async () => {
    const trial = await onUpgraded(withProfile(telling('echo', example.commit)), (database) =>
      execute(databaseUrl(scratch, database), 'ALTER TABLE public.recordings RENAME audio_sha256 TO digest'),
    );
    expect(trial).toMatchObject({
      kind: 'failed',
      release: example.commit,
      why: expect.stringContaining('flow "upload and playback"'),
    });
    expect(await left()).toEqual([{ datname: restored.database }]);
  });

  it('fails where the application’s role lacks a right that it has in production', async () => {
    const trial = await onUpgraded(withProfile(telling('echo', 'v1.0.0')), (database) =>
      execute(databaseUrl(scratch, database), 'REVOKE INSERT ON public.recordings FROM whisper_app'),
    );
    expect(trial).toMatchObject({ kind: 'failed', why: expect.stringContaining('upload') });
  });

  it.each([
    ['a tag that is not there', telling('echo', 'v0.0.9'), 'v0.0.9', 'There is no tag "v0.0.9"'],
    ['several words', telling('echo', 'release 7 of today'), '', 'which is no tag and no commit'],
    ['nothing', telling('true'), '', 'which is no tag and no commit'],
    ['a failure', telling('false'), '', 'exited with code 1'],
    ['the beginning of an unknown commit', telling('echo', 'abcdef0'), 'abcdef0', 'give the full name of the commit'],
  ])('fails, before anything is made, where the profile’s command tells %s', async (_name, change, release, why) => {
    const input = withProfile(change);
    const trial = await asActivity(() => tried(input, 'no_such_database'));
    expect(trial).toEqual({ kind: 'failed', release, why: expect.stringContaining(why) });
  });

  it('is not tried where the profile does not tell which it is', async () => {
    const { deployed: _none, ...application } = step.profile.application;
    const input = { ...step, profile: { ...step.profile, application } };
    const trial = await asActivity(() => tried(input, 'no_such_database'));
    expect(trial).toMatchObject({ kind: 'not-tried', why: expect.stringContaining('application.deployed') });
  });
});

describe('the environment of a rehearsal', () => {
  const target = {
    host: '127.0.0.1',
    port: 1,
    database: 'copy',
    user: 'login',
    password: 'word',
    sslmode: 'prefer',
  } as const;
  const environmentOf = (profile: Profile) =>
    rehearsalEnvironment(profile, '/checkout', target, secretAccess(dependencies, { profile }, never()));
  const COPY = 'postgresql+psycopg://login:word@127.0.0.1:1/copy';

  it('leads to the copy, and to nothing of staging’s or production’s databases, under whatever name', async () => {
    const { production, staging } = example.urls;
    const word = decodeURIComponent(new URL(staging.migrator).password);
    const { profile } = withProfile({
      boot: {
        ...step.profile.application.boot,
        environment: {
          READ_ONLY_URL: production.backup.replace('postgresql:', 'postgresql+asyncpg:'),
          PGHOST: 'staging.example',
          PGPASSWORD: word,
          DB_PASSWORD: word,
          JDBC: `jdbc:postgresql://staging.example/whisper?password=${encodeURIComponent(word)}`,
          DSN: 'host=staging.example dbname=whisper',
          BIND: '127.0.0.1:{{port}}',
          DATABASE_URL: staging.migrator,
        },
      },
    });
    const { application, templates, withheld, migration } = await environmentOf(profile);
    expect(application).toMatchObject({
      DATABASE_URL: COPY,
      READ_ONLY_URL: COPY.replace('psycopg', 'asyncpg'),
      BIND: '127.0.0.1:{{port}}',
      REDIS_URL: example.redis.staging,
    });
    expect(withheld.toSorted()).toEqual(['DB_PASSWORD', 'DSN', 'JDBC', 'PGHOST', 'PGPASSWORD']);
    expect(templates).toEqual({ BIND: '127.0.0.1:{{port}}' });
    expect(migration).toMatchObject({ DATABASE_URL: COPY });
    const texts = JSON.stringify([application, templates, migration]);
    for (const password of Object.values(example.passwords.staging).slice(0, 4)) expect(texts).not.toContain(password);
  });

  it('is the profile’s own for what a migration touches outside; without one it says what is shared', async () => {
    const alembic = { ...step.profile.alembic, environment: { MEDIA_ROOT: '/srv/media', CACHE_URL: 'redis://cache' } };
    const shared = await environmentOf({ ...step.profile, alembic });
    expect(shared.shared).toEqual(['MEDIA_ROOT', 'CACHE_URL']);
    expect(shared.migration).toMatchObject({ MEDIA_ROOT: '/srv/media' });
    const rehearsal = { ...step.profile.rehearsal, environment: { MEDIA_ROOT: '/tmp/rehearsal' } };
    const own = await environmentOf({ ...step.profile, alembic, rehearsal });
    expect(own.shared).toEqual([]);
    expect(own.migration).toEqual({
      MEDIA_ROOT: '/tmp/rehearsal',
      PATH: own.migration['PATH'],
      DATABASE_URL: COPY,
      PGSSLMODE: 'prefer',
    });
    expect(own.application).toMatchObject({ MEDIA_ROOT: '/tmp/rehearsal' });
  });

  it('needs staging’s environment file', async () => {
    const staging = { ...step.profile.staging, environmentFile: resolve('/nowhere/.env') };
    await expect(environmentOf({ ...step.profile, staging })).rejects.toMatchObject({ type: 'StepRefused' });
  });
});
