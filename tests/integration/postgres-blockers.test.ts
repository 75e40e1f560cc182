import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stackRoot } from '../../scripts/stack/layout.ts';
import { type Stack, startStack } from '../../scripts/stack/stack.ts';
import { findSwapBlockers } from '../../src/postgres/swap/blockers.ts';
import { createDatabaseLike } from '../../src/postgres/catalog/database-properties.ts';
import { findRestoreBlockers } from '../../src/postgres/restore/restore-blockers.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { fenceObstacles } from '../../src/postgres/fence/fence-obstacles.ts';
import { lookAtMigration, openTransactions } from '../../src/postgres/lock-waits.ts';
import { swapDatabases, type SwapRequest } from '../../src/postgres/swap/swap.ts';
import { databaseUrl, useStack } from '../stack.ts';
import { createService, execute, majorOf, query, type TestService, withClient } from '../postgres-service.ts';

// A server of its own, since prepared transactions and logical slots have to be switched on.
const major = await majorOf(useStack().postgres.primary);
const directory = join(stackRoot, 'test', randomBytes(4).toString('hex'));
let stack: Stack;
beforeAll(async () => {
  stack = await startStack({ directory, parts: ['scratch'] });
  await execute(
    stack.postgres.scratch!.superuserUrl,
    'ALTER SYSTEM SET max_prepared_transactions = 5',
    'ALTER SYSTEM SET wal_level = logical',
    ...(major < 18 ? [] : [`ALTER SYSTEM SET extension_control_path = '$system:${join(directory, 'share')}'`]),
  );
  // An extension of that name is all that counts; its real code needs a server configured for it.
  const extensions = join(directory, 'share', 'extension');
  await mkdir(extensions, { recursive: true });
  await writeFile(join(extensions, 'timescaledb.control'), `default_version = '1'\nsuperuser = true\ntrusted = true\n`);
  await writeFile(join(extensions, 'timescaledb--1.sql'), '');
  await stack.stop();
  stack = await startStack({ directory, parts: ['scratch'] });
});
afterAll(async () => {
  await stack.stop();
  await rm(directory, { recursive: true, force: true });
});

