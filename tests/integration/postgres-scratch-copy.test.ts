import { randomUUID } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../src/postgres/connection.ts';
import { listMarkedDatabases, parseDatabaseMark } from '../../src/postgres/restore/database-mark.ts';
import { readDatabaseProperties, readRoles } from '../../src/postgres/catalog/database-properties.ts';
import { captureObjectMap } from '../../src/postgres/catalog/object-map.ts';
import { ensurePlaceholderRoles } from '../../src/postgres/restore/placeholder-roles.ts';
import { copyName, type CopyRequest, createEmptyCopy, dropCopies } from '../../src/postgres/restore/scratch-copy.ts';
import { createService, execute, majorOf, query, type TestService, withClient } from '../postgres-service.ts';
import { createRole, databaseUrl, randomName, useStack } from '../stack.ts';
import { never } from './archive-source.ts';

const { primary, scratch } = useStack().postgres;
const major = await majorOf(scratch);
const session = { runId: randomUUID(), step: 'test', signal: never() };
let production: TestService;
let ledger: CopyRequest['ledger'];

beforeAll(async () => {
  production = await createService(primary);
  await execute(production.superuserUrl, 'CREATE EXTENSION pg_trgm');
  ledger = await withConnection(production.superuserUrl, session, async (client) => ({
    database: {
      serverMajor: Math.trunc(
        Number((await client.query('SHOW server_version_num')).rows[0].server_version_num) / 10_000,
      ),
    },
    properties: await readDatabaseProperties(client, production.database),
    roles: await readRoles(client),
    objectMap: await captureObjectMap(client),
  }));
});

const expiresAt = new Date(Date.now() + 60_000).toISOString();

function requestOf(change: Partial<CopyRequest> = {}): CopyRequest {
  return {
    url: scratch.superuserUrl,
    runId: randomUUID(),
    step: 'drill.restore',
    signal: never(),
    mark: { kind: 'drill', service: randomName('svc'), workflowId: 'drill-svc', expiresAt },
    ledger,
    production: production.administratorUrl,
    ...change,
  };
}

const drop = (request: CopyRequest) => dropCopies(request, { service: request.mark.service, kind: 'drill' });
const nameOf = ({ mark, runId }: CopyRequest) => copyName(mark.service, 'drill', runId);

const databases = async (request: CopyRequest): Promise<string[]> => {
  const rows = await query<{ name: string }>(
    scratch.superuserUrl,
    'SELECT datname AS name FROM pg_database WHERE starts_with(datname, $1) ORDER BY 1',
    [request.mark.service],
  );
  return rows.map(({ name }) => name);
};

describe('an empty copy', () => {
  it('is like production’s database, marked as the run’s, closed to everybody else', async () => {
    const request = requestOf();
    const { target } = await createEmptyCopy(request);
    expect(target.database).toBe(nameOf(request));
    const [found] = await query<{ owner: string; encoding: string; comment: string; open: boolean; limit: number }>(
      scratch.superuserUrl,
      `SELECT pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding,
              shobj_description(oid, 'pg_database') AS comment, has_database_privilege($2, oid, 'CONNECT') AS open
       FROM pg_database WHERE datname = $1`,
      [target.database, production.roles.application],
    );
    expect(found).toMatchObject({ owner: production.roles.owner, encoding: 'UTF8', open: false });
    expect(parseDatabaseMark(found!.comment)).toMatchObject({ ...request.mark, runId: request.runId });
    expect(await drop(request)).toEqual([target.database]);
    expect(await drop(request)).toEqual([]);
  });

  it('replaces what an attempt before has left, marked or not, whoever is in it', async () => {
    const request = requestOf();
    await execute(scratch.superuserUrl, `CREATE DATABASE "${nameOf(request)}" TEMPLATE template0`);
    await withClient(databaseUrl(scratch, nameOf(request)), async (client) => {
      await client.query('CREATE TABLE half_restored (id int)');
      await createEmptyCopy(request);
    });
    await createEmptyCopy(request);
    const tables = await query(
      databaseUrl(scratch, nameOf(request)),
      `SELECT FROM pg_class WHERE relname = 'half_restored'`,
    );
    expect(tables).toEqual([]);
    await drop(request);
    expect(await databases(request)).toEqual([]);
  });

  it('is refused where somebody else’s database has its name', async () => {
    const request = requestOf();
    const name = nameOf(request);
    await execute(
      scratch.superuserUrl,
      `CREATE DATABASE "${name}" TEMPLATE template0`,
      `COMMENT ON DATABASE "${name}" IS 'mine'`,
    );
    await expect(createEmptyCopy(request)).rejects.toThrow('its comment says "mine"');
    expect(await drop(request)).toEqual([]);
    expect(await databases(request)).toEqual([name]);
    await execute(scratch.superuserUrl, `DROP DATABASE "${name}"`);
  });

  it.each([
    [
      'a locale the server does not have',
      (known: CopyRequest['ledger']) => ({
        ...known,
        properties: {
          ...known.properties,
          collate: 'xx_XX.utf8',
          ctype: 'xx_XX.utf8',
          provider: major < 15 ? null : 'c',
          locale: null,
        },
      }),
      /cannot create a database like production's \(.*xx_XX\.utf8.*install what is missing/,
    ],
    [
      'an encoding that does not go with the locale',
      (known: CopyRequest['ledger']) => ({ ...known, properties: { ...known.properties, encoding: 'NO_SUCH' } }),
      /cannot create a database like production's \(encoding NO_SUCH/,
    ],
    [
      'another major version',
      (known: CopyRequest['ledger']) => ({ ...known, database: { serverMajor: 9 } }),
      /the backup is of PostgreSQL 9/,
    ],
    [
      'a role that cannot be made',
      (known: CopyRequest['ledger']) => ({ ...known, roles: [...known.roles, 'pg_no_such_role'] }),
      /role "pg_no_such_role" is missing and cannot be created/,
    ],
  ])('is refused, with nothing left, for %s', async (_name, change, message) => {
    const request = requestOf({ ledger: change(ledger) });
    await expect(createEmptyCopy(request)).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringMatching(message),
    });
    expect(await databases(request)).toEqual([]);
  });

  it('names every extension that is missing or of another version', async () => {
    const extension = (name: string, version: string) =>
      ({ kind: 'extension', name, definition: `schema public version ${version}` }) as const;
    const objects = [extension('"odd-one"', '1.0'), extension('pg_trgm', '0.1')];
    const request = requestOf({ ledger: { ...ledger, objectMap: { objects } } });
    await expect(createEmptyCopy(request)).rejects.toThrow(
      /\(1\) extension odd-one is not installed on the scratch server \(2\) extension pg_trgm is of version 0\.1 in the backup, the scratch server would create \d/,
    );
  });

  it('is refused on a standby and on production’s own server', async () => {
    await expect(createEmptyCopy(requestOf({ url: useStack().postgres.replica.superuserUrl }))).rejects.toThrow(
      'is a standby',
    );
    const request = requestOf({ url: primary.superuserUrl });
    await expect(createEmptyCopy(request)).rejects.toThrow('the scratch server is the production server');
  });
});

