import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import type { ApplicationFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ActivityDependencies } from '../../src/activities/dependencies.ts';
import { readMigrationGraph } from '../../src/activities/graph.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import type { GraphEvidence, GraphInput } from '../../src/contract/evidence/tooling.ts';
import type { Profile } from '../../src/contract/profile.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { createService as createSource } from '../fixtures/alembic/service.ts';
import { createService, execute } from '../postgres-service.ts';
import { secretFile } from '../secret-file.ts';
import { createDatabase, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { writeServiceProfile } from './service-profile.ts';

const stack = useStack();
const run = promisify(execFile);

let home: string;
let production: string;
let staging: string;
let input: GraphInput;
let deps: ActivityDependencies;

const read = (targetRevision: string, change: Partial<Profile> = {}): Promise<GraphEvidence> =>
  new MockActivityEnvironment(
    { heartbeatTimeoutMs: 10_000, workflowExecution: { workflowId: input.run.workflowId, runId: input.run.runId } },
    { logger: new DefaultLogger('ERROR') },
  ).run(() => readMigrationGraph(deps)({ ...input, targetRevision, profile: { ...input.profile, ...change } }));

const refused = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => {
      throw new Error('it was not refused');
    },
    (error: ApplicationFailure) => {
      expect(error.type).toBe(STEP_ERRORS.refused);
      return error.message;
    },
  );

const withAlembic = (change: Partial<Profile['alembic']>): Partial<Profile> => ({
  alembic: { ...input.profile.alembic, ...change },
});

const versions = (url: string, rows: readonly string[], table = 'public.alembic_version'): Promise<void> =>
  execute(
    url,
    `CREATE TABLE ${table} (version_num text PRIMARY KEY)`,
    ...rows.map((row) => `INSERT INTO ${table} VALUES ('${row}')`),
  );

beforeAll(async () => {
  home = await temporaryDirectory('graph-step');
  const { root } = await createSource([
    { id: 'r0' },
    { id: 'a1', down: '"r0"', head: 'branch_labels = ("app",)', upgrade: 'op.execute("SELECT 1")' },
    { id: 'a2', down: '"a1"' },
    { id: 'b1', down: '"r0"', head: 'branch_labels = ("audit",)' },
    { id: 'q1' },
  ]);
  const git = (...args: readonly string[]) =>
    run('git', ['-C', root, '-c', 'user.name=Test', '-c', 'user.email=test@example.com', ...args]);
  await git('init', '--quiet', '--initial-branch=main');
  await git('add', '--all');
  await git('commit', '--quiet', '--message', 'Release');
  const { stdout: commit } = await git('rev-parse', 'HEAD');
  const { profile, service } = await writeServiceProfile(home, await createService(stack.postgres.primary));
  const { prepare: _, ...repository } = profile.repository;
  deps = {
    profilesDirectory: home,
    stateDirectory: join(home, 'state'),
    client: new Client({ connection: Connection.lazy({ address: stack.temporal.address }) }),
    secrets: createSecretVault(),
  };
  const runId = crypto.randomUUID();
  const { python, bin } = stack.venv;
  input = {
    run: {
      runId,
      workflowId: `migrate-${service}`,
      service,
      releaseTag: 'v2.0.0',
      changeTicket: 'CHG-1',
      requestedBy: 'dana@example.com',
      commit: commit.trim(),
    },
    targetRevision: 'head',
    profile: {
      ...profile,
      repository: { ...repository, url: root },
      alembic: { ...profile.alembic, python, environment: {} },
      lint: { program: join(bin, 'squawk'), refuse: [], exclude: [] },
    },
  };
});

beforeEach(async () => {
  production = (await createDatabase(stack.postgres.primary, 'graph')).url;
  staging = (await createDatabase(stack.postgres.primary, 'graph_staging')).url;
  const { databases } = input.profile;
  const change = {
    production: { ...databases.production, backup: await secretFile(home, production) },
    staging: { ...databases.staging, migrator: await secretFile(home, staging) },
  };
  input = { ...input, profile: { ...input.profile, databases: { ...databases, ...change } } };
});

