import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { root } from '../../scripts/stack/layout.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { fenceObstacles } from '../../src/postgres/fence/fence-obstacles.ts';
import { recoveryPointFindings, setRestorePoint } from '../../src/postgres/fence/recovery-point.ts';
import { inspectAdministrator, inspectBackupRole, inspectMigrator } from '../../src/postgres/role-rights.ts';
import { execute, majorOf, query, type TestRole, withClient } from '../postgres-service.ts';
import { createDatabase, createRole, databaseUrl, randomName, useStack } from '../stack.ts';

const server = useStack().postgres.primary;
const major = await majorOf(server);
const psql = promisify(execFile);

/** The roles that config/postgres/roles.sql makes for a service whose own role is there already. */
interface Roles {
  readonly owner: string;
  readonly application: TestRole;
  readonly migrator: TestRole;
  readonly backup: TestRole;
  readonly administrator: TestRole;
}

let roles: Roles;
let database: string;
const urlOf = (role: TestRole, name = database): string => databaseUrl(server, name, role);

async function runScript(...more: readonly string[]): Promise<string> {
  const url = new URL(server.superuserUrl);
  const { stdout } = await psql(
    join(server.binDirectory, 'psql'),
    [
      '--no-psqlrc',
      '--quiet',
      '--set=ON_ERROR_STOP=1',
      `--set=owner=${roles.owner}`,
      `--set=migrator=${roles.migrator.name}`,
      `--set=backup=${roles.backup.name}`,
      `--set=administrator=${roles.administrator.name}`,
      `--set=application=${roles.application.name}`,
      ...more,
      `--file=${join(root, 'config/postgres/roles.sql')}`,
    ],
    {
      env: {
        PGHOST: url.hostname,
        PGPORT: url.port,
        PGUSER: url.username,
        PGPASSWORD: decodeURIComponent(url.password),
        PGDATABASE: 'postgres',
        MIGRATOR_PASSWORD: roles.migrator.password,
        BACKUP_PASSWORD: roles.backup.password,
        ADMINISTRATOR_PASSWORD: roles.administrator.password,
      },
    },
  );
  return stdout;
}

beforeAll(async () => {
  const role = (prefix: string): TestRole => ({
    name: randomName(prefix),
    password: randomBytes(12).toString('base64url'),
  });
  roles = {
    owner: randomName('media owner'),
    application: await createRole(server, 'media_app'),
    migrator: role('media_migrator'),
    backup: role('media_backup'),
    administrator: role('media_admin'),
  };
  await runScript();
  database = randomName('media');
  const maintenance = urlOf(roles.administrator, 'postgres');
  await execute(
    maintenance,
    `CREATE DATABASE ${database} OWNER "${roles.owner}" TEMPLATE template0`,
    `REVOKE ALL ON DATABASE ${database} FROM PUBLIC`,
    `GRANT CONNECT ON DATABASE ${database} TO ${roles.application.name}, ${roles.migrator.name}, ${roles.backup.name}`,
  );
  await execute(
    urlOf(roles.migrator),
    'CREATE TABLE public.recordings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text)',
    `INSERT INTO public.recordings (title) VALUES ('first')`,
    `GRANT USAGE ON SCHEMA public TO ${roles.application.name}`,
    `GRANT SELECT, INSERT, UPDATE, DELETE ON public.recordings TO ${roles.application.name}`,
  );
});