describe('dropping copies', () => {
  it('takes the run’s own only', async () => {
    const one = requestOf();
    const other = requestOf({ mark: one.mark });
    await createEmptyCopy(one);
    await createEmptyCopy(other);
    expect(await drop(one)).toEqual([nameOf(one)]);
    expect(await databases(other)).toEqual([nameOf(other)]);
    await drop(other);
    const marked = await withConnection(scratch.superuserUrl, session, listMarkedDatabases);
    expect(marked.filter(({ mark }) => mark.service === one.mark.service)).toEqual([]);
  });
});

describe('placeholders', () => {
  it('are made once, even by two at the same time, and say what they are', async () => {
    const name = randomName('placeholder');
    const made = await Promise.all(
      [1, 2].map(() =>
        withConnection(scratch.superuserUrl, session, (client) => ensurePlaceholderRoles(client, [name])),
      ),
    );
    expect(made.flat()).toContain(name);
    expect(
      await withConnection(scratch.superuserUrl, session, (client) => ensurePlaceholderRoles(client, [name])),
    ).toEqual([]);
    const [role] = await query<{ comment: string }>(
      scratch.superuserUrl,
      `SELECT shobj_description(oid, 'pg_authid') AS comment FROM pg_roles WHERE rolname = $1`,
      [name],
    );
    expect(role?.comment).toContain('Placeholder made by migration-runbook');
    await execute(scratch.superuserUrl, `DROP ROLE ${name}`);
  });

  it('that another copy makes and joins, and has not committed yet, are waited for', async () => {
    const role = await createRole(scratch, 'maker', 'CREATEDB CREATEROLE');
    const url = databaseUrl(scratch, 'postgres', role);
    const name = randomName('placeholder');
    const other = await withClient(url, async (client) => {
      await client.query('BEGIN');
      await client.query(`CREATE ROLE ${name} NOLOGIN`);
      await client.query(`GRANT ${name} TO CURRENT_USER`);
      const making = withConnection(url, session, (mine) => ensurePlaceholderRoles(mine, [name]));
      making.catch(() => undefined);
      await expect
        .poll(() =>
          query(
            scratch.superuserUrl,
            `SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = $1`,
            [role.name],
          ),
        )
        .toHaveLength(1);
      await client.query('COMMIT');
      return making;
    });
    expect(other).toEqual([name]);
    await execute(scratch.superuserUrl, `DROP ROLE ${name}`);
  });

  it('are not there without saying what they are, though the session ends between the two', async () => {
    // A server on which nobody else comments meanwhile.
    const { superuserUrl } = useStack().postgres.staging;
    const name = randomName('placeholder');
    const begun = Promise.withResolvers<number>();
    await withClient(superuserUrl, async (client) => {
      await client.query('BEGIN');
      await client.query('LOCK TABLE pg_shdescription IN SHARE MODE');
      const making = withConnection(superuserUrl, { ...session, runId: randomUUID() }, (mine, { pid }) => {
        begun.resolve(pid);
        return ensurePlaceholderRoles(mine, [name]);
      });
      making.catch(() => undefined);
      const pid = await begun.promise;
      await expect
        .poll(() => query(superuserUrl, 'SELECT FROM pg_locks WHERE pid = $1 AND NOT granted', [pid]))
        .toHaveLength(1);
      await query(superuserUrl, 'SELECT pg_terminate_backend($1, 5000)', [pid]);
      await expect(making).rejects.toThrow(/terminat|was lost|lock timeout/);
      await client.query('ROLLBACK');
    });
    expect(await query(superuserUrl, 'SELECT FROM pg_roles WHERE rolname = $1', [name])).toEqual([]);
  });

  it('need CREATEROLE, and say so', async () => {
    const role = await createRole(scratch, 'weak', 'CREATEDB');
    const names = [randomName('one'), randomName('two')];
    const making = withConnection(databaseUrl(scratch, 'postgres', role), session, (client) =>
      ensurePlaceholderRoles(client, names),
    );
    await expect(making).rejects.toThrow(/"one_.*"two_.*needs CREATEROLE/s);
  });
});
