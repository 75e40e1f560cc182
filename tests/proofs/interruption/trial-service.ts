/** A small service on the stack's primary, made to be interrupted: a repository, a database and roles of its own. */
import { randomBytes } from 'node:crypto';
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { writeProfile } from '../../../scripts/scenarios/profile.ts';
import { runCommand } from '../../../scripts/stack/command.ts';
import type { PostgresServer } from '../../../scripts/stack/connection.ts';
import type { Example } from '../../../scripts/stack/example.ts';
import { root } from '../../../scripts/stack/layout.ts';
import { withClient } from '../../../scripts/stack/postgres-cluster.ts';
import { openObjectStore } from '../../../src/archive/object-store.ts';
import type { StoredDocument } from '../../../src/contract/evidence/step.ts';
import type { Profile } from '../../../src/contract/profile.ts';
import type { ArchivedFootprint } from '../../../src/contract/evidence/rehearsal.ts';
import { loadProfile } from '../../../src/profile/load.ts';

const SOURCES = path.join(root, 'tests', 'fixtures', 'interrupted');

export interface TrialService {
  readonly profile: Profile;
  readonly commit: string;
  /** What no rehearsal has looked at closely: no lock is held against the upgrade. */
  readonly footprint: StoredDocument;
  /** Of its database. */
  readonly superuserUrl: string;
  readonly migratorRole: string;
  /** Makes the database anew, at revision r0. */
  reset(): Promise<void>;
  drop(): Promise<void>;
}

/** @param name of the service, its database and its roles */
export async function createTrialService(example: Example, name: string): Promise<TrialService> {
  const { primary } = example.stack.postgres;
  if (!primary) throw new Error('the stack runs without its primary');
  const roles = rolesOf(name);
  await dropAll(primary, name);
  await createRoles(primary, name);
  const directory = path.join(example.directory, name);
  const { repository, commit } = await createRepository(directory);
  const profile = await writeTrialProfile(example, { name, directory, repository, primary });
  return {
    profile,
    commit,
    footprint: await storeFootprint(example, profile),
    superuserUrl: urlOf(primary, name),
    migratorRole: roles.migrator,
    reset: () => resetDatabase(primary, name),
    drop: () => dropAll(primary, name),
  };
}

const ROLE_PARTS = ['owner', 'migrator', 'backup', 'app', 'admin'] as const;
type Roles = Readonly<Record<(typeof ROLE_PARTS)[number], string>>;

const rolesOf = (name: string): Roles =>
  Object.fromEntries(ROLE_PARTS.map((part) => [part, `${name.replaceAll('-', '_')}_${part}`])) as Roles;

const databaseOf = (name: string): string => name.replaceAll('-', '_');

const passwords = new Map<string, string>();
function passwordOf(role: string): string {
  const password = passwords.get(role) ?? randomBytes(12).toString('base64url');
  passwords.set(role, password);
  return password;
}

function urlOf({ superuserUrl }: PostgresServer, name: string, role?: string): string {
  const url = new URL(superuserUrl);
  url.pathname = `/${databaseOf(name)}`;
  if (role !== undefined) {
    url.username = role;
    url.password = passwordOf(role);
  }
  return url.href;
}

async function createRoles(server: PostgresServer, name: string): Promise<void> {
  const { owner, migrator, backup, app, admin } = rolesOf(name);
  const login = (role: string, attributes = ''): string =>
    `CREATE ROLE ${role} LOGIN PASSWORD '${passwordOf(role)}' ${attributes}`;
  await withClient(server.superuserUrl, async (client) => {
    for (const statement of [
      `CREATE ROLE ${owner} NOLOGIN`,
      login(migrator),
      login(backup),
      login(app),
      login(admin, 'CREATEDB CREATEROLE'),
      `GRANT ${owner} TO ${migrator}, ${admin}`,
      `ALTER ROLE ${migrator} SET role = '${owner}'`,
      `GRANT pg_read_all_data TO ${backup}`,
      `GRANT ${app}, ${migrator}, ${backup} TO ${admin} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`,
      `GRANT pg_monitor, pg_signal_backend, pg_read_all_data, pg_maintain TO ${admin}`,
    ]) {
      await client.query(statement);
    }
  });
}

