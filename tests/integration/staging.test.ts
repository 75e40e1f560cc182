import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { Client, Connection } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeProfile } from '../../scripts/scenarios/profile.ts';
import { deployExample, type Example, stopExample } from '../../scripts/stack/example.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import type { ActivityDependencies } from '../../src/activities/dependencies.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { createStagingActivities } from '../../src/activities/dry-run/staging.ts';
import type { FlowsEvidence, StagingEvidence, StagingInput } from '../../src/contract/evidence/dry-run.ts';
import type { StoredDocument } from '../../src/contract/evidence/step.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import type { Profile } from '../../src/contract/profile.ts';
import { readIdentity } from '../../src/postgres/identity.ts';
import { parseObjectMap } from '../../src/postgres/catalog/object-map.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { resolveTag } from '../../src/repository/checkout.ts';
import { randomName, useStack } from '../stack.ts';

const stack = useStack();
const TARGET = '0005_transcript_search';
let example: Example;
let profile: Profile;
let input: StagingInput;
let dependencies: ActivityDependencies;

beforeAll(async () => {
  example = await deployExample(stack, { database: randomName('dry'), service: 'none' });
  const written = await writeProfile({ ...example, apiUrl: 'http://127.0.0.1:1' });
  profile = (await loadProfile(written.directory, written.service)).profile;
  dependencies = {
    profilesDirectory: written.directory,
    stateDirectory: join(example.directory, 'state'),
    client: new Client({ connection: Connection.lazy({ address: stack.temporal.address }) }),
    secrets: createSecretVault(),
  };
  const signal = new AbortController().signal;
  const commit = await resolveTag({
    url: profile.repository.url,
    tag: 'v1.1.0',
    signal,
    redactor: dependencies.secrets.redactor,
  });
  input = {
    run: {
      runId: crypto.randomUUID(),
      workflowId: 'migrate-whisper-transcriber',
      service: 'whisper-transcriber',
      releaseTag: 'v1.1.0',
      changeTicket: 'CHG-1',
      requestedBy: 'dana@example.com',
      commit,
    },
    profile,
    production: await withClient(example.urls.production.backup, readIdentity),
    graph: {
      startRevisions: ['0002_audit_log'],
      targetRevision: TARGET,
      targetRevisions: [TARGET],
      path: [],
      downgrade: { kind: 'impossible', why: 'not asked for here' },
      risks: [],
      unknown: [],
    },
  };
}, 240_000);
afterAll(() => stopExample(example));

const environment = (attempt = 1): MockActivityEnvironment =>
  new MockActivityEnvironment({ attempt, activityId: 'dry-run.staging' }, { logger: new DefaultLogger('ERROR') });
const migrate = (
  changes: Partial<StagingInput> = {},
  attempt = 1,
  within = environment(attempt),
): Promise<StagingEvidence> =>
  within.run(createStagingActivities(dependencies).migrateStaging, { ...input, ...changes });
const failureOf = async (work: Promise<unknown>): Promise<ApplicationFailure> => {
  const failure = await work.then(
    () => new Error('it succeeded'),
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(ApplicationFailure);
  const text = JSON.stringify([(failure as ApplicationFailure).message, (failure as ApplicationFailure).details]);
  for (const secret of Object.values(example.secrets)) expect(text).not.toContain(secret);
  return failure as ApplicationFailure;
};
const planned = (targetRevision: string): StagingInput['graph'] => ({
  ...input.graph,
  targetRevision,
  targetRevisions: [targetRevision],
});
const changedProfile = (changes: Partial<Profile>): Partial<StagingInput> => ({ profile: { ...profile, ...changes } });

async function stored({ uri }: StoredDocument): Promise<string> {
  const client = new S3Client({
    region: stack.s3.region,
    endpoint: stack.s3.endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId: stack.s3.accessKeyId, secretAccessKey: stack.s3.secretAccessKey },
  });
  const [, bucket, key] = /^s3:\/\/([^/]+)\/(.+)$/.exec(uri) ?? [];
  const found = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }));
  return (await found.Body?.transformToString()) ?? '';
}