describe('the path from where production stands', () => {
  test('to several heads goes one branch after the other, and back by a command for each', async () => {
    await versions(production, ['r0']);
    const graph = await read('app@head, audit@head');
    expect(graph).toMatchObject({
      startRevisions: ['r0'],
      targetRevision: 'a2, b1',
      targetRevisions: ['a2', 'b1'],
      downgrade: { kind: 'planned', commands: ['r0'] },
      unknown: [],
    });
    expect(graph.path.map(({ revision }) => revision)).toEqual(['a1', 'a2', 'b1']);
    expect(graph.path[0]).toMatchObject({ operations: ['execute'], branchLabels: ['app'] });
  });

  test('starts at several revisions, and leaves a branch alone that stands where it should', async () => {
    await versions(production, ['a1', 'b1']);
    const graph = await read('heads');
    expect(graph).toMatchObject({
      startRevisions: ['a1', 'b1'],
      targetRevision: 'a2, b1, q1',
      targetRevisions: ['a2', 'q1'],
    });
    expect(graph.downgrade).toEqual({ kind: 'planned', commands: ['a1', 'q1@base'] });
  });

  test('starts at nothing in a database that is empty', async () => {
    const graph = await read('a2');
    expect(graph).toMatchObject({ startRevisions: [], downgrade: { kind: 'planned', commands: ['base'] } });
    expect(graph.path.map(({ revision }) => revision)).toEqual(['r0', 'a1', 'a2']);
  });

  test('is read from a version table of another name and schema', async () => {
    await execute(production, 'CREATE SCHEMA ops');
    await versions(production, ['a1'], 'ops.revisions');
    const graph = await read('a2', withAlembic({ versionTable: { schema: 'ops', table: 'revisions' } }));
    expect(graph.startRevisions).toEqual(['a1']);
  });

  test('of a command that tells its heads only is one revision, and says what is not known', async () => {
    await versions(production, ['r1']);
    const graph = await read('head', withAlembic({ commands: { heads: ['echo', 'r9 (head)'] } }));
    expect(graph).toMatchObject({
      targetRevisions: ['r9'],
      path: [{ revision: 'r9', sha256: '', transactional: 'unknown' }],
      downgrade: { kind: 'planned', commands: ['r1'] },
    });
    expect(graph.unknown).toHaveLength(3);
    expect(graph.unknown[0]).toContain('which revisions lie between r1 and r9');
    expect(await read('head', withAlembic({ commands: { heads: ['echo', 'r1 (head)'] } }))).toMatchObject({
      path: [],
      downgrade: { kind: 'planned', commands: [] },
    });
  });

  test('says that a command for the upgrade may run other revisions than those that were read', async () => {
    await versions(production, ['r0']);
    const graph = await read('a2', withAlembic({ commands: { upgrade: ['manage', 'upgrade', '{{revision}}'] } }));
    expect(graph.unknown).toEqual([expect.stringMatching(/^whether manage runs.*alembic\.commands\.heads/)]);
  });
});

describe('a migration is refused', () => {
  test('to head of several, naming each', async () => {
    await versions(production, ['r0']);
    expect(await refused(read('head'))).toMatch(/3 heads: a2 \(app\), b1 \(audit\), q1\. Name one/);
  });

  test('from revisions the release does not know, in production and on staging', async () => {
    await versions(production, ['gone']);
    await versions(staging, ['ahead']);
    const message = await refused(read('a2'));
    expect(message).toMatch(/production stands at gone, which v2\.0\.0 does not know/);
    expect(message).toMatch(/staging stands at ahead/);
  });

  test('from version rows that overlap', async () => {
    await versions(production, ['a1', 'a2']);
    expect(await refused(read('b1'))).toMatch(/version rows a1, a2 overlap: others build upon a1, .*delete that row/);
  });

  test('in a database that is full and has no version table', async () => {
    await execute(production, 'CREATE TABLE orders (id bigint)');
    expect(await refused(read('a2'))).toMatch(
      /production has tables \(public\.orders\) but no version table public\.alembic_version.*stamp/,
    );
  });

  test('for rules to be refused that the linter does not know, before anything is rehearsed', async () => {
    await versions(production, ['r0']);
    const lint = { ...input.profile.lint, refuse: ['ban-drop-column', 'ban-everything'] };
    expect(await refused(read('a2', { lint }))).toMatch(/lint\.refuse: squawk \S+ has no rule ban-everything/);
  });
});
