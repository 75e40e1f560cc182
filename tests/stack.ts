import { randomBytes } from 'node:crypto';
import type { Client } from 'pg';
import { afterAll, inject } from 'vitest';
import type { FullStackConnection, PostgresServer } from '../scripts/stack/connection.ts';
import { withClient } from '../scripts/stack/postgres-cluster.ts';
import { sqlState } from '../src/postgres/database-error.ts';

/** The running stack that all integration and fault tests share. Leave its servers running and its `postgres` databases alone. */
export function useStack(): FullStackConnection {
  return inject('stack');
}

/** A name nobody else uses: for databases, roles, buckets' prefixes, services. At most 63 bytes with a prefix of up to 50. */
export function randomName(prefix: string): string {
  return `${prefix}_${randomBytes(4).toString('hex')}`;
}

/** The same server's URL for another database, and another role where one is given. */
export function databaseUrl(
  server: PostgresServer,
  database: string,
  role?: { readonly name: string; readonly password: string },
): string {
  const url = new URL(server.superuserUrl);
  url.pathname = `/${encodeURIComponent(database)}`;
  if (role !== undefined) {
    url.username = encodeURIComponent(role.name);
    url.password = encodeURIComponent(role.password);
  }
  return url.href;
}

/**
 * Creates an empty database with a random name, to be dropped at the end of the test file together with every database whose name
 * begins with it (restores put theirs beside it). May be called in a test or a hook.
 * @returns name and superuser's URL.
 */
export async function createDatabase(
  server: PostgresServer,
  prefix = 'test',
): Promise<{ readonly name: string; readonly url: string }> {
  const name = randomName(prefix);
  await withClient(server.superuserUrl, (client) =>
    client.query(`CREATE DATABASE ${client.escapeIdentifier(name)} TEMPLATE template0`),
  );
  created.databases.push({ server, name });
  return { name, url: databaseUrl(server, name) };
}

/**
 * Creates a login role with a random name and password, to be dropped at the end of the test file where nothing depends on it any more.
 * May be called in a test or a hook.
 */
export async function createRole(
  server: PostgresServer,
  prefix = 'role',
  attributes = '',
): Promise<{ readonly name: string; readonly password: string }> {
  const role = { name: randomName(prefix), password: randomBytes(12).toString('base64url') };
  await withClient(server.superuserUrl, (client) =>
    client.query(
      `CREATE ROLE ${client.escapeIdentifier(role.name)} LOGIN PASSWORD ${client.escapeLiteral(role.password)} ${attributes}`,
    ),
  );
  created.roles.push({ server, name: role.name });
  return role;
}

interface Created {
  readonly server: PostgresServer;
  readonly name: string;
}

const created: { readonly databases: Created[]; readonly roles: Created[] } = { databases: [], roles: [] };

// Of the file, not of each call: a hook that is registered while a test or another hook runs is never called. Registered first, so it
// runs after the file's own.
afterAll(async () => {
  const servers = new Set([...created.databases, ...created.roles].map(({ server }) => server.superuserUrl));
  for (const url of servers) {
    await withClient(url, (client) => dropCreated(client, url)).catch((error: NodeJS.ErrnoException) => {
      // A server of the file's own, stopped by now: its databases went with it.
      if (error.code !== 'ECONNREFUSED') throw error;
    });
  }
});

async function dropCreated(client: Client, superuserUrl: string): Promise<void> {
  const here = ({ server }: Created): boolean => server.superuserUrl === superuserUrl;
  const { rows } = await client.query<{ datname: string }>(
    'SELECT datname FROM pg_database WHERE EXISTS (SELECT FROM unnest($1::text[]) AS made WHERE starts_with(datname, made))',
    [created.databases.filter(here).map(({ name }) => name)],
  );
  for (const { datname } of rows) await dropForced(client, datname);
  for (const { name } of created.roles.filter(here))
    await client.query(`DROP ROLE IF EXISTS ${client.escapeIdentifier(name)}`).catch(() => undefined);
}

/** The server waits five seconds for the sessions it has ended: on a busy machine they may take longer. */
async function dropForced(client: Client, database: string, tries = 4): Promise<void> {
  await client
    .query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(database)} WITH (FORCE)`)
    .catch((error: unknown) => {
      if (sqlState(error) !== '55006' || tries === 1) throw error;
      return dropForced(client, database, tries - 1);
    });
}