const stagingRevisions = async (): Promise<string[]> => {
  const { rows } = await withClient(example.urls.staging.administrator, (client) =>
    client.query<{ version_num: string }>('SELECT version_num FROM public.alembic_version'),
  );
  return rows.map((row) => row.version_num);
};

// One after the other: the first ones must find staging as production is.
describe('the dry run on staging', { timeout: 180_000 }, () => {
  test('is refused before anything is written when staging is production', async () => {
    const { databases } = profile;
    const { administrator, migrator } = databases.production;
    const failure = await failureOf(
      migrate(changedProfile({ databases: { ...databases, staging: { administrator, migrator } } })),
    );
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.message).toContain('databases.staging IS the production database');
    expect(failure.message).toContain(
      "DATABASE_URL of staging's environment leads to another database than databases.staging",
    );
    expect(await stagingRevisions()).toEqual(['0002_audit_log']);
  });

  test('is refused when the environment file leads to production', async () => {
    const path = join(example.directory, 'astray.env');
    await writeFile(
      path,
      `OTHER_URL="${example.urls.production.application}"\nDATABASE_URL=${example.urls.staging.migrator}\n`,
      { mode: 0o600 },
    );
    const astray = changedProfile({ staging: { ...profile.staging, environmentFile: path } });
    const failure = await failureOf(migrate(astray));
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.message).toContain("OTHER_URL of staging's environment IS the production database");
    const booted = await failureOf(
      environment().run(createStagingActivities(dependencies).exerciseApplication, { ...input, ...astray }),
    );
    expect(booted.message).toContain('IS the production database');
    expect(await stagingRevisions()).toEqual(['0002_audit_log']);
  });

  test('is refused when production is not what it was at the beginning', async () => {
    const failure = await failureOf(migrate({ production: { ...input.production, systemIdentifier: '1' } }));
    expect(failure.message).toContain(
      'databases.production leads to another database than at the beginning of the run',
    );
  });

  test('upgrades to the planned revision, runs the tests and archives what staging was and is', async () => {
    const evidence = await migrate();
    expect(evidence).toMatchObject({ before: ['0002_audit_log'], after: [TARGET], nothingToDo: false });
    expect(evidence.tests).toMatch(/\d+ passed/);
    expect(await stagingRevisions()).toEqual([TARGET]);
    const [schemaBefore, schemaAfter] = [await stored(evidence.schemaBefore), await stored(evidence.schemaAfter)];
    expect(schemaBefore).toContain('CREATE TABLE public.recordings');
    expect(schemaBefore).not.toContain('CREATE TABLE public.speakers');
    expect(schemaAfter).toContain('CREATE TABLE public.speakers');
    expect(schemaAfter).not.toMatch(/^\\restrict/m);
    const names = (map: string): string[] => parseObjectMap(map).objects.map(({ name }) => name);
    expect(names(await stored(evidence.mapBefore))).not.toContain('public.speakers');
    expect(names(await stored(evidence.mapAfter))).toContain('public.speakers');
    const log = await stored(evidence.log);
    expect(log).toContain(`==> alembic upgrade ${TARGET}`);
    expect(log).toContain('tests/test_migrations.py');
    expect(log).not.toContain(example.passwords.staging.migrator);
  });

  test('taken up by another attempt still knows what staging was before', async () => {
    expect(await migrate({}, 2)).toMatchObject({ before: ['0002_audit_log'], after: [TARGET], nothingToDo: false });
  });

  test('says so when there was nothing to try', async () => {
    const again = await migrate({ run: { ...input.run, runId: crypto.randomUUID() } });
    expect(again).toMatchObject({ before: [TARGET], after: [TARGET], nothingToDo: true });
    expect(await stored(again.schemaBefore)).toBe(await stored(again.schemaAfter));
  });

  test('fails with the tests, and keeps what they wrote', async () => {
    const run = { ...input.run, runId: crypto.randomUUID() };
    const detail = "DETAIL:  Key (email)=(ann''@example.com) already exists.";
    const tests = ['sh', '-c', `echo "1 failed: $DATABASE_URL"; echo 'E   ${detail}'; exit 1`];
    const failure = await failureOf(migrate({ run, profile: { ...profile, staging: { ...profile.staging, tests } } }));
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    expect(failure.nonRetryable).toBe(true);
    expect(failure.message).toContain('exited with code 1: 1 failed: [redacted]');
    const { backup } = profile;
    const log = await stored({
      uri: `s3://${backup.bucket}/${backup.prefix}/whisper-transcriber/${run.runId}/staging/dry-run.log`,
      sha256: '',
      bytes: 0,
    });
    expect(log).toContain('1 failed: [redacted]');
    expect(log).toMatch(/^# Values of rows .* are struck out/);
    for (const text of [log, failure.message]) {
      expect(text).toContain('Key (email)=(?) already exists.');
      expect(text).not.toContain('ann@');
    }
  });

  test('fails with an upgrade that fails, and shows the end of its output', async () => {
    const failure = await failureOf(migrate({ graph: planned('no_such_revision') }));
    expect(failure.type).toBe(STEP_ERRORS.processFailed);
    expect(failure.message).toContain('alembic upgrade no_such_revision on staging exited with code');
    expect(failure.message).toContain('no_such_revision');
  });

  test('fails where staging is ahead of the planned revision, which proves nothing', async () => {
    const run = { ...input.run, runId: crypto.randomUUID() };
    const failure = await failureOf(migrate({ run, graph: planned('0003_speakers') }));
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    expect(failure.message).toContain(`changed nothing on staging, which stands at ${TARGET}: refresh staging`);
  });

  test('stops with everything it started when it is cancelled', async () => {
    const within = environment();
    const tests = ['sh', '-c', 'echo begun; sleep 600'];
    let begun = false;
    within.on('heartbeat', (details: { readonly line?: string }) => {
      if (details.line === 'begun' && !begun) {
        begun = true;
        within.cancel('CANCELLED');
      }
    });
    await expect(migrate(changedProfile({ staging: { ...profile.staging, tests } }), 1, within)).rejects.toBeInstanceOf(
      CancelledFailure,
    );
    expect(begun).toBe(true);
  });
});

