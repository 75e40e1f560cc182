import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import {
  applicationName,
  type ConnectionOptions,
  openConnection,
  withConnection,
} from '../../src/postgres/connection.ts';
import { isSameDatabase, readIdentity } from '../../src/postgres/identity.ts';
import { majorOf, query } from '../postgres-service.ts';
import { createDatabase, createRole, databaseUrl, randomName, useStack } from '../stack.ts';
import { failureOf } from '../step-failure.ts';

const stack = useStack();
const server = stack.postgres.primary;
const runId = '0190aaaa-bbbb-7ccc-8ddd-eeeeffff0000';
const options = (more: Partial<ConnectionOptions> = {}): ConnectionOptions => ({
  runId,
  step: 'test.connection',
  signal: new AbortController().signal,
  ...more,
});

async function isActive(pid: number): Promise<boolean> {
  const rows = await query(server.superuserUrl, `SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active'`, [
    pid,
  ]);
  return rows.length === 1;
}

describe('a connection', () => {
  it('says who it is and leaves nothing to the defaults of role and database', async () => {
    const role = await createRole(server);
    await query(server.superuserUrl, `ALTER ROLE ${role.name} SET statement_timeout = '1h'`);
    await query(server.superuserUrl, `ALTER ROLE ${role.name} SET search_path = 'elsewhere'`);
    await query(server.superuserUrl, `ALTER ROLE ${role.name} SET quote_all_identifiers = on`);
    const settings = await withConnection(
      databaseUrl(server, 'postgres', role),
      options({ lockTimeout: 0 }),
      async (client) => {
        const { rows } = await client.query<Record<string, string>>(
          `SELECT current_setting('application_name') AS application, current_setting('statement_timeout') AS statement,
                current_setting('lock_timeout') AS lock, current_setting('search_path') AS path,
                current_setting('quote_all_identifiers') AS quote, current_setting('TimeZone') AS zone`,
        );
        return rows[0];
      },
    );
    expect(settings).toEqual({
      application: 'migration-runbook/eeeeffff0000/test.connection',
      statement: '1min',
      lock: '0',
      path: 'pg_catalog',
      quote: 'off',
      zone: 'UTC',
    });
  });

  it('is ended when the work is done, and when it fails', async () => {
    const step = randomName('step');
    await withConnection(server.superuserUrl, options({ step }), async (client) => client.query('SELECT 1'));
    await failureOf(
      withConnection(server.superuserUrl, options({ step }), (client) => client.query('SELECT nonsense')),
    );
    await expect
      .poll(
        (): Promise<object[]> =>
          query(server.superuserUrl, 'SELECT FROM pg_stat_activity WHERE application_name = $1', [
            applicationName(runId, step),
          ]),
      )
      .toHaveLength(0);
  });

  it('ends its running statement on the server when the step is cancelled', async () => {
    const stop = new AbortController();
    let pid = 0;
    const running = withConnection(
      server.superuserUrl,
      options({ signal: stop.signal }),
      async (client, connection) => {
        pid = connection.pid;
        const answer = client.query('SELECT pg_sleep(60)');
        await expect.poll(() => isActive(pid)).toBe(true);
        stop.abort(new Error('cancelled'));
        return answer;
      },
    );
    await expect(running).rejects.toThrow('cancelled');
    expect(await query(server.superuserUrl, 'SELECT FROM pg_stat_activity WHERE pid = $1', [pid])).toHaveLength(0);
  });

  it('ends its statement also for a role that acts as another', async () => {
    const owner = await createRole(server, 'owner');
    const role = await createRole(server);
    await query(server.superuserUrl, `GRANT ${owner.name} TO ${role.name}`);
    await query(server.superuserUrl, `ALTER ROLE ${role.name} SET role = '${owner.name}'`);
    const stop = new AbortController();
    let pid = 0;
    const url = databaseUrl(server, 'postgres', role);
    const running = withConnection(url, options({ signal: stop.signal }), async (client, connection) => {
      pid = connection.pid;
      const answer = client.query('SELECT pg_sleep(60)');
      await expect.poll(() => isActive(pid)).toBe(true);
      stop.abort(new Error('cancelled'));
      return answer;
    });
    await expect(running).rejects.toThrow('cancelled');
    expect(await query(server.superuserUrl, 'SELECT FROM pg_stat_activity WHERE pid = $1', [pid])).toHaveLength(0);
  });

  it('tells when it is lost', async () => {
    const connection = await openConnection(server.superuserUrl, options());
    await query(server.superuserUrl, 'SELECT pg_terminate_backend($1)', [connection.pid]);
    expect((await connection.lost).type).toBe(STEP_ERRORS.unavailable);
    await connection.end();
  });
});