it('names prepared transactions, logical slots and subscriptions, which a swap would leave behind', async () => {
  const { superuserUrl } = stack.postgres.scratch!;
  const session = { runId: 'blockers', step: 'test', signal: new AbortController().signal };
  await execute(superuserUrl, 'CREATE DATABASE service');
  const service = new URL(superuserUrl);
  service.pathname = '/service';
  const find = () => withConnection(superuserUrl, session, (client) => findSwapBlockers(client, 'service'));
  expect(await find()).toEqual([]);

  await execute(
    service.href,
    `SELECT pg_create_logical_replication_slot('audit_feed', 'pgoutput')`,
    `CREATE SUBSCRIPTION catalogue CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, slot_name = NONE)`,
  );
  await withClient(service.href, async (client) => {
    await client.query('BEGIN');
    await client.query('CREATE TABLE half_done (a int)');
    await client.query(`PREPARE TRANSACTION 'order 7'`);
  });
  expect(await find()).toEqual([
    expect.stringMatching(/^prepared transaction 'order 7' of role "postgres"/),
    expect.stringMatching(/^logical replication slot "audit_feed" \(pgoutput, not in use\)/),
    expect.stringMatching(/^subscription "catalogue"/),
  ]);
  // A subscription that is disabled writes nothing; a prepared transaction could be committed behind a fence.
  const fence = { database: 'service', roles: [] };
  expect(await withConnection(superuserUrl, session, (client) => fenceObstacles(client, fence))).toEqual([
    expect.stringMatching(/^prepared transaction 'order 7' of role "postgres" could be committed behind the fence/),
  ]);
  const old = await withConnection(service.href, session, (client) => openTransactions(client, 0, 'migrator'));
  expect(old.map(({ application }) => application)).toContain('prepared transaction order 7');
  // It holds its locks without a session.
  const builder = new URL(service);
  await execute(superuserUrl, `CREATE ROLE builder LOGIN SUPERUSER PASSWORD 'builder'`);
  builder.username = 'builder';
  builder.password = 'builder';
  await withClient(builder.href, async (client) => {
    const dropping = client.query('DROP SCHEMA public CASCADE').catch(() => undefined);
    await expect
      .poll(
        async () => (await withConnection(service.href, session, (look) => lookAtMigration(look, 'builder'))).waits,
        { timeout: 20_000 },
      )
      .toMatchObject([{ blockers: [{ pid: 0, application: 'prepared transaction order 7', state: 'prepared' }] }]);
    await execute(service.href, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'builder'`);
    await dropping;
  });
});

it('ends the shut-out of a swap as soon as a transaction is found that was prepared in the last moment', async () => {
  const server = stack.postgres.scratch!;
  const { database, administratorUrl, migratorUrl } = await createService(server);
  const fresh = `${database}_restore_0190a015`;
  await withClient(server.superuserUrl, (client) => createDatabaseLike(client, database, fresh));
  let shutOut = 0;
  const request: SwapRequest = {
    url: administratorUrl,
    maintenanceDatabase: 'postgres',
    fresh,
    runId: '0190a015',
    service: 'whisper',
    workflowId: 'migrate-whisper',
    quarantine: 3_600_000,
    step: 'recovery.restore/swap',
    standbys: [],
    signal: new AbortController().signal,
    // Comes after everything has been looked at; the door is still open.
    inspectFresh: async () => {
      await execute(
        migratorUrl,
        'BEGIN',
        `UPDATE public.alembic_version SET version_num = '0004'`,
        `PREPARE TRANSACTION 'late'`,
      );
      return [];
    },
    progress: (phase) => void (phase === 'sessions-ended' && (shutOut += 1)),
  };
  await expect(swapDatabases(request)).rejects.toThrow(`prepared transaction 'late'`);
  expect(shutOut).toBe(1);
  expect(
    await query(server.superuserUrl, 'SELECT FROM pg_database WHERE datname IN ($1, $2) AND datallowconn', [
      database,
      fresh,
    ]),
  ).toHaveLength(2);
  await execute(migratorUrl, `ROLLBACK PREPARED 'late'`);
  await swapDatabases({ ...request, inspectFresh: async () => [] });
});

describe('before a restore', () => {
  const session = { runId: 'blockers', step: 'test', signal: new AbortController().signal };
  const inside = (url: string) => withConnection(url, session, findRestoreBlockers);
  const onServer = (service: TestService) =>
    withConnection(service.administratorUrl, { ...session, database: 'postgres' }, (client) =>
      findSwapBlockers(client, service.database),
    );

  it('finds nothing in an ordinary database, trusted extensions and publications of tables included', async () => {
    const service = await createService(stack.postgres.scratch!);
    await execute(
      service.superuserUrl,
      'CREATE EXTENSION pg_trgm',
      'CREATE PUBLICATION some_tables FOR TABLE public.users',
      'CREATE TYPE public.pair AS (a int, b int)',
      'CREATE DOMAIN public.short AS varchar(3)',
      `CREATE FUNCTION public.one() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
      `CREATE FUNCTION public.two() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 2; END'`,
    );
    expect(await inside(service.administratorUrl)).toEqual({ findings: [], notes: [] });
    expect(await onServer(service)).toEqual([]);
  });

  const SUPERUSERS = [
    ['event trigger', `CREATE EVENT TRIGGER watch ON ddl_command_start EXECUTE FUNCTION public.noticed()`],
    ['publication of all tables', 'CREATE PUBLICATION everything FOR ALL TABLES'],
    ...(major >= 15
      ? ([
          ['publication of all tables or of a schema', 'CREATE PUBLICATION a_schema FOR TABLES IN SCHEMA public'],
        ] as const)
      : []),
    [
      'function in language internal',
      `CREATE FUNCTION public.inner_sin(float8) RETURNS float8 LANGUAGE internal AS 'dsin'`,
    ],
    ['leakproof function', `CREATE FUNCTION public.tight() RETURNS int LEAKPROOF LANGUAGE sql AS 'SELECT 1'`],
    ['cast without function', 'CREATE CAST (oid AS xid) WITHOUT FUNCTION'],
    ['foreign-data wrapper', 'CREATE FOREIGN DATA WRAPPER outside'],
    ['operator family', 'CREATE OPERATOR FAMILY public.own_order USING btree'],
    ['access method', 'CREATE ACCESS METHOD own_heap TYPE TABLE HANDLER heap_tableam_handler'],
  ] as const;

  it('names what an administrator who is no superuser could not create again', async () => {
    const service = await createService(stack.postgres.scratch!);
    await execute(
      service.migratorUrl,
      `CREATE FUNCTION public.noticed() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
    );
    for (const [what, statement] of SUPERUSERS) {
      // What is named is really refused, or the naming would keep people from what they could do.
      await expect(query(service.administratorUrl, statement), `${what} by the administrator`).rejects.toMatchObject({
        code: '42501',
      });
      await execute(service.superuserUrl, statement);
      const { findings } = await inside(service.administratorUrl);
      expect(findings.join('\n')).toContain(what);
    }
    const kinds = new Set(SUPERUSERS.map(([what]) => what.replace(' or of a schema', '')));
    expect((await inside(service.administratorUrl)).findings).toHaveLength(kinds.size);
    expect(await inside(service.superuserUrl)).toEqual({ findings: [], notes: [] });
  });

  const withSettings = async (): Promise<TestService> => {
    const service = await createService(stack.postgres.scratch!);
    await execute(
      service.superuserUrl,
      `ALTER DATABASE "${service.database}" SET app.motto = 'x=y, ''z'''`,
      `ALTER DATABASE "${service.database}" SET work_mem = '8MB'`,
      `ALTER ROLE ${service.roles.application} IN DATABASE "${service.database}" SET log_min_duration_statement = '1s'`,
      `ALTER ROLE postgres IN DATABASE "${service.database}" SET work_mem = '9MB'`,
    );
    return service;
  };

  // Anybody may set what he names himself, nobody can be given the right to the rest.
  it.runIf(major < 15)(
    'names settings that before PostgreSQL 15 only a superuser gives to the copy (skipped from there on)',
    async () => {
      const service = await withSettings();
      expect((await inside(service.administratorUrl)).findings).toEqual([
        expect.stringMatching(/^setting log_min_duration_statement of role .*only a superuser sets it/),
        expect.stringMatching(/^setting work_mem of role postgres .*CREATEROLE/),
      ]);
    },
  );

  it.runIf(major >= 15)(
    'names settings that the administrator could not give to the copy, and what lets him (skipped before PostgreSQL 15)',
    async () => {
      const service = await withSettings();
      expect((await inside(service.administratorUrl)).findings).toEqual([
        expect.stringMatching(/^setting app\.motto of this database could .*GRANT SET ON PARAMETER app\.motto TO/),
        expect.stringMatching(
          /^setting log_min_duration_statement of role .*GRANT SET ON PARAMETER log_min_duration_statement TO/,
        ),
        expect.stringMatching(
          major < 16
            ? /^setting work_mem of role postgres .*CREATEROLE/
            : /^setting work_mem of role postgres .*WITH ADMIN TRUE/,
        ),
      ]);
      await execute(
        service.superuserUrl,
        `GRANT SET ON PARAMETER app.motto, log_min_duration_statement TO "${new URL(service.administratorUrl).username}"`,
        `ALTER ROLE postgres IN DATABASE "${service.database}" RESET ALL`,
      );
      expect((await inside(service.administratorUrl)).findings).toEqual([]);
    },
  );

  it('names extensions that could not be created, or not in that version', async () => {
    const service = await createService(stack.postgres.scratch!);
    await execute(
      service.superuserUrl,
      `CREATE EXTENSION pg_stat_statements VERSION '1.8'`,
      'CREATE EXTENSION pageinspect',
    );
    const told = (await inside(service.administratorUrl)).findings.join('\n');
    expect(told).toContain('extension pageinspect can be created by a superuser only');
    expect(told).toMatch(/extension pg_stat_statements is of version 1\.8, a restore would create 1\.\d+/);
    expect((await inside(service.superuserUrl)).findings.join('\n')).not.toContain('pageinspect');
  });

  // Elsewhere than among the server's own files an extension may lie since PostgreSQL 18.
  it.runIf(major >= 18)(
    'names extensions that a plain restore does not bring back, to a superuser too (skipped before PostgreSQL 18)',
    async () => {
      const service = await createService(stack.postgres.scratch!);
      await execute(service.superuserUrl, 'CREATE EXTENSION timescaledb');
      for (const url of [service.administratorUrl, service.superuserUrl]) {
        expect((await inside(url)).findings).toEqual([
          expect.stringContaining('extension timescaledb is restored between timescaledb_pre_restore()'),
        ]);
      }
    },
  );

  it('takes what only superusers create as a note where a managed service has an administrator of its own', async () => {
    const service = await createService(stack.postgres.scratch!);
    await execute(
      service.superuserUrl,
      'CREATE EXTENSION pageinspect',
      'CREATE ROLE rds_superuser',
      `GRANT rds_superuser TO ${service.roles.administrator}`,
    );
    expect(await inside(service.administratorUrl)).toEqual({
      findings: [],
      notes: [
        expect.stringMatching(/^extension pageinspect can be created by a superuser only, unless the managed service/),
      ],
    });
    await execute(service.superuserUrl, 'DROP ROLE rds_superuser');
  });

  // Since PostgreSQL 15 the schema belongs to the database's owner.
  it.skipIf(major >= 15)(
    'names rights on schema public that only its owner could give back (skipped from PostgreSQL 15 on: a dump carries them)',
    async () => {
      const service = await createService(stack.postgres.scratch!);
      const { owner } = service.roles;
      const names = async () => (await inside(service.administratorUrl)).findings;
      // Rights given by name add nothing to what everybody has.
      expect(await names()).toEqual([]);
      await execute(service.superuserUrl, 'REVOKE CREATE ON SCHEMA public FROM PUBLIC');
      expect(await names()).toEqual([
        expect.stringMatching(`belongs to "postgres" .*here and in template0.*ALTER SCHEMA public OWNER TO "?${owner}`),
      ]);
      expect((await inside(service.superuserUrl)).findings).toEqual([]);

      await execute(service.superuserUrl, `ALTER SCHEMA public OWNER TO ${owner}`);
      const halfway = [expect.stringContaining(`belongs to "${owner}", in a fresh database to "postgres"`)];
      expect(await names()).toEqual(halfway);
      expect((await inside(service.superuserUrl)).findings).toEqual(halfway);
      const template = databaseUrl(stack.postgres.scratch!, 'template0');
      await execute(service.superuserUrl, 'ALTER DATABASE template0 ALLOW_CONNECTIONS true');
      await execute(template, `ALTER SCHEMA public OWNER TO ${owner}`);
      expect(await names()).toEqual([]);

      await execute(template, 'ALTER SCHEMA public OWNER TO postgres');
      await execute(service.superuserUrl, 'ALTER DATABASE template0 ALLOW_CONNECTIONS false');
    },
  );

  it('names a tablespace in which the administrator may create nothing', async () => {
    const service = await createService(stack.postgres.scratch!);
    await execute(service.superuserUrl, 'SET allow_in_place_tablespaces = on', `CREATE TABLESPACE fast LOCATION ''`);
    await execute(service.superuserUrl, 'ALTER TABLE public.users SET TABLESPACE fast');
    expect((await inside(service.administratorUrl)).findings).toEqual([
      expect.stringContaining('may create nothing in tablespace "fast"'),
    ]);
    await execute(service.superuserUrl, `GRANT CREATE ON TABLESPACE fast TO ${service.roles.administrator}`);
    expect((await inside(service.administratorUrl)).findings).toEqual([]);
    await execute(service.superuserUrl, 'ALTER TABLE public.users SET TABLESPACE pg_default', 'DROP TABLESPACE fast');
  });

  it('names what the database and the server are that stands in the way', async () => {
    const service = await createService(stack.postgres.scratch!);
    const { superuserUrl } = stack.postgres.scratch!;
    await execute(superuserUrl, `ALTER DATABASE ${service.database} IS_TEMPLATE true CONNECTION LIMIT 0`);
    const told = (await onServer(service)).join('\n');
    expect(told).toContain('is a template');
    expect(told).toContain('connection limit of 0');
    await execute(superuserUrl, `ALTER DATABASE ${service.database} IS_TEMPLATE false CONNECTION LIMIT -1`);
    expect(
      await withConnection(service.administratorUrl, session, (client) => findSwapBlockers(client, service.database)),
    ).toEqual([expect.stringContaining('is the maintenance database itself')]);
    expect(await withConnection(superuserUrl, session, (client) => findSwapBlockers(client, 'not_there'))).toEqual([
      'there is no database "not_there"',
    ]);
    await execute(
      superuserUrl,
      'SET synchronous_commit = local',
      `ALTER SYSTEM SET synchronous_standby_names = 'somewhere'`,
      'SELECT pg_reload_conf()',
    );
    try {
      await expect
        .poll(() => onServer(service))
        .toEqual([expect.stringMatching(/synchronous_standby_names = 'somewhere'\) and none is streaming/)]);
    } finally {
      await execute(
        superuserUrl,
        'SET synchronous_commit = local',
        'ALTER SYSTEM RESET synchronous_standby_names',
        'SELECT pg_reload_conf()',
      );
    }
  });
});