describe('the application on staging', { timeout: 120_000 }, () => {
  const exercise = (changes: Partial<Profile> = {}): Promise<FlowsEvidence> =>
    environment().run(createStagingActivities(dependencies).exerciseApplication, {
      ...input,
      ...changedProfile(changes),
    });

  test('boots from the release and its flows pass', async () => {
    const evidence = await exercise();
    expect(evidence.flows.map(({ name, requests }) => [name, requests])).toEqual([
      ['upload and playback', 2],
      ['admin login', 2],
    ]);
    expect(evidence.bootMilliseconds).toBeGreaterThan(0);
  });

  test('that does not boot is told with what it wrote', async () => {
    const { boot } = profile.application;
    const failure = await failureOf(
      exercise({
        application: {
          ...profile.application,
          boot: { ...boot, timeout: 20_000, environment: { DATABASE_URL: 'mysql://nowhere/x' } },
        },
      }),
    );
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    expect(failure.message).toContain('DATABASE_URL must name a PostgreSQL database');
  });

  test('whose flow fails is told by flow and request', async () => {
    const [flow] = profile.application.flows;
    if (flow === undefined) throw new Error('the profile has no flow');
    const requests = flow.requests.map((request) => ({ ...request, expect: { ...request.expect, status: [418] } }));
    const failure = await failureOf(
      exercise({ application: { ...profile.application, flows: [{ ...flow, requests }] } }),
    );
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    expect(failure.message).toContain(
      'flow "upload and playback", upload: POST /recordings: status 201 instead of 418',
    );
  });
});
