import { randomBytes } from 'node:crypto';
import { afterAll, inject } from 'vitest';
import type { FullStackConnection, PostgresServer } from '../scripts/stack/connection.ts';
import { withClient } from '../scripts/stack/postgres-cluster.ts';

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
 * begins with it (restores put theirs beside it).
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
  afterAll(() =>
    withClient(server.superuserUrl, async (client) => {
      const { rows } = await client.query<{ datname: string }>(
        'SELECT datname FROM pg_database WHERE starts_with(datname, $1)',
        [name],
      );
      for (const { datname } of rows)
        await client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(datname)} WITH (FORCE)`);
    }),
  );
  return { name, url: databaseUrl(server, name) };
}

/** Creates a login role with a random name and password, to be dropped at the end of the test file where nothing depends on it any more. */
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
  afterAll(() =>
    withClient(server.superuserUrl, (client) =>
      client.query(`DROP ROLE IF EXISTS ${client.escapeIdentifier(role.name)}`).catch(() => undefined),
    ),
  );
  return role;
}
