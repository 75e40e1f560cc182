import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { ApplicationFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { Client } from 'pg';
import { beforeAll, describe, expect, it } from 'vitest';
import { createFenceActivities } from '../../src/activities/apply/fence.ts';
import { inspectFenceAccess } from '../../src/activities/preconditions/fence-access.ts';
import { withRunStore } from '../../src/activities/run-store.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import type { FenceEvidence } from '../../src/contract/evidence/fence.ts';
import type { StepInput, StoredDocument } from '../../src/contract/evidence/step.ts';
import type { SwitchState } from '../../src/contract/evidence/switches.ts';
import type { Profile, SecretReference } from '../../src/contract/profile.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { Findings } from '../../src/postgres/findings.ts';
import { readIdentity } from '../../src/postgres/identity.ts';
import { counterDelta, readCounters } from '../../src/postgres/contents/write-counters.ts';
import { testProfile, testRun } from '../integration-context.ts';
import { createService, execute, majorOf, query, type TestService, withClient } from '../postgres-service.ts';
import { secretFile } from '../secret-file.ts';
import { createRole, databaseUrl, randomName, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { createKeys } from './archive-source.ts';

const stack = useStack();
/** Before PostgreSQL 16 CREATEROLE alone reaches every role. */
const adminIsNeeded = (await majorOf(stack.postgres.primary)) >= 16;
const server = stack.postgres.primary;
const READ_ONLY = 'cannot execute INSERT in a read-only transaction';
const WRITE = `INSERT INTO public.notes (user_id, body) VALUES (1, 'a note')`;

let home: string;
beforeAll(async () => {
  home = await temporaryDirectory('postgres-fence');
});

const secret = (value: string): Promise<SecretReference> => secretFile(home, value);

/** A run on a production of its own whose profile asks for a fence. */
async function createRun(
  change: (profile: Profile) => Partial<Profile> = () => ({}),
): Promise<{ service: TestService; input: StepInput }> {
  const service = await createService(server);
  const keys = await createKeys();
  const template = testProfile(home);
  const profile: Profile = {
    ...template,
    fence: { kind: 'read-only' },
    databases: {
      ...template.databases,
      production: {
        ...template.databases.production,
        administrator: await secret(service.administratorUrl),
        migrator: await secret(service.migratorUrl),
        backup: await secret(service.backupUrl),
        application: await secret(service.applicationUrl),
        applicationRoles: [service.roles.application],
        maintenanceDatabase: 'postgres',
        standbys: [],
        tls: 'allow',
      },
    },
    backup: {
      ...template.backup,
      bucket: stack.s3.bucket,
      region: stack.s3.region,
      endpoint: stack.s3.endpoint,
      forcePathStyle: true,
      prefix: randomName('fence'),
      accessKeyId: await secret(stack.s3.accessKeyId),
      secretAccessKey: await secret(stack.s3.secretAccessKey),
      recipients: [keys.recipient],
      identity: await secret(keys.identity),
    },
  };
  const input = { run: { ...testRun, runId: randomUUID() }, profile: { ...profile, ...change(profile) } };
  return { service, input };
}

const secrets = createSecretVault();
const activities = createFenceActivities({ secrets, stateDirectory: tmpdir() });
const asActivity = <T>(work: () => Promise<T>): Promise<T> =>
  new MockActivityEnvironment({ heartbeatTimeoutMs: 4_000 }, { logger: new DefaultLogger('ERROR') }).run(work);
const readFence = (input: StepInput) => asActivity(() => activities.readFence(input));
const raise = (input: StepInput) => asActivity(() => activities.engageFence(input));
const lower = (input: StepInput, before: SwitchState, raised: 'surely' | 'perhaps' = 'surely') =>
  asActivity(() => activities.releaseFence({ ...input, before, raised }));
const prove = (input: StepInput, fence: FenceEvidence, footprint?: StoredDocument) =>
  asActivity(() => activities.proveFenceHeld({ ...input, fence, ...(footprint && { footprint }) }));

const failureOf = async (work: Promise<unknown>): Promise<ApplicationFailure> => {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ApplicationFailure);
  return error as ApplicationFailure;
};

/** Every setting of the database and of roles in it. */
const settingsOf = (service: TestService) =>
  query<{ role: string | null; settings: string[] }>(
    server.superuserUrl,
    `SELECT r.rolname AS role, array(SELECT unnest(s.setconfig) ORDER BY 1) AS settings
     FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
     WHERE d.datname = $1 ORDER BY 1`,
    [service.database],
  );

describe('the fence', () => {
  it('keeps a service that reconnects from writing, lets the migrator write, and is lowered without a trace', async () => {
    const { service, input } = await createRun();
    const settings = await settingsOf(service);
    const before = await readFence(input);
    expect(before.state).toBe('released');
    const refused: string[] = [];
    let rows = 0;
    const stop = new AbortController();
    const writer = writeUntil(stop.signal, service.applicationUrl, {
      written: () => (rows += 1),
      refused: (text) => refused.push(text),
    });
    await expect.poll(() => rows).toBeGreaterThan(3);

    const fence = await raise(input);
    const rowsAtFence = rows;
    expect(fence.endedSessions).toBeGreaterThanOrEqual(1);
    expect(fence.tried).toContain('SQLSTATE 25006');
    expect(fence.tried).toContain(service.roles.application);
    await expect.poll(() => refused.filter((text) => text === READ_ONLY).length).toBeGreaterThan(3);
    expect(rows).toBe(rowsAtFence);
    expect(await prove(input, fence)).toMatchObject({ held: true, written: [], unknown: [] });
    expect((await readFence(input)).state).toBe('engaged');

    await execute(service.migratorUrl, `UPDATE public.users SET name = 'migrated' WHERE id = 1`);
    const proof = await prove(input, fence);
    expect(proof).toMatchObject({ held: false, written: [{ table: 'public.users', updated: 1 }] });
    expect(await prove(input, { ...fence, counters: proof.counters })).toMatchObject({ held: true });

    const released = await lower(input, before);
    expect(released.state).toBe('released');
    expect(await settingsOf(service)).toEqual(settings);
    await expect.poll(() => rows).toBeGreaterThan(rowsAtFence + 3);
    stop.abort();
    await writer;
  });

  it('ends a session that was open before, in the midst of its transaction', async () => {
    const { service, input } = await createRun();
    const pooled = new Client({ connectionString: service.applicationUrl });
    pooled.on('error', () => undefined);
    await pooled.connect();
    await pooled.query('BEGIN');
    await pooled.query(WRITE);
    const ended = new Promise<void>((resolve) => pooled.on('end', resolve));
    const fence = await raise(input);
    await ended;
    expect(fence.endedSessions).toBe(1);
    const rows = await query(service.backupUrl, `SELECT FROM public.notes WHERE body = 'a note'`);
    expect(rows).toEqual([]);
    expect(await prove(input, fence)).toMatchObject({ held: true });
  });

  it('holds a role that has switched read-only off for itself, whether the profile names it or not', async () => {
    const { service, input } = await createRun();
    const other = await createRole(server, 'reports');
    await execute(
      service.superuserUrl,
      `ALTER ROLE ${service.roles.application} SET default_transaction_read_only = off`,
      `ALTER ROLE ${other.name} SET default_transaction_read_only = off`,
      `GRANT CONNECT ON DATABASE ${service.database} TO ${other.name}`,
      `GRANT pg_write_all_data, pg_read_all_data TO ${other.name}`,
      ...(adminIsNeeded ? [] : [`ALTER ROLE ${service.roles.administrator} NOCREATEROLE`]),
    );
    const before = await readFence(input);
    const remedy = adminIsNeeded
      ? `GRANT ${other.name} TO ${service.roles.administrator} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`
      : `ALTER ROLE ${service.roles.administrator} CREATEROLE`;
    const refusedBefore = await failureOf(raise(input));
    expect(refusedBefore.type).toBe(STEP_ERRORS.refused);
    expect(refusedBefore.message).toMatch(new RegExp(`settings of role "${other.name}": .*${remedy}`));
    // Nothing was changed.
    expect(await readFence(input)).toEqual(before);

    await execute(service.superuserUrl, remedy);
    await raise(input);
    for (const url of [service.applicationUrl, databaseUrl(server, service.database, other)]) {
      await expect(execute(url, WRITE)).rejects.toThrow(READ_ONLY);
    }
    await lower(input, before);
    await execute(databaseUrl(server, service.database, other), WRITE);
  });

  it('puts back what was set before, also where the database was read-only', async () => {
    const { service, input } = await createRun();
    await execute(
      service.superuserUrl,
      `ALTER DATABASE ${service.database} SET default_transaction_read_only = true`,
      `ALTER ROLE ${service.roles.application} IN DATABASE ${service.database} SET default_transaction_read_only = 'off'`,
      `ALTER ROLE ${service.roles.migrator} IN DATABASE ${service.database} SET default_transaction_read_only = 'no'`,
    );
    const settings = await settingsOf(service);
    const leaving = await createRole(server, 'leaving');
    await execute(
      server.superuserUrl,
      `ALTER ROLE ${leaving.name} IN DATABASE ${service.database} SET default_transaction_read_only = on`,
    );
    const before = await readFence(input);
    await raise(input);
    await execute(server.superuserUrl, `DROP ROLE ${leaving.name}`);
    await expect(execute(service.applicationUrl, WRITE)).rejects.toThrow(READ_ONLY);
    const released = await lower(input, before);
    expect(await settingsOf(service)).toEqual(settings);
    expect(released.detail['tried']).toContain('let through');
    await execute(service.applicationUrl, WRITE);
  });

  it('is lowered onto a database whose service was read-only before, and says so', async () => {
    const { service, input } = await createRun();
    await execute(service.superuserUrl, `ALTER DATABASE ${service.database} SET default_transaction_read_only = on`);
    const before = await readFence(input);
    expect(before.state).toBe('released');
    await raise(input);
    const released = await lower(input, before);
    expect(released.detail['tried']).toContain('25006');
  });

  it('may be raised and lowered again by attempts that know nothing of each other', async () => {
    const { service, input } = await createRun();
    const settings = await settingsOf(service);
    const before = await readFence(input);
    // An attempt that died between the settings and the sessions.
    await withClient(service.applicationUrl, async (pooled) => {
      const ended = new Promise<void>((resolve) => pooled.on('end', resolve));
      await execute(
        service.administratorUrl.replace(`/${service.database}`, '/postgres'),
        `ALTER DATABASE ${service.database} SET default_transaction_read_only = on`,
        ...[service.roles.application, service.roles.migrator].map(
          (role) =>
            `ALTER ROLE ${role} IN DATABASE ${service.database} SET default_transaction_read_only = ${role === service.roles.migrator ? 'off' : 'on'}`,
        ),
      );
      await pooled.query(WRITE);
      await raise(input);
      await ended;
    });
    const fence = await raise(input);
    expect(fence.state.state).toBe('engaged');
    await expect(execute(service.applicationUrl, WRITE)).rejects.toThrow(READ_ONLY);
    await lower(input, before);
    await lower(input, before);
    expect(await settingsOf(service)).toEqual(settings);
  });

  it('is lowered under production’s name where another database has taken it', async () => {
    const { service, input } = await createRun();
    const before = await readFence(input);
    await raise(input);
    const aside = `${service.database}_aside`;
    await execute(
      server.superuserUrl,
      `ALTER DATABASE ${service.database} RENAME TO ${aside}`,
      `CREATE DATABASE ${service.database} TEMPLATE ${aside} OWNER ${service.roles.owner}`,
      `GRANT CONNECT ON DATABASE ${service.database} TO ${service.roles.application}`,
      `ALTER DATABASE ${service.database} SET default_transaction_read_only = on`,
      `ALTER ROLE ${service.roles.application} IN DATABASE ${service.database} SET default_transaction_read_only = on`,
    );
    await lower(input, before);
    await execute(service.applicationUrl, WRITE);
    await expect(execute(service.applicationUrl.replace(service.database, aside), WRITE)).rejects.toThrow(READ_ONLY);
  });

  it('lets the administration go on behind it', async () => {
    const { service, input } = await createRun();
    await execute(service.migratorUrl, 'CREATE INDEX leftover ON public.notes (body)');
    await raise(input);
    await withConnection(
      service.administratorUrl,
      { runId: input.run.runId, step: 'test', signal: new AbortController().signal },
      (client) => client.query('DROP INDEX CONCURRENTLY public.leftover'),
    );
    expect(await query(service.backupUrl, `SELECT FROM pg_indexes WHERE indexname = 'leftover'`)).toEqual([]);
  });

  it('is not raised while something could write behind it: superusers, subscriptions', async () => {
    const { service, input } = await createRun();
    await execute(
      service.superuserUrl,
      `CREATE SUBSCRIPTION inflow CONNECTION 'host=127.0.0.1 port=1 dbname=none' PUBLICATION none WITH (connect = false, slot_name = none_such)`,
      'ALTER SUBSCRIPTION inflow ENABLE',
    );
    await withClient(service.superuserUrl, async () => {
      const failure = await failureOf(raise(input));
      expect(failure.type).toBe(STEP_ERRORS.refused);
      expect(failure.message).toContain('sessions remain that could write: a superuser is connected');
      expect(failure.message).toContain('ALTER SUBSCRIPTION inflow DISABLE');
    });
    await execute(
      service.superuserUrl,
      'ALTER SUBSCRIPTION inflow DISABLE',
      'ALTER SUBSCRIPTION inflow SET (slot_name = NONE)',
      'DROP SUBSCRIPTION inflow',
    );
    expect((await readFence(input)).state).toBe('released');
    await execute(service.applicationUrl, WRITE);
    await raise(input);
  });

  it('that was refused is lowered without ending anybody’s session; one that was begun is, with them', async () => {
    const { service, input } = await createRun();
    const before = await readFence(input);
    await withClient(service.superuserUrl, async () => {
      expect((await failureOf(raise(input))).type).toBe(STEP_ERRORS.refused);
    });
    await withClient(service.applicationUrl, async (client) => {
      await client.query('BEGIN');
      expect(await lower(input, before, 'perhaps')).toMatchObject({ state: 'released', detail: { endedSessions: 0 } });
      await client.query(WRITE);
      await client.query('COMMIT');
    });

    await execute(server.superuserUrl, `ALTER DATABASE ${service.database} SET default_transaction_read_only = on`);
    await withClient(service.applicationUrl, async (client) => {
      client.on('error', () => undefined);
      expect(await lower(input, before, 'perhaps')).toMatchObject({ state: 'released', detail: { endedSessions: 1 } });
      await expect(client.query('SELECT 1')).rejects.toThrow(/terminat|closed|connection/i);
    });
  });

  it('is lowered though its login finds every connection taken: the step that would be repeated ends all sessions', async () => {
    const { service, input } = await createRun();
    const before = await readFence(input);
    await raise(input);
    await execute(server.superuserUrl, `ALTER ROLE ${service.roles.application} CONNECTION LIMIT 0`);
    const released = await lower(input, before);
    expect(released).toMatchObject({ state: 'released', detail: { setting: null } });
    expect(released.detail['tried']).toContain('could not be tried');
    await execute(server.superuserUrl, `ALTER ROLE ${service.roles.application} CONNECTION LIMIT -1`);
    await execute(service.applicationUrl, WRITE);
  });

  it('is not raised without the service’s own login to try it with', async () => {
    const missing = await createRun(({ databases }) => {
      const { application: _left, ...production } = databases.production;
      return { databases: { ...databases, production } };
    });
    expect((await failureOf(raise(missing.input))).message).toContain('names no databases.production.application');
    expect((await readFence(missing.input)).state).toBe('released');

    const foreign = await createRun();
    const { databases } = foreign.input.profile;
    const production = { ...databases.production, application: databases.production.backup };
    const failure = await failureOf(
      raise({ ...foreign.input, profile: { ...foreign.input.profile, databases: { ...databases, production } } }),
    );
    expect(failure.message).toContain('which is none of applicationRoles');
  });

  it('is tried by other means where the service may write no table', async () => {
    const { service, input } = await createRun();
    await execute(service.superuserUrl, `REVOKE ALL ON ALL TABLES IN SCHEMA public FROM ${service.roles.application}`);
    expect((await raise(input)).tried).toMatch(/^CREATE TEMPORARY TABLE .*25006/);
  });
});

describe('the inspection of access', () => {
  const inspect = async (service: TestService, input: StepInput): Promise<readonly [string[], string[]]> => {
    const findings = new Findings();
    const session = { runId: 'fence', step: 'test', signal: new AbortController().signal };
    const production = await withConnection(service.administratorUrl, session, readIdentity);
    const { administratorUrl: administrator, migratorUrl: migrator } = service;
    const reached = { administrator, migrator, production };
    const possible = await inspectFenceAccess({ secrets }, input, session, reached, findings);
    return [[...possible], [...findings.all]];
  };

  it('tells long before what a fence and a restore point will need', async () => {
    const { service, input } = await createRun(() => ({ recoveryPoint: { restorePoint: true } }));
    const [possible, findings] = await inspect(service, input);
    expect(possible).toHaveLength(2);
    expect(findings).toEqual([expect.stringContaining('GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point')]);
    // Nothing was tried.
    expect((await readFence(input)).state).toBe('released');
  });

  it('names what is missing: ADMIN on roles, the owner, the right login', async () => {
    const { service, input } = await createRun();
    const { administrator, application, migrator, owner } = service.roles;
    await execute(
      service.superuserUrl,
      `REVOKE ${application}, ${migrator}, ${owner} FROM ${administrator}`,
      `GRANT CONNECT ON DATABASE ${service.database} TO ${administrator}`,
      ...(adminIsNeeded ? [] : [`ALTER ROLE ${administrator} NOCREATEROLE`]),
    );
    const remedy = (role: string): string =>
      adminIsNeeded
        ? `ALTER ROLE ${administrator} CREATEROLE; GRANT ${role} TO ${administrator} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`
        : `"${role}": ALTER ROLE ${administrator} CREATEROLE`;
    const { databases } = input.profile;
    const production = { ...databases.production, application: databases.production.backup };
    const wrong = { ...input, profile: { ...input.profile, databases: { ...databases, production } } };
    const [possible, findings] = await inspect(service, wrong);
    expect(possible).toEqual([]);
    expect(findings).toEqual([
      expect.stringContaining(`may not fence database "${service.database}": GRANT ${owner} TO ${administrator}`),
      expect.stringMatching(new RegExp(`${remedy(application)}$`)),
      expect.stringMatching(new RegExp(`${remedy(migrator)}$`)),
      expect.stringContaining('which is none of applicationRoles'),
    ]);
  });
});

describe('the counters', () => {
  it('give away who switches read-only off for itself', async () => {
    const { service, input } = await createRun();
    const fence = await raise(input);
    await withClient(service.applicationUrl, async (client) => {
      await client.query('SET default_transaction_read_only = off');
      // The first is reported at once, the second kept back while the session idles.
      await client.query(WRITE);
      await client.query(WRITE);
      const proof = await prove(input, fence);
      expect(proof.held).toBe(false);
      expect(proof.written).toEqual([{ table: 'public.notes', inserted: 2, updated: 0, deleted: 0 }]);
    });
  }, 40_000);

  it('tell others’ writes from those that the rehearsed migration makes, once it has begun', async () => {
    const { service, input } = await createRun();
    const fence = await raise(input);
    const rehearsed = (writes?: readonly string[], locks: readonly object[] = []) =>
      withRunStore(secrets, input, new AbortController().signal, ({ record }) =>
        record(`footprint-${randomUUID()}.json`, JSON.stringify({ statements: [], locks, writes })),
      );
    await execute(
      service.migratorUrl,
      `UPDATE public.users SET name = name || '!'`,
      'CREATE TABLE public.moods (m text)',
      `INSERT INTO public.moods VALUES ('calm')`,
    );
    expect(await prove(input, fence)).toMatchObject({ held: false });
    expect(await prove(input, fence, await rehearsed(['public.users']))).toMatchObject({ held: true });
    // The statement was rehearsed, and the rows that it changes have come since.
    const locks = [{ relation: 'public.users', mode: 'RowExclusiveLock', milliseconds: 1, revision: null }];
    expect(await prove(input, fence, await rehearsed([], locks))).toMatchObject({ held: true });
    const read = [{ ...locks[0], mode: 'AccessShareLock' }];
    expect(await prove(input, fence, await rehearsed([], read))).toMatchObject({ held: false });
    // What the rehearsal does not tell is not known to be the migration's.
    expect(await prove(input, fence, await rehearsed())).toMatchObject({ held: false });
    await withClient(service.applicationUrl, async (client) => {
      await client.query('SET default_transaction_read_only = off');
      await client.query(WRITE);
    });
    const proof = await prove(input, fence, await rehearsed(['public.users']));
    expect(proof).toMatchObject({ held: false, written: [{ table: 'public.notes', inserted: 1 }] });
  }, 60_000);

  it('give away a writer who is still at it, and large objects', async () => {
    const { service, input } = await createRun();
    const fence = await raise(input);
    await withClient(service.applicationUrl, async (client) => {
      await client.query('BEGIN READ WRITE');
      await client.query('SELECT lo_from_bytea(0, $1)', [Buffer.from('recording')]);
      const proof = await prove(input, fence);
      expect(proof.held).toBe(false);
      expect(proof.unknown.join()).toContain(`role "${service.roles.application}"`);
      await client.query('COMMIT');
    });
    const { written } = await prove(input, fence);
    expect(written).toEqual([{ table: 'pg_catalog.pg_largeobject', inserted: 1, updated: 0, deleted: 0 }]);
  }, 60_000);

  it('are told by a session whose one transaction outlasts the proof, for it is ended', async () => {
    const { service, input } = await createRun();
    const fence = await raise(input);
    const client = new Client({ connectionString: service.applicationUrl });
    client.on('error', () => undefined);
    const ended = new Promise<void>((resolve) => client.on('end', resolve));
    await client.connect();
    await client.query('SET default_transaction_read_only = off');
    await client.query(WRITE);
    await client.query(WRITE);
    await client.query('BEGIN READ ONLY');
    const proof = await prove(input, fence);
    expect(proof.written).toEqual([{ table: 'public.notes', inserted: 2, updated: 0, deleted: 0 }]);
    await ended;
  }, 60_000);

  it('are not disturbed by readers, vacuum and analyze', async () => {
    const { service, input } = await createRun();
    const fence = await raise(input);
    await withClient(service.backupUrl, async (client) => {
      await client.query('SELECT count(*) FROM public.notes');
      await execute(service.superuserUrl, 'VACUUM (ANALYZE) public.notes');
      expect(await prove(input, fence)).toMatchObject({ held: true });
    });
  }, 40_000);

  it('do not pretend to know where statistics were reset, a table made anew, truncated or dropped', async () => {
    const { service } = await createRun();
    const read = () => withClient(service.superuserUrl, (client) => readCounters(client));
    await execute(
      service.migratorUrl,
      'CREATE TABLE public.first (id int)',
      'CREATE TABLE public.second (id int)',
      'CREATE TABLE public.third (id int)',
    );
    const before = await read();
    await execute(
      service.migratorUrl,
      'DROP TABLE public.first',
      'DROP TABLE public.second',
      'CREATE TABLE public.second (id int)',
      'TRUNCATE public.third',
      'CREATE TABLE public.fourth AS SELECT generate_series(1, 3) AS id',
      'DELETE FROM public.notes WHERE id <= 10',
    );
    expect(counterDelta(before, await read())).toEqual({
      written: [
        { table: 'public.notes', inserted: 0, updated: 0, deleted: 10 },
        { table: 'public.fourth', inserted: 3, updated: 0, deleted: 0 },
      ],
      unknown: ['public.first', 'public.second', 'public.third'],
    });
    await execute(service.superuserUrl, 'SELECT pg_stat_reset()');
    const { written, unknown } = counterDelta(before, await read());
    expect(written).toEqual([]);
    expect(unknown).toContain('public.notes');
  });
});

describe('the service’s own maintenance mode', () => {
  /** A mode that is a file; `check` passes while the file is there. */
  const maintenance = (file: string, check = `test -e ${file}`): Profile['fence'] => {
    const command = (script: string) => ({
      kind: 'command' as const,
      command: ['/bin/sh', '-c', script],
      directory: 'profile' as const,
      environment: {},
      timeout: 10_000,
    });
    return {
      kind: 'maintenance',
      mechanism: {
        kind: 'actions',
        state: command(`test -e ${file} && echo engaged || echo released`),
        engage: command(`touch ${file}`),
        release: command(`rm -f ${file}`),
      },
      check: { name: 'writes are refused', kind: 'command', action: command(check) },
    };
  };

  it('is switched on, checked, proven by the counters, and switched off', async () => {
    const file = join(home, randomName('maintenance'));
    const { service, input } = await createRun(() => ({ fence: maintenance(file) }));
    const before = await readFence(input);
    expect(before.state).toBe('released');
    const fence = await raise(input);
    expect(fence).toMatchObject({ state: { state: 'engaged' }, endedSessions: 0 });
    expect(fence.tried).toContain('check "writes are refused" passed');
    expect(await prove(input, fence)).toMatchObject({ held: true });
    await execute(service.applicationUrl, WRITE);
    expect(await prove(input, fence)).toMatchObject({ held: false, written: [{ table: 'public.notes', inserted: 1 }] });
    expect((await lower(input, before)).state).toBe('released');
    expect((await readFence(input)).state).toBe('released');
  });

  it('waits for what the service has begun before', async () => {
    const { service, input } = await createRun(() => ({ fence: maintenance(join(home, randomName('maintenance'))) }));
    await withClient(service.applicationUrl, async (client) => {
      await client.query('BEGIN');
      await client.query(WRITE);
      let committed = false;
      const raising = raise(input).then((fence) => ({ fence, committed }));
      await pause(1_500);
      committed = true;
      await client.query('COMMIT');
      const raised = await raising;
      expect(raised.committed).toBe(true);
      expect(await prove(input, raised.fence)).toMatchObject({ held: true });
    });
  }, 60_000);

  it('does not count where the service still writes by its own check', async () => {
    const { input } = await createRun(() => ({ fence: maintenance(join(home, randomName('maintenance')), 'exit 1') }));
    expect((await failureOf(raise(input))).type).toBe(STEP_ERRORS.checkFailed);
  });
});

describe('recovery points', () => {
  const snapshot = (script: string) => ({
    kind: 'command' as const,
    command: ['/bin/sh', '-c', script],
    directory: 'profile' as const,
    environment: {},
    timeout: 10_000,
  });
  const create = (input: StepInput) =>
    asActivity(() => activities.createRecoveryPoint({ ...input, step: 'apply.recovery-point' }));

  it('are set by name in the log and by the provider’s command, whose last line is the id', async () => {
    const { service, input } = await createRun(() => ({
      recoveryPoint: { restorePoint: true, snapshot: snapshot('cat >&2; echo taking it; echo; echo snap-0042; echo') },
    }));
    await execute(
      server.superuserUrl,
      `GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO ${service.roles.administrator}`,
    );
    const point = await create(input);
    expect(point.snapshot).toBe('snap-0042');
    expect(point.restorePoint?.name).toMatch(/^runbook-whisper-transcriber-[0-9a-f]{12}-\d{8}T\d{6}Z$/);
    const [{ reached } = { reached: false }] = await query<{ reached: boolean }>(
      service.superuserUrl,
      'SELECT $1::pg_lsn <= pg_current_wal_insert_lsn() AS reached',
      [point.restorePoint?.lsn],
    );
    expect(reached).toBe(true);
    await execute(
      server.superuserUrl,
      `REVOKE EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) FROM ${service.roles.administrator}`,
    );
  });

  it('are refused without the right to set one, and by a command that names none', async () => {
    const { service, input } = await createRun(() => ({ recoveryPoint: { restorePoint: true } }));
    const failure = await failureOf(create(input));
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.message).toContain(`pg_create_restore_point(text) TO ${service.roles.administrator}`);
    const silent = { ...input.profile, recoveryPoint: { restorePoint: false, snapshot: snapshot('echo; exit 0') } };
    expect((await failureOf(create({ ...input, profile: silent }))).message).toContain('names no snapshot');
  });
});

interface WriterEvents {
  readonly written: () => void;
  readonly refused: (text: string) => void;
}

/** A service: keeps one connection, writes, and connects again when it has lost it. */
async function writeUntil(stopped: AbortSignal, url: string, events: WriterEvents): Promise<void> {
  let client: Client | undefined;
  while (!stopped.aborted) {
    try {
      if (client === undefined) {
        client = new Client({ connectionString: url });
        client.on('error', () => undefined);
        await client.connect();
      }
      await client.query(WRITE);
      events.written();
    } catch (error) {
      events.refused((error as Error).message);
      if ((error as Error).message !== READ_ONLY) client = undefined;
    }
    await pause(20);
  }
  await client?.end();
}