afterAll(async () => {
  await execute(server.superuserUrl, `DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
  const { migrator, backup, administrator, owner } = roles;
  await execute(
    server.superuserUrl,
    `REVOKE ALL ON FUNCTION pg_catalog.pg_create_restore_point(text) FROM ${administrator.name}`,
    `DROP ROLE ${migrator.name}, ${backup.name}, ${administrator.name}, "${owner}"`,
  );
});

const session = { runId: 'roles', step: 'test', signal: new AbortController().signal };

describe('the administrator', () => {
  it('is no superuser, and has every right that the inspection asks for', async () => {
    const found = await withConnection(urlOf(roles.administrator), session, inspectAdministrator);
    expect(found).toMatchObject({ missing: [], warnings: [] });
  });

  it('can raise a fence, set restore points, swap databases, end sessions', async () => {
    const maintenance = urlOf(roles.administrator, 'postgres');
    await withConnection(maintenance, session, async (client) => {
      const fenced = [roles.migrator.name, roles.application.name, roles.backup.name];
      expect(await fenceObstacles(client, { database, roles: fenced })).toEqual([]);
      for (const role of fenced) {
        await client.query(`ALTER ROLE ${role} IN DATABASE ${database} SET default_transaction_read_only = on`);
        await client.query(`ALTER ROLE ${role} IN DATABASE ${database} RESET default_transaction_read_only`);
      }
      expect(await recoveryPointFindings(client)).toEqual([]);
      const point = await setRestorePoint(client, { service: 'média'.repeat(30), runId: '0f0e0d0c-0000-4000-8000-1' });
      expect(point.name).toMatch(/^runbook-média.*-\d{8}T\d{6}Z$/u);
      expect(Buffer.byteLength(point.name)).toBeLessThanOrEqual(63);
      expect(point.lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
      await client.query(`COMMENT ON DATABASE ${database} IS 'media'`);
      await client.query(`ALTER DATABASE ${database} RENAME TO ${database}_aside`);
      await client.query(`ALTER DATABASE ${database}_aside RENAME TO ${database}`);
    });
    await withClient(urlOf(roles.application), async (client) => {
      const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      const [ended] = await query<{ ended: boolean }>(maintenance, 'SELECT pg_terminate_backend($1, 5000) AS ended', [
        rows[0]!.pid,
      ]);
      expect(ended).toEqual({ ended: true });
    });
  });

  it('may not touch other services’ databases and roles, the server’s files or its settings', async () => {
    const other = await createRole(server, 'other');
    const foreign = await createDatabase(server, 'foreign');
    const refused = [
      `ALTER DATABASE ${foreign.name} SET default_transaction_read_only = on`,
      `DROP DATABASE ${foreign.name}`,
      // Before PostgreSQL 16 CREATEROLE reaches every role that is no superuser.
      ...(major < 16
        ? []
        : [
            `ALTER ROLE ${other.name} SET statement_timeout = 0`,
            `GRANT ${other.name} TO ${roles.administrator.name}`,
            `GRANT pg_write_all_data TO ${roles.administrator.name}`,
          ]),
      `ALTER ROLE ${roles.administrator.name} SUPERUSER`,
      `ALTER ROLE ${roles.administrator.name} REPLICATION`,
      `ALTER SYSTEM SET work_mem = '5MB'`,
      `COPY (SELECT 1) TO PROGRAM 'true'`,
      `SELECT pg_read_file('/etc/hostname')`,
    ];
    expect(await permitted(roles.administrator, refused)).toEqual([]);
  });
});

describe('the migrator', () => {
  it('alters what the owner owns, and what it makes is the owner’s', async () => {
    expect(await withConnection(urlOf(roles.migrator), session, inspectMigrator)).toMatchObject({ missing: [] });
    await execute(
      urlOf(roles.migrator),
      'ALTER TABLE public.recordings ADD COLUMN length integer',
      'CREATE TABLE public.made (id int)',
    );
    const [made] = await query(urlOf(roles.migrator), `SELECT tableowner FROM pg_tables WHERE tablename = 'made'`);
    expect(made).toEqual({ tableowner: roles.owner });
    const [timeout] = await query(urlOf(roles.migrator), 'SHOW lock_timeout');
    expect(timeout).toEqual({ lock_timeout: '5s' });
  });

  it('is a member of nothing but the owner, and has no attribute', async () => {
    expect(await membershipsOf(roles.migrator)).toEqual([roles.owner]);
    expect(await attributesOf(roles.migrator.name)).toEqual([]);
    expect(await attributesOf(roles.owner)).toEqual(['nologin']);
    expect(
      await query(server.superuserUrl, `SELECT FROM pg_auth_members WHERE member = '"${roles.owner}"'::regrole`),
    ).toEqual([]);
  });
});

describe('the backup role', () => {
  it('reads everything', async () => {
    const found = await withConnection(urlOf(roles.backup), session, inspectBackupRole);
    expect(found).toMatchObject({ missing: [], warnings: [] });
  });

  it('writes nothing, even when it switches its own read-only setting off', async () => {
    const writes = [
      `INSERT INTO public.recordings (title) VALUES ('x')`,
      'DELETE FROM public.recordings',
      'TRUNCATE public.recordings',
      // Before PostgreSQL 15 everybody creates in schema public unless that was revoked.
      ...(major < 15 ? [] : ['CREATE TABLE public.x (id int)']),
      `SELECT nextval('public.recordings_id_seq')`,
      'CREATE SCHEMA x',
    ];
    expect(await permitted(roles.backup, writes)).toEqual([]);
    expect(await membershipsOf(roles.backup)).toEqual(['pg_read_all_data']);
    expect(await attributesOf(roles.backup.name)).toEqual([]);
  });

  it('reads large objects too, those to come included, once the script has seen the database', async () => {
    const store = (text: string) =>
      query<{ oid: number }>(urlOf(roles.application), 'SELECT lo_from_bytea(0, $1) AS oid', [Buffer.from(text)]);
    const [first] = await store('first');
    await expect(query(urlOf(roles.backup), 'SELECT lo_get($1)', [first!.oid])).rejects.toThrow('permission denied');
    await runScript(`--set=database=${database}`);
    const [second] = await store('second');
    // Default privileges of large objects came with PostgreSQL 18.
    if (major < 18) await runScript(`--set=database=${database}`);
    for (const role of [roles.backup, roles.administrator]) {
      for (const object of [first, second]) await query(urlOf(role), 'SELECT lo_get($1)', [object!.oid]);
    }
    await expect(
      execute(urlOf(roles.backup), 'SET default_transaction_read_only = off', `SELECT lo_unlink(${first!.oid})`),
    ).rejects.toThrow('must be owner');
    expect(await withConnection(urlOf(roles.backup), session, inspectBackupRole)).toMatchObject({ missing: [] });
  });

  it('lets large objects and default privileges be restored by the administrator', async () => {
    await query(urlOf(roles.application), 'SELECT lo_from_bytea(0, $1)', [Buffer.from('content')]);
    await runScript();
    const before = await withConnection(urlOf(roles.administrator), session, inspectAdministrator);
    // Before PostgreSQL 16 a membership has no options that the script could take back.
    const missing = major < 16 ? /^$/ : /could not restore (default privileges|large object \d+)/;
    expect(before.missing.join()).toMatch(missing);
    await runScript(`--set=database=${database}`);
    const after = await withConnection(urlOf(roles.administrator), session, inspectAdministrator);
    expect(after.missing).toEqual([]);
    // In the order of pg_restore: the owner first, then the content, by the administrator.
    await execute(
      urlOf(roles.administrator),
      `DO $$ DECLARE made oid := lo_create(0); BEGIN
         EXECUTE format('ALTER LARGE OBJECT %s OWNER TO %I', made, '${roles.application.name}');
         PERFORM lo_put(made, 0, 'content');
       END $$`,
      `ALTER DEFAULT PRIVILEGES FOR ROLE "${roles.application.name}" GRANT SELECT ON ${major < 18 ? 'TABLES' : 'LARGE OBJECTS'} TO "${roles.backup.name}"`,
    );
  });
});

describe('the script', () => {
  it('takes back what a role has got beyond its duty, and says nothing when run again', async () => {
    await execute(
      server.superuserUrl,
      `ALTER ROLE ${roles.backup.name} SUPERUSER CREATEDB`,
      `ALTER ROLE ${roles.migrator.name} CREATEROLE BYPASSRLS`,
      `ALTER ROLE "${roles.owner}" LOGIN`,
    );
    expect(await runScript()).toBe('');
    expect(await attributesOf(roles.backup.name)).toEqual([]);
    expect(await attributesOf(roles.migrator.name)).toEqual([]);
    expect(await attributesOf(roles.owner)).toEqual(['nologin']);
    expect(await attributesOf(roles.administrator.name)).toEqual(['createdb', 'createrole']);
  });

  it('lets row security be bypassed where asked to: by the backup role, and where it is forced by the administrator', async () => {
    await runScript('--set=bypass_row_security=yes');
    expect(await attributesOf(roles.backup.name)).toEqual(['bypassrls']);
    expect(await attributesOf(roles.administrator.name)).toEqual(['createdb', 'createrole']);
    await runScript('--set=bypass_row_security=forced');
    expect(await runScript('--set=bypass_row_security=forced')).toBe('');
    expect(await attributesOf(roles.administrator.name)).toEqual(['createdb', 'createrole', 'bypassrls']);
    await runScript();
    expect(await attributesOf(roles.administrator.name)).toEqual(['createdb', 'createrole']);
  });
});

/** Those of the statements that are not refused for want of a right. */
async function permitted(role: TestRole, statements: readonly string[]): Promise<string[]> {
  const through: string[] = [];
  for (const statement of statements) {
    const failure = await execute(urlOf(role), 'SET default_transaction_read_only = off', statement).then(
      () => 'none',
      (error: unknown) => (error as { code?: string }).code,
    );
    if (failure !== '42501') through.push(`${statement}: ${failure}`);
  }
  return through;
}

async function membershipsOf({ name }: TestRole): Promise<string[]> {
  const rows = await query<{ role: string }>(
    server.superuserUrl,
    'SELECT roleid::regrole::text AS role FROM pg_auth_members WHERE member = $1::regrole ORDER BY 1',
    [name],
  );
  return rows.map(({ role }) => role.replaceAll('"', ''));
}

async function attributesOf(name: string): Promise<string[]> {
  const [row] = await query<{ attributes: string[] }>(
    server.superuserUrl,
    `SELECT array_remove(ARRAY[CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN NOT rolcanlogin THEN 'nologin' END,
              CASE WHEN rolcreatedb THEN 'createdb' END, CASE WHEN rolcreaterole THEN 'createrole' END,
              CASE WHEN rolreplication THEN 'replication' END, CASE WHEN rolbypassrls THEN 'bypassrls' END], NULL) AS attributes
     FROM pg_roles WHERE rolname = $1`,
    [name],
  );
  return row!.attributes;
}
