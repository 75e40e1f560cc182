import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../command.ts';
import type { PostgresServer } from '../connection.ts';
import { venv } from '../layout.ts';
import { withClient } from '../postgres-cluster.ts';
import { alone, psql, roleUrl, sources } from './roles.ts';
import type { Passwords } from './roles.ts';

export interface DatabaseContent {
  /** Checkout of the release whose schema the database gets. */
  readonly checkout: string;
  readonly commit: string;
  /** Multiplies the rows; 1 gives about 30,000. */
  readonly scale: number;
  /** Bytes of each recording. */
  readonly audioSize: number;
}

/**
 * Makes the database `name` anew as the content says. Migrated and seeded once for each content and server, into a template; from then
 * on a copy of it, which takes a fraction of a second.
 */
export async function recreateDatabase(
  server: PostgresServer,
  passwords: Passwords,
  name: string,
  content: DatabaseContent,
): Promise<void> {
  const template = await ensureTemplate(server, passwords, content);
  await withClient(server.superuserUrl, (client) =>
    client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(name)} WITH (FORCE)`),
  );
  await createFromScript(server, name, template);
}

/** Drops every database whose name begins with `prefix`: also what restores and rehearsals of earlier runs have left. */
export async function dropDatabases(server: PostgresServer, prefix: string): Promise<void> {
  await withClient(server.superuserUrl, async (client) => {
    const { rows } = await client.query<{ datname: string }>(
      `SELECT datname FROM pg_database WHERE starts_with(datname, $1) AND NOT datistemplate AND datname <> 'postgres'`,
      [prefix],
    );
    for (const { datname } of rows)
      await client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(datname)} WITH (FORCE)`);
  });
}

async function ensureTemplate(server: PostgresServer, passwords: Passwords, content: DatabaseContent): Promise<string> {
  const template = `template_whisper_${await digest(passwords, content)}`;
  return alone(server, async () => {
    const { rowCount } = await withClient(server.superuserUrl, (client) =>
      client.query('SELECT FROM pg_database WHERE datname = $1 AND datistemplate', [template]),
    );
    if (rowCount === 1) return template;
    await withClient(server.superuserUrl, (client) =>
      client.query(`DROP DATABASE IF EXISTS ${client.escapeIdentifier(template)} WITH (FORCE)`),
    );
    await createFromScript(server, template, 'template0');
    await fill(server, passwords, template, content);
    // Marked last: only a template that is complete is one. Nobody may connect, or it could not be copied.
    await withClient(server.superuserUrl, (client) =>
      client.query(`ALTER DATABASE ${client.escapeIdentifier(template)} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false`),
    );
    return template;
  });
}

async function fill(
  server: PostgresServer,
  passwords: Passwords,
  database: string,
  content: DatabaseContent,
): Promise<void> {
  const url = roleUrl(server, passwords, 'migrator', database);
  const environment = { DATABASE_URL: url, ADMIN_PASSWORD: passwords.admin };
  await runCommand(join(venv.bin, 'alembic'), ['upgrade', 'head'], { directory: content.checkout, environment });
  await psql(
    server,
    [`--set=scale=${content.scale}`, `--set=audio_size=${content.audioSize}`, '--file', join(sources, 'seed.sql')],
    {},
    url,
  );
  await runCommand(venv.python, ['-m', 'api.create_admin'], { directory: content.checkout, environment });
}

async function createFromScript(server: PostgresServer, name: string, template: string): Promise<void> {
  await psql(server, [`--set=database=${name}`, `--set=template=${template}`, '--file', join(sources, 'database.sql')]);
}

async function digest(passwords: Passwords, content: DatabaseContent): Promise<string> {
  const files = await Promise.all(['database.sql', 'seed.sql'].map((file) => readFile(join(sources, file), 'utf8')));
  return createHash('sha256')
    .update(JSON.stringify([passwords.admin, content.commit, content.scale, content.audioSize, files]))
    .digest('hex')
    .slice(0, 12);
}