async function resetDatabase(server: PostgresServer, name: string): Promise<void> {
  const { owner, migrator } = rolesOf(name);
  const seed = await readFile(path.join(SOURCES, 'seed.sql'), 'utf8');
  await withClient(server.superuserUrl, async (client) => {
    await client.query(`DROP DATABASE IF EXISTS ${databaseOf(name)} WITH (FORCE)`);
    await client.query(`CREATE DATABASE ${databaseOf(name)} OWNER ${owner} TEMPLATE template0`);
  });
  await withClient(urlOf(server, name, migrator), (client) => client.query(seed));
}

async function dropAll(server: PostgresServer, name: string): Promise<void> {
  await withClient(server.superuserUrl, async (client) => {
    await client.query(`DROP DATABASE IF EXISTS ${databaseOf(name)} WITH (FORCE)`);
    for (const role of Object.values(rolesOf(name)).toReversed()) await client.query(`DROP ROLE IF EXISTS ${role}`);
  });
}

async function createRepository(directory: string): Promise<{ readonly repository: string; readonly commit: string }> {
  const repository = path.join(directory, 'repository');
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  await cp(SOURCES, repository, { recursive: true, filter: (source) => !source.includes('__pycache__') });
  const git = (...words: readonly string[]): Promise<string> =>
    runCommand('git', ['-c', 'user.name=Release', '-c', 'user.email=release@example.com', ...words], {
      directory: repository,
    });
  await git('init', '--quiet', '--initial-branch', 'main');
  await git('add', '.');
  await git('commit', '--quiet', '--message', 'A service made to be interrupted');
  return { repository, commit: (await git('rev-parse', 'HEAD')).trim() };
}

async function writeTrialProfile(
  example: Example,
  {
    name,
    directory,
    repository,
    primary,
  }: {
    readonly name: string;
    readonly directory: string;
    readonly repository: string;
    readonly primary: PostgresServer;
  },
): Promise<Profile> {
  const { migrator, backup, app, admin } = rolesOf(name);
  const secret = async (role: string, prefix = ''): Promise<{ readonly file: string }> => {
    const file = path.join(directory, `${prefix}${role}`);
    await writeFile(file, urlOf(primary, name, role), { mode: 0o600 });
    return { file };
  };
  const databases = {
    administrator: await secret(admin),
    migrator: await secret(migrator),
    backup: await secret(backup),
    application: await secret(app),
  };
  const staging = { administrator: await secret(admin, 'staging-'), migrator: await secret(migrator, 'staging-') };
  const written = await writeProfile(example, {
    service: name,
    edit: (document) => ({
      ...document,
      repository: { url: repository },
      databases: {
        ...document.databases,
        production: { ...document.databases.production, ...databases, applicationRoles: [app], standbys: [] },
        // Only the revisions of staging are looked at here: production stands for it.
        staging,
      },
      guard: { lockTimeout: '60s' },
    }),
  });
  return (await loadProfile(written.directory, name)).profile;
}

async function storeFootprint({ stack }: Example, { backup, service }: Profile): Promise<StoredDocument> {
  if (!stack.s3) throw new Error('the stack runs without S3');
  const footprint: ArchivedFootprint = {
    format: 'migration-runbook/footprint/1',
    statements: [],
    locks: [],
    locksBy: 'sampled',
  };
  const store = openObjectStore(backup, stack.s3);
  try {
    return await store.put(
      `${backup.prefix}/${service}/footprint.json`,
      JSON.stringify(footprint),
      'application/json',
      new AbortController().signal,
    );
  } finally {
    store.close();
  }
}
