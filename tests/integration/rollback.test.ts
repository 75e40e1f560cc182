import { execFile } from 'node:child_process';
import { access, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import type { ApplicationFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { Client as PostgresClient } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createAccessActivities } from '../../src/activities/preconditions/access.ts';
import type { ActivityDependencies } from '../../src/activities/dependencies.ts';
import { rollBackProduction } from '../../src/activities/recovery/rollback.ts';
import { upgradeLines } from '../../src/commands/upgrade-texts.ts';
import { serviceEnvironment } from '../../src/alembic/service-url.ts';
import { upgrade } from '../../src/alembic/upgrade.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import type { RollbackEvidence, RollbackInput } from '../../src/contract/evidence/rollback.ts';
import type { AlembicRevision } from '../../src/contract/graph.ts';
import type { Profile } from '../../src/contract/profile.ts';
import { parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { createService as createSource } from '../fixtures/alembic/service.ts';
import { createService, execute, query, type TestService, withClient } from '../postgres-service.ts';
import { useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { writeServiceProfile } from './service-profile.ts';

const stack = useStack();
const run = promisify(execFile);

/** What each revision does to the test service, which stands at 0002. */
const REVISIONS = [
  { id: '0002' },
  {
    id: 'r1',
    down: '"0002"',
    upgrade: 'op.execute("ALTER TABLE public.users ADD COLUMN rank integer NOT NULL DEFAULT 0")',
    downgrade: 'op.execute("ALTER TABLE public.users DROP COLUMN rank")',
  },
  {
    id: 'r2',
    down: '"r1"',
    upgrade:
      'op.execute("CREATE TYPE public.mood AS ENUM (\'calm\')")\nop.execute("CREATE TABLE public.moods (m public.mood)")',
    downgrade: 'op.execute("DROP TABLE public.moods")',
  },
];

const revision = (id: string, more: Partial<AlembicRevision> = {}): AlembicRevision => ({
  revision: id,
  downRevisions: [],
  dependsOn: [],
  branchLabels: [],
  file: `migrations/versions/${id}.py`,
  sha256: 'a'.repeat(64),
  transactional: 'yes',
  outsideTransaction: 'nothing',
  downgradeTransactional: 'yes',
  downgrade: 'present',
  operations: [],
  doc: '',
  ...more,
});

let home: string;
let source: string;
let commit: string;
let deps: ActivityDependencies;

beforeAll(async () => {
  home = await temporaryDirectory('rollback');
  source = (await createSource(REVISIONS)).root;
  const git = (...args: readonly string[]) =>
    run('git', ['-C', source, '-c', 'user.name=Test', '-c', 'user.email=test@example.com', ...args]);
  await git('init', '--quiet', '--initial-branch=main');
  await git('add', '--all');
  await git('commit', '--quiet', '--message', 'Release');
  commit = (await git('rev-parse', 'HEAD')).stdout.trim();
  deps = {
    profilesDirectory: home,
    stateDirectory: join(home, 'state'),
    client: new Client({ connection: Connection.lazy({ address: stack.temporal.address }) }),
    secrets: createSecretVault(),
  };
});

interface World {
  readonly service: TestService;
  readonly input: RollbackInput;
}
let world: World;

beforeEach(async () => {
  const service = await createService(stack.postgres.primary);
  const { profile, service: name } = await writeServiceProfile(home, service);
  const { prepare: _, ...repository } = profile.repository;
  const step = {
    run: {
      runId: crypto.randomUUID(),
      workflowId: `migrate-${name}`,
      service: name,
      releaseTag: 'v2.0.0',
      changeTicket: 'CHG-1',
      requestedBy: 'dana@example.com',
      commit,
    },
    profile: {
      ...profile,
      repository: { ...repository, url: source },
      alembic: { ...profile.alembic, python: stack.venv.python, environment: {} },
      guard: { ...profile.guard, lockTimeout: 300, tries: 3 },
    } satisfies Profile,
  };
  const before = await asActivity(() => createAccessActivities(deps).inspectProduction(step));
  world = {
    service,
    input: {
      ...step,
      before,
      expectedLeftovers: ['added type public.mood'],
      dropped: [],
      arrivals: null,
      graph: {
        startRevisions: ['0002'],
        targetRevision: 'r2',
        targetRevisions: ['r2'],
        path: [revision('r1'), revision('r2')],
        downgrade: { kind: 'planned', commands: ['0002'] },
        risks: [],
        unknown: [],
      },
    },
  };
});

const asActivity = <T>(work: () => Promise<T>, heard: (details: unknown) => void = () => undefined): Promise<T> => {
  const environment = new MockActivityEnvironment({ heartbeatTimeoutMs: 400 }, { logger: new DefaultLogger('ERROR') });
  environment.on('heartbeat', heard);
  return environment.run(work);
};

async function upgradeTo(target: string): Promise<void> {
  const { profile } = world.input;
  const { result } = await upgrade({
    python: stack.venv.python,
    directory: source,
    config: 'alembic.ini',
    environment: serviceEnvironment(parseConnectionUrl(world.service.migratorUrl), profile.alembic),
    signal: new AbortController().signal,
    redactor: createRedactor([]),
    target,
  });
  expect(result).toMatchObject({ kind: 'exited', code: 0 });
}

const rollBack = (change: Partial<RollbackInput> = {}, heard?: (details: unknown) => void): Promise<RollbackEvidence> =>
  asActivity(() => rollBackProduction(deps)({ ...world.input, ...change }), heard);

const failureOf = (work: Promise<unknown>): Promise<ApplicationFailure> =>
  work.then(
    () => {
      throw new Error('it succeeded');
    },
    (error: ApplicationFailure) => error,
  );

const versionRows = async (): Promise<string[]> =>
  (await query<{ row: string }>(world.service.superuserUrl, 'SELECT version_num AS row FROM alembic_version')).map(
    ({ row }) => row,
  );

describe('the rollback of production', () => {
  test('runs the planned downgrade and finds what the rehearsal had left', async () => {
    await upgradeTo('r2');
    const evidence = await rollBack();
    expect(evidence).toMatchObject({
      commands: ['0002'],
      versionRows: ['0002'],
      objects: 'as-rehearsed',
      differences: ['added type public.mood'],
    });
    expect(await versionRows()).toEqual(['0002']);
  });

  test('leaves objects as before where only the first revision had been applied', async () => {
    await upgradeTo('r1');
    expect(await rollBack()).toMatchObject({ commands: ['0002'], objects: 'equal', differences: [] });
  });

  test('tells columns that stand in another order than before', async () => {
    await execute(world.service.migratorUrl, 'ALTER TABLE public.notes ADD COLUMN extra text');
    const before = await asActivity(() => createAccessActivities(deps).inspectProduction(world.input));
    await upgradeTo('r1');
    // What a downgrade does that brings a dropped column back.
    await execute(
      world.service.migratorUrl,
      'ALTER TABLE public.notes ADD COLUMN again text',
      'UPDATE public.notes SET again = body',
      'ALTER TABLE public.notes DROP COLUMN body',
      'ALTER TABLE public.notes RENAME COLUMN again TO body',
    );
    expect(await rollBack({ before })).toMatchObject({
      objects: 'equal',
      reordered: ['column order of public.notes: id, user_id, body, extra -> id, user_id, extra, body'],
    });
  });

  test('has nothing to do where an earlier attempt has done it', async () => {
    await upgradeTo('r1');
    await rollBack();
    expect(await rollBack()).toMatchObject({ commands: [], versionRows: ['0002'], objects: 'equal' });
  });

  test('stops at what the rehearsal had not left', async () => {
    await upgradeTo('r2');
    const failure = await failureOf(rollBack({ expectedLeftovers: ['added type public.other'] }));
    expect(failure.type).toBe(STEP_ERRORS.stateUnexpected);
    expect(failure.message).toContain('added type public.mood');
    expect(failure.details).toEqual([{ differences: ['added type public.mood'] }]);
  });

  test('tries again while somebody holds a lock, and goes through when he is gone', async () => {
    await upgradeTo('r1');
    const told: unknown[] = [];
    await withClient(world.service.applicationUrl, async (reader) => {
      await reader.query('BEGIN');
      await reader.query('SELECT count(*) FROM public.users');
      const rolling = rollBack({}, (details) => told.push(details));
      rolling.catch(() => undefined);
      // The downgrade waits, is sent away, and comes back.
      while (!(await isWaiting())) await delay(20);
      while (await isWaiting()) await delay(20);
      await reader.query('ROLLBACK');
      expect(await rolling).toMatchObject({ objects: 'equal', versionRows: ['0002'] });
    });
    expect(JSON.stringify(told)).toContain('downgrade 0002');
  });

  test('gives up after its tries, and says that it was a lock', async () => {
    await upgradeTo('r1');
    const { guard } = world.input.profile;
    await withClient(world.service.applicationUrl, async (reader) => {
      await reader.query('BEGIN');
      await reader.query('SELECT count(*) FROM public.users');
      const failure = await failureOf(rollBack({ profile: { ...world.input.profile, guard: { ...guard, tries: 2 } } }));
      expect(failure.type).toBe(STEP_ERRORS.processFailed);
      expect(failure.message).toMatch(/alembic downgrade 0002 ended with .*lock timeout/s);
      expect(failure.message).toMatch(/in the way: try 1: pid \d+ .*idle in transaction/);
      expect(failure.details).toMatchObject([{ untouched: true }]);
    });
    expect(await versionRows()).toEqual(['r1']);
  });

  test('names who stands in its way, and lets readers through, where the command hides from our part', async () => {
    await upgradeTo('r1');
    await execute(world.service.superuserUrl, `ALTER ROLE ${world.service.roles.migrator} RESET lock_timeout`);
    const { profile } = world.input;
    const command = [stack.venv.python, '-I', '-m', 'alembic', 'downgrade', '{{revision}}'];
    const named = Promise.withResolvers<readonly string[]>();
    await withClient(world.service.applicationUrl, async (forgotten) => {
      await forgotten.query('BEGIN');
      await forgotten.query('SELECT count(*) FROM public.users');
      const rolling = rollBack(
        { profile: { ...profile, alembic: { ...profile.alembic, commands: { downgrade: command } } } },
        (details) => {
          const lines = upgradeLines(details, Date.now());
          if (lines.some((line) => line.startsWith('BLOCKED'))) named.resolve(lines);
        },
      );
      rolling.catch(named.reject);
      const { rows } = await forgotten.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      expect((await named.promise).join()).toMatch(
        new RegExp(`BLOCKED by pid ${rows[0]!.pid} .*AccessExclusiveLock on public.users waits`),
      );
      // It would wait behind the downgrade for as long as nobody stopped that.
      await query(world.service.applicationUrl, 'SELECT count(*) FROM public.users');
      await forgotten.query('ROLLBACK');
      expect(await rolling).toMatchObject({ objects: 'equal', versionRows: ['0002'] });
    });
  });

  test('ends who stands in its way where the profile allows that', async () => {
    await upgradeTo('r1');
    const { profile } = world.input;
    const client = new PostgresClient({ connectionString: world.service.backupUrl });
    client.on('error', () => undefined);
    await client.connect();
    await client.query('BEGIN');
    await client.query('SELECT count(*) FROM public.users');
    const evidence = await rollBack({ profile: { ...profile, guard: { ...profile.guard, endBlockersAfter: 2_000 } } });
    expect(evidence).toMatchObject({ objects: 'equal', versionRows: ['0002'] });
    await expect(client.query('SELECT 1')).rejects.toThrow(/terminat|not queryable/);
  });

  test('asks a service’s own command for the rehearsed revision where that hides the graph', async () => {
    await upgradeTo('r1');
    const { profile, graph } = world.input;
    const wrapper = join(home, 'wrapper');
    await writeFile(wrapper, `#!/bin/sh\nexec ${stack.venv.python} -m alembic downgrade "$1"\n`, { mode: 0o755 });
    const evidence = await rollBack({
      profile: { ...profile, alembic: { ...profile.alembic, commands: { downgrade: [wrapper, '{{revision}}'] } } },
      graph: {
        ...graph,
        path: [revision('r2', { sha256: '', transactional: 'unknown', outsideTransaction: 'anything' })],
      },
    });
    expect(evidence).toMatchObject({ commands: ['0002'], versionRows: ['0002'], objects: 'equal' });
  });

  test('does not take a command’s word: it ended well and production stands elsewhere', async () => {
    await upgradeTo('r1');
    const { profile, graph } = world.input;
    const failure = await failureOf(
      rollBack({
        profile: { ...profile, alembic: { ...profile.alembic, commands: { downgrade: ['true'] } } },
        graph: { ...graph, path: [revision('r2', { sha256: '' })] },
      }),
    );
    expect(failure.type).toBe(STEP_ERRORS.stateUnexpected);
    expect(failure.message).toContain('production stands at r1, planned was 0002');
  });

  test('is refused where there is no way down', async () => {
    await execute(world.service.migratorUrl, `UPDATE public.alembic_version SET version_num = 'stranger'`);
    const failure = await failureOf(rollBack());
    expect(failure).toMatchObject({ type: STEP_ERRORS.refused, nonRetryable: true });
    expect(failure.message).toContain('no downgrade from stranger');
  });
});

describe('what comes in after it was counted', () => {
  const dropped = [{ table: 'public.moods', column: null, rows: 0 }];
  const shown = [{ ...dropped[0]!, found: 0 }];
  const count = async (): Promise<number> =>
    Number((await query<{ n: string }>(world.service.superuserUrl, 'SELECT count(*) AS n FROM public.moods'))[0]?.n);
  const insert = `INSERT INTO public.moods VALUES ('calm')`;

  beforeEach(async () => {
    await upgradeTo('r2');
    await execute(world.service.superuserUrl, 'GRANT ALL ON public.moods TO PUBLIC');
  });

  test('refuses, and production is as it was', async () => {
    await execute(world.service.applicationUrl, insert);
    const failure = await failureOf(rollBack({ dropped, arrivals: shown }));
    expect(failure).toMatchObject({ type: STEP_ERRORS.checkFailed, nonRetryable: true });
    expect(failure.message).toContain('1 row(s) or value(s) came into public.moods since they were counted');
    expect(failure.details).toMatchObject([{ untouched: true }]);
    expect(await versionRows()).toEqual(['r2']);
    expect(await count()).toBe(1);
  });

  test('what was shown is dropped, and nothing stays uncounted', async () => {
    await execute(world.service.applicationUrl, insert);
    expect(await rollBack({ dropped, arrivals: [{ ...shown[0]!, found: 1 }] })).toMatchObject({
      versionRows: ['0002'],
      uncounted: null,
    });
  });

  test('goes through where nothing came', async () => {
    expect(await rollBack({ dropped, arrivals: shown })).toMatchObject({ versionRows: ['0002'], uncounted: null });
  });

  test('nothing is counted behind a fence', async () => {
    await execute(world.service.applicationUrl, insert);
    expect(await rollBack({ dropped, arrivals: null })).toMatchObject({ versionRows: ['0002'], uncounted: null });
  });

  test('waits for a row in flight, and refuses when it is committed', async () => {
    const { guard } = world.input.profile;
    const profile = { ...world.input.profile, guard: { ...guard, lockTimeout: 30_000 } };
    await withClient(world.service.applicationUrl, async (writer) => {
      await writer.query('BEGIN');
      await writer.query(insert);
      const rolling = failureOf(rollBack({ dropped, arrivals: shown, profile }));
      while (!(await isWaiting())) await delay(20);
      await writer.query('COMMIT');
      expect((await rolling).type).toBe(STEP_ERRORS.checkFailed);
    });
    expect(await versionRows()).toEqual(['r2']);
    expect(await count()).toBe(1);
  });

  test('waits for a row in flight, and goes through when it is taken back', async () => {
    await withClient(world.service.applicationUrl, async (writer) => {
      await writer.query('BEGIN');
      await writer.query(insert);
      const rolling = rollBack({ dropped, arrivals: shown });
      rolling.catch(() => undefined);
      // Its lock is not to be had in time: sent away, and back again.
      while (!(await isWaiting())) await delay(20);
      while (await isWaiting()) await delay(20);
      await writer.query('ROLLBACK');
      expect(await rolling).toMatchObject({ versionRows: ['0002'], uncounted: null });
    });
  });

  test('keeps every row that a busy writer was told is committed', async () => {
    let committed = 0;
    let stop = false;
    const writing = withClient(world.service.applicationUrl, async (writer) => {
      while (!stop) {
        await writer.query(insert);
        committed += 1;
      }
    });
    writing.catch(() => undefined);
    while (committed < 5) await delay(5);
    const failure = await failureOf(rollBack({ dropped, arrivals: [{ ...shown[0]!, found: await count() }] }));
    stop = true;
    await writing;
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    expect(await count()).toBe(committed);
  });

  test('says what could not be kept out where a command hides Alembic', async () => {
    const { profile } = world.input;
    const wrapper = join(home, 'isolated');
    await writeFile(wrapper, `#!/bin/sh\nexec ${stack.venv.python} -E -m alembic downgrade "$1"\n`, { mode: 0o755 });
    const hidden = {
      dropped,
      arrivals: shown,
      profile: { ...profile, alembic: { ...profile.alembic, commands: { downgrade: [wrapper, '{{revision}}'] } } },
    };
    await execute(world.service.applicationUrl, insert);
    expect((await failureOf(rollBack(hidden))).type).toBe(STEP_ERRORS.checkFailed);
    await execute(world.service.superuserUrl, 'DELETE FROM public.moods');
    const { uncounted, versionRows: rows } = await rollBack(hidden);
    expect(rows).toEqual(['0002']);
    expect(uncounted).toContain('"alembic downgrade 0002" could not be held');
  });

  test('what a try that did not end well left uncounted is told by the next', async () => {
    const { profile } = world.input;
    const wrapper = join(home, 'dies');
    const python = stack.venv.python;
    await writeFile(wrapper, `#!/bin/sh\n${python} -E -m alembic downgrade "$1" && kill -KILL $$\n`, { mode: 0o755 });
    const dying = { ...profile, alembic: { ...profile.alembic, commands: { downgrade: [wrapper, '{{revision}}'] } } };
    expect((await failureOf(rollBack({ dropped, arrivals: shown, profile: dying }))).type).toBe(
      STEP_ERRORS.processFailed,
    );
    expect(await versionRows()).toEqual(['0002']);
    const { commands, uncounted } = await rollBack({ dropped, arrivals: shown });
    expect(commands).toEqual([]);
    expect(uncounted).toContain('"alembic downgrade 0002" could not be held');
  });

  test.each([
    ['yes', false],
    ['no', true],
    ['unknown', true],
  ] as const)(
    'a try that goes on behind a fence where one did not end well: downgrade in one transaction: %s, told: %s',
    async (downgradeTransactional, told) => {
      const { profile, graph } = world.input;
      const wrapper = join(home, 'stops');
      await writeFile(wrapper, '#!/bin/sh\nkill -KILL $$\n', { mode: 0o755 });
      const dying = { ...profile, alembic: { ...profile.alembic, commands: { downgrade: [wrapper, '{{revision}}'] } } };
      const path = graph.path.map((entry) => ({ ...entry, downgradeTransactional }));
      const failure = await failureOf(rollBack({ profile: dying, graph: { ...graph, path } }));
      expect(failure.details?.some((one) => (one as { untouched?: unknown }).untouched === true)).toBe(!told);
      const ended = await rollBack({ graph: { ...graph, path } });
      expect(ended).toMatchObject({ versionRows: ['0002'], resumed: told });
      expect((await rollBack({ graph: { ...graph, path } })).resumed).toBe(false);
    },
  );

  test('what a killed attempt dropped is told as perhaps not counted', async () => {
    const { profile } = world.input;
    const wrapper = join(home, 'lingers');
    const python = stack.venv.python;
    const done = join(home, 'done');
    await writeFile(wrapper, `#!/bin/sh\n${python} -E -m alembic downgrade "$1"; touch ${done}; exec sleep 60\n`, {
      mode: 0o755,
    });
    const slow = { ...profile, alembic: { ...profile.alembic, commands: { downgrade: [wrapper, '{{revision}}'] } } };
    const environment = new MockActivityEnvironment();
    const lost = environment.run(rollBackProduction(deps), {
      ...world.input,
      dropped,
      arrivals: shown,
      profile: slow,
    });
    lost.catch(() => undefined);
    while (!(await exists(done))) await delay(20);
    environment.cancel();
    await lost.catch(() => undefined);
    expect(await versionRows()).toEqual(['0002']);
    const { uncounted } = await rollBack({ dropped, arrivals: shown });
    expect(uncounted).toContain('on the way from r2 to 0002 may not have been counted');
  });

  test('a migrator that may not lock goes through, and it is told', async () => {
    await execute(
      world.service.superuserUrl,
      `REVOKE ALL ON public.moods FROM PUBLIC; REVOKE ALL ON public.moods FROM ${world.service.roles.owner}`,
    );
    const { uncounted } = await rollBack({ dropped, arrivals: shown });
    expect(uncounted).toContain('the migrator may not lock "public"."moods"');
  });
});

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

async function isWaiting(): Promise<boolean> {
  const rows = await query(
    world.service.superuserUrl,
    `SELECT FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'`,
    [world.service.roles.migrator],
  );
  return rows.length > 0;
}
