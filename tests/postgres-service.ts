import { Client } from 'pg';
import type { PostgresServer } from '../scripts/stack/connection.ts';
import { createDatabase, createRole, databaseUrl } from './stack.ts';

/** A service's database with roles that have just the rights of the example's `roles.sql`, under random names. */
export interface TestService {
  readonly database: string;
  readonly superuserUrl: string;
  readonly administratorUrl: string;
  readonly migratorUrl: string;
  readonly backupUrl: string;
  readonly applicationUrl: string;
  readonly roles: {
    readonly owner: string;
    readonly application: string;
    readonly migrator: string;
    readonly backup: string;
    readonly administrator: string;
  };
}

export interface TestRole {
  readonly name: string;
  readonly password: string;
}

/** Runs statements, one after the other, on a connection of their own. */
export async function execute(url: string, ...statements: readonly string[]): Promise<void> {
  await withClient(url, async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}

export async function query<Row extends object>(
  url: string,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  return withClient(url, async (client) => (await client.query<Row>(text, [...values])).rows);
}

export async function withClient<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Creates roles and database; the database holds tables with a foreign key, an enum, a check on a list, a view and rows. */
export async function createService(server: PostgresServer): Promise<TestService> {
  const owner = await createRole(server, 'owner');
  const application = await createRole(server, 'app');
  const migrator = await createRole(server, 'migrator');
  const backup = await createRole(server, 'backup');
  const administrator = await createRole(server, 'admin', 'CREATEDB CREATEROLE');
  const { name, url } = await createDatabase(server, 'service');
  const rightsSince = await rightsOfVersion(server);
  await execute(
    url,
    `ALTER ROLE ${owner.name} NOLOGIN`,
    `GRANT ${owner.name} TO ${migrator.name}, ${administrator.name}`,
    `ALTER ROLE ${migrator.name} SET role = '${owner.name}'`,
    `ALTER ROLE ${migrator.name} SET lock_timeout = '5s'`,
    `ALTER ROLE ${backup.name} SET default_transaction_read_only = on`,
    `GRANT pg_read_all_data TO ${backup.name}`,
    ...rightsSince(
      16,
      `GRANT ${application.name}, ${migrator.name}, ${backup.name} TO ${administrator.name} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`,
    ),
    `GRANT pg_monitor, pg_signal_backend, pg_read_all_data TO ${administrator.name}`,
    ...rightsSince(17, `GRANT pg_maintain TO ${administrator.name}`),
    `ALTER DATABASE ${name} OWNER TO ${owner.name}`,
    `REVOKE ALL ON DATABASE ${name} FROM PUBLIC`,
    `GRANT CONNECT ON DATABASE ${name} TO ${application.name}, ${migrator.name}, ${backup.name}`,
    `COMMENT ON DATABASE ${name} IS 'the service''s database'`,
    `ALTER DATABASE ${name} SET search_path = "$user", public, "Odd Schema"`,
    `ALTER DATABASE ${name} SET statement_timeout = '31s'`,
    `ALTER ROLE ${application.name} IN DATABASE ${name} SET idle_in_transaction_session_timeout = '77s'`,
    `ALTER DATABASE ${name} CONNECTION LIMIT 40`,
    `GRANT USAGE ON SCHEMA public TO ${application.name}`,
    `ALTER DEFAULT PRIVILEGES FOR ROLE ${owner.name} IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ${application.name}`,
    `ALTER DEFAULT PRIVILEGES FOR ROLE ${owner.name} IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO ${application.name}`,
  );
  const urlOf = (role: TestRole): string => databaseUrl(server, name, role);
  await execute(urlOf(migrator), ...SCHEMA);
  return {
    database: name,
    superuserUrl: url,
    administratorUrl: urlOf(administrator),
    migratorUrl: urlOf(migrator),
    backupUrl: urlOf(backup),
    applicationUrl: urlOf(application),
    roles: {
      owner: owner.name,
      application: application.name,
      migrator: migrator.name,
      backup: backup.name,
      administrator: administrator.name,
    },
  };
}

/** A right that came with a major version: CREATEROLE alone reaches every role before 16, pg_maintain came with 17. */
async function rightsOfVersion(server: PostgresServer): Promise<(major: number, statement: string) => string[]> {
  const major = await majorOf(server);
  return (since, statement) => (major >= since ? [statement] : []);
}

/** Major version of a server. */
export async function majorOf({ superuserUrl }: PostgresServer): Promise<number> {
  const rows = await query<{ major: number }>(
    superuserUrl,
    `SELECT current_setting('server_version_num')::int / 10000 AS major`,
  );
  return rows[0]!.major;
}

const SCHEMA = [
  `CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY)`,
  `INSERT INTO public.alembic_version VALUES ('0002')`,
  `CREATE TYPE public.state AS ENUM ('new', 'done')`,
  `CREATE TABLE public.users (
     id bigserial PRIMARY KEY, name text NOT NULL,
     kind varchar(10) NOT NULL DEFAULT 'person' CHECK (kind IN ('person', 'robot')), state public.state NOT NULL DEFAULT 'new')`,
  `CREATE TABLE public.notes (
     id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint NOT NULL REFERENCES public.users ON DELETE CASCADE, body text)`,
  `CREATE INDEX notes_robots ON public.users (lower(name)) WHERE kind IN ('robot', 'person') AND id > 0`,
  `CREATE VIEW public.people AS SELECT id, name FROM public.users WHERE kind IN ('person', 'robot')`,
  `INSERT INTO public.users (name) SELECT 'user ' || g FROM generate_series(1, 500) g`,
  `INSERT INTO public.notes (user_id, body) SELECT 1 + g % 500, repeat('x', 200) FROM generate_series(1, 2000) g`,
];
