import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../command.ts';
import type { PostgresServer, StackConnection } from '../connection.ts';
import { root } from '../layout.ts';
import { withClient } from '../postgres-cluster.ts';

/** Folder of the example service's sources. */
export const sources = join(root, 'examples', 'whisper-transcriber');

export type ServerName = 'primary' | 'staging' | 'scratch';
export type RoleName = 'application' | 'migrator' | 'backup' | 'administrator';

/** Passwords of one server's roles, and of the service's own administrator `admin`. */
export interface Passwords extends Readonly<Record<RoleName, string>> {
  readonly admin: string;
}

const roleNames: Readonly<Record<RoleName, string>> = {
  application: 'whisper_app',
  migrator: 'whisper_migrator',
  backup: 'whisper_backup',
  administrator: 'whisper_admin',
};

/** One at a time on each server: what is made here is shared by all deployments of the example on it. */
const lockKey = 7_405_411;

/** Runs `work` while nobody else sets up the example on this server. */
export function alone<T>(server: PostgresServer, work: () => Promise<T>): Promise<T> {
  return withClient(server.superuserUrl, async (client) => {
    await client.query('SELECT pg_advisory_lock($1)', [lockKey]);
    return work();
  });
}

/** Creates the service's roles where they are missing; the passwords are made once for each server and kept beside it. */
export async function ensureRoles(stack: StackConnection, name: ServerName): Promise<Passwords> {
  const server = postgresServer(stack, name);
  const folder = join(stack.directory, 'roles');
  const file = join(folder, `${name}.json`);
  return alone(server, async () => {
    if (!existsSync(file)) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await writeFile(file, JSON.stringify(makePasswords()), { mode: 0o600 });
    }
    const passwords = JSON.parse(await readFile(file, 'utf8')) as Passwords;
    await psql(server, ['--file', join(sources, 'roles.sql')], {
      WHISPER_APP_PASSWORD: passwords.application,
      WHISPER_MIGRATOR_PASSWORD: passwords.migrator,
      WHISPER_BACKUP_PASSWORD: passwords.backup,
      WHISPER_ADMIN_PASSWORD: passwords.administrator,
    });
    return passwords;
  });
}

function makePasswords(): Passwords {
  // With what real passwords have: characters that URLs, shells and environment files treat specially.
  const password = (): string => `${randomBytes(15).toString('base64url')}/+#`;
  return {
    application: password(),
    migrator: password(),
    backup: password(),
    administrator: password(),
    admin: `the "${randomBytes(9).toString('base64url')}" #1 of $HOME`,
  };
}

/** The URL of `database` for one of the roles. */
export function roleUrl(server: PostgresServer, passwords: Passwords, role: RoleName, database: string): string {
  const credentials = `${roleNames[role]}:${encodeURIComponent(passwords[role])}`;
  return `postgresql://${credentials}@${server.host}:${server.port}/${encodeURIComponent(database)}`;
}

/** Runs psql, without the user's psqlrc and stopping at the first error. `as` is the superuser by default. */
export async function psql(
  server: PostgresServer,
  psqlArguments: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  url: string = server.superuserUrl,
): Promise<string> {
  const { username, password, pathname } = new URL(url);
  return runCommand(
    join(server.binDirectory, 'psql'),
    ['--no-psqlrc', '--quiet', '--set=ON_ERROR_STOP=1', ...psqlArguments],
    {
      directory: sources,
      // By environment and not by URL, for process arguments can be read by everyone.
      environment: {
        PGHOST: server.host,
        PGPORT: String(server.port),
        PGUSER: decodeURIComponent(username),
        PGPASSWORD: decodeURIComponent(password),
        PGDATABASE: decodeURIComponent(pathname.slice(1)),
        ...environment,
      },
    },
  );
}

/** @throws Error when the stack was started without that server. */
export function postgresServer(stack: StackConnection, name: ServerName): PostgresServer {
  const server = stack.postgres[name];
  if (server === undefined)
    throw new Error(`the example needs the server "${name}", which this stack was started without`);
  return server;
}