describe('a failure to connect names what to look at, without the address', () => {
  const secret = 'hunter2-and-a-half';

  it.each([
    [
      'a wrong password',
      (url: URL): void => void (url.password = secret),
      STEP_ERRORS.refused,
      /wrong password for role "postgres"/,
    ],
    [
      'a missing database',
      (url: URL): void => void (url.pathname = '/not-there'),
      STEP_ERRORS.refused,
      /"not-there" .*does not exist/,
    ],
    [
      'TLS where there is none',
      (url: URL): void => void (url.search = '?sslmode=require'),
      STEP_ERRORS.refused,
      /offers no TLS/,
    ],
    [
      'a parameter nobody knows',
      (url: URL): void => void (url.search = '?sslmodus=require'),
      STEP_ERRORS.refused,
      /sslmodus/,
    ],
    [
      'a host nobody knows',
      (url: URL): void => void (url.hostname = 'nowhere.invalid'),
      STEP_ERRORS.unavailable,
      /cannot be reached/,
    ],
  ])('%s', async (_, change, type, message) => {
    const url = new URL(server.superuserUrl);
    const password = url.password;
    change(url);
    const error = await failureOf(withConnection(url.href, options(), async () => undefined));
    expect(error.type).toBe(type);
    expect(error.message).toMatch(message);
    const told = JSON.stringify([error.message, error.details, error.cause ?? null]);
    expect(told).not.toContain(secret);
    expect(told).not.toContain(password);
  });

  it('a server that is down', async () => {
    // A port nobody listens on: one that was free a moment ago.
    const port = await new Promise<number>((resolve) => {
      const listener = createServer().listen(0, '127.0.0.1', () => {
        const address = listener.address();
        listener.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 1));
      });
    });
    const url = new URL(server.superuserUrl);
    url.port = String(port);
    const error = await failureOf(withConnection(url.href, options(), async () => undefined));
    expect(error.type).toBe(STEP_ERRORS.unavailable);
    expect(error.message).toContain('ECONNREFUSED');
  });

  it('a database that lets nobody in', async () => {
    const database = await createDatabase(server);
    await query(server.superuserUrl, `ALTER DATABASE ${database.name} ALLOW_CONNECTIONS false`);
    const error = await failureOf(withConnection(database.url, options(), async () => undefined));
    expect(error.type).toBe(STEP_ERRORS.unavailable);
    expect(error.message).toContain('accepts no connections');
  });
});

describe('the identity of a database', () => {
  it('is system identifier and name', async () => {
    const identity = await withConnection(server.superuserUrl, options(), readIdentity);
    const serverMajor = await majorOf(server);
    expect(identity).toMatchObject({ database: 'postgres', serverMajor, encoding: 'UTF8', timeline: 1 });
    expect(identity.systemIdentifier).toMatch(/^\d{15,}$/);
    expect(identity.sizeBytes).toBeGreaterThan(1_000_000);
  });

  it('tells one database from itself, from its neighbor and from a physical copy', async () => {
    const neighbor = await createDatabase(server);
    const compare = (one: string, other: string): Promise<boolean> =>
      withConnection(one, options(), (first) =>
        withConnection(other, options(), (second) => isSameDatabase(first, second)),
      );
    expect(await compare(server.superuserUrl, server.superuserUrl)).toBe(true);
    expect(await compare(server.superuserUrl, neighbor.url)).toBe(false);
    expect(await compare(server.superuserUrl, stack.postgres.staging.superuserUrl)).toBe(false);
    // A physical copy has the same system identifier and names; a lock taken on one server is not seen on the other.
    expect(await compare(server.superuserUrl, stack.postgres.replica.superuserUrl)).toBe(false);
  });
});
