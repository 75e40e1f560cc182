/** A server, the chains in a repository, and a small production database for each of them. */
import { randomBytes } from 'node:crypto';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { runCommand } from '../../../scripts/stack/command.ts';
import type { PostgresServer, StackConnection } from '../../../scripts/stack/connection.ts';
import { root, venv } from '../../../scripts/stack/layout.ts';
import { withClient } from '../../../scripts/stack/postgres-cluster.ts';
import type { ActivityDependencies } from '../../../src/activities/dependencies.ts';
import type { RunFacts } from '../../../src/contract/evidence/step.ts';
import type { AlembicProfile, Profile, SecretReference } from '../../../src/contract/profile.ts';
import { sqlName } from '../../../src/postgres/identifier.ts';
import { createRedactor } from '../../../src/process/redactor.ts';
import { parseProfile } from '../../../src/profile/load.ts';
import { createSecretVault } from '../../../src/profile/secret-vault.ts';
import type { Chain } from '../../fixtures/verdicts/chain.ts';

export const signal = new AbortController().signal;
export const redactor = createRedactor([]);

const fixtures = join(root, 'tests', 'fixtures', 'verdicts');

/** Of every chain's service. A password like those that surprise ConfigParser and URLs. */
export const ROLES = {
  owner: 'verdict_owner',
  migrator: 'verdict_migrator',
  backup: 'verdict_backup',
  administrator: 'verdict_admin',
  application: 'verdict_app',
} as const;
export type Role = keyof typeof ROLES;

export interface World {
  readonly directory: string;
  readonly stack: StackConnection;
  readonly server: PostgresServer;
  /** A repository with all the chains in one commit. */
  readonly repository: string;
  readonly commit: string;
  readonly url: (role: Role | 'superuser', database: string, server?: PostgresServer) => string;
  readonly secret: (name: string, value: string) => Promise<SecretReference>;
  readonly backup: Partial<Profile['backup']>;
}

/** Staging's environment file, of which nothing is needed here. */
const STAGING = 'staging.env';

export async function createWorld(directory: string, stack: StackConnection): Promise<World> {
  const { primary: server, scratch } = stack.postgres;
  if (!server || !scratch) throw new Error('the proof needs the primary and the scratch server');
  const passwords = new Map(Object.keys(ROLES).map((role) => [role, `p@s%40/${randomBytes(9).toString('base64url')}`]));
  const url: World['url'] = (role, database, on = server) => {
    const address = new URL(on.superuserUrl);
    if (role !== 'superuser') {
      address.username = ROLES[role];
      address.password = encodeURIComponent(passwords.get(role)!);
    }
    address.pathname = `/${encodeURIComponent(database)}`;
    return address.href;
  };
  await createRoles(server, passwords);
  const secrets = join(directory, 'secrets');
  await mkdir(secrets, { recursive: true });
  const secret: World['secret'] = async (name, value) => {
    const path = join(secrets, name);
    await writeFile(path, value, { mode: 0o600 });
    return { kind: 'file', path };
  };
  await writeFile(join(directory, STAGING), 'STAGING=yes\n');
  return {
    directory,
    stack,
    server,
    ...(await createRepository(directory)),
    url,
    secret,
    backup: await backupProfile(stack, secret),
  };
}

async function backupProfile({ s3 }: StackConnection, secret: World['secret']): Promise<World['backup']> {
  if (!s3) throw new Error('the proof needs the object store');
  const identity = await generateX25519Identity();
  return {
    bucket: s3.bucket,
    prefix: 'verdicts',
    region: s3.region,
    endpoint: s3.endpoint,
    forcePathStyle: true,
    accessKeyId: await secret('access-key-id', s3.accessKeyId),
    secretAccessKey: await secret('secret-access-key', s3.secretAccessKey),
    recipients: [await identityToRecipient(identity)],
    identity: await secret('identity', identity),
  };
}

/** Rights as the runbook asks for them: the migrator acts as the owner, the administrator is no superuser. */
async function createRoles(server: PostgresServer, passwords: ReadonlyMap<string, string>): Promise<void> {
  const { owner, migrator, backup, administrator, application } = ROLES;
  await withClient(server.superuserUrl, async (client) => {
    for (const [role, name] of Object.entries(ROLES)) {
      const rights = role === 'administrator' ? 'CREATEDB CREATEROLE' : '';
      const login = role === 'owner' ? 'NOLOGIN' : `LOGIN PASSWORD ${client.escapeLiteral(passwords.get(role)!)}`;
      await client.query(`CREATE ROLE ${name} ${login} ${rights}`);
    }
    await client.query(`GRANT ${owner} TO ${migrator}, ${administrator}`);
    await client.query(`ALTER ROLE ${migrator} SET role = ${owner}`);
    await client.query(`GRANT pg_read_all_data TO ${backup}, ${administrator}`);
    await client.query(`GRANT pg_monitor, pg_signal_backend, pg_maintain TO ${administrator}`);
    await client.query(
      `GRANT ${application}, ${migrator}, ${backup} TO ${administrator} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`,
    );
  });
}

/** Of activities. No workflow is asked for anything here, so there is no client. */
export const dependencies = ({ directory }: World): ActivityDependencies => ({
  profilesDirectory: directory,
  stateDirectory: join(directory, 'state'),
  secrets: vault,
  client: undefined as never,
});
const vault = createSecretVault();

export const asActivity = <T>(work: () => Promise<T>): Promise<T> =>
  new MockActivityEnvironment({ heartbeatTimeoutMs: 4_000 }, { logger: new DefaultLogger('ERROR') }).run(work);

async function createRepository(directory: string): Promise<Pick<World, 'repository' | 'commit'>> {
  const repository = join(directory, 'repository');
  await cp(fixtures, repository, { recursive: true, filter: (path) => !/__pycache__|\.ts$/.test(path) });
  const author = ['-c', 'user.name=proof', '-c', 'user.email=proof@example.com'];
  const git = (...args: string[]): Promise<string> =>
    runCommand('git', [...author, ...args], { directory: repository });
  await git('init', '--quiet');
  await git('add', '--all');
  await git('commit', '--quiet', '--message', 'chains');
  return { repository, commit: (await git('rev-parse', 'HEAD')).trim() };
}

// ---- one chain --------------------------------------------------------------------------------------------------------

export interface Service {
  readonly chain: Chain;
  /** Production's database; its pristine copy is `<database>_pristine`. */
  readonly database: string;
  readonly profile: Profile;
  readonly run: RunFacts;
  /** Where production's files are, for the chain that renames some; and those of the rehearsal. */
  readonly files: { readonly production: string; readonly rehearsal: string };
}

export const versionTableOf = ({ alembic }: Chain): AlembicProfile['versionTable'] =>
  alembic?.versionTable ?? { schema: 'public', table: 'alembic_version' };

export const folderOf = ({ name, folder = name }: Chain): string => folder;

/** The database as it is before: seeded by the migrator, so that all is the owner's, and at the chain's start revisions. */
export async function createProduction(world: World, chain: Chain, index: number): Promise<Service> {
  const database = `verdict_${index + 1}`;
  await withClient(world.server.superuserUrl, async (client) => {
    await client.query(`CREATE DATABASE ${database} OWNER ${ROLES.owner} TEMPLATE template0`);
    await client.query(`REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`);
    await client.query(
      `GRANT CONNECT ON DATABASE ${database} TO ${ROLES.migrator}, ${ROLES.backup}, ${ROLES.application}`,
    );
  });
  const seed = await readFile(join(fixtures, folderOf(chain), 'seed.sql'), 'utf8');
  await withClient(world.url('migrator', database), async (client) => {
    await client.query(seed);
    await createVersionTable((sql) => client.query(sql), chain);
    await client.query(
      `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ${ROLES.application};
       ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ${ROLES.application}`,
    );
  });
  const files = {
    production: await createFiles(join(world.directory, 'files', chain.name, 'production')),
    rehearsal: await createFiles(join(world.directory, 'files', chain.name, 'rehearsal')),
  };
  return {
    chain,
    database,
    files,
    run: {
      runId: `0190f000-0000-7000-8000-${String(index + 1).padStart(12, '0')}`,
      workflowId: `migrate-${chain.name}`,
      service: chain.name,
      releaseTag: 'v2',
      changeTicket: 'CHG-1',
      requestedBy: 'proof',
      commit: world.commit,
    },
    profile: await profileOf(world, chain, database, files),
  };
}

async function createVersionTable(query: (sql: string) => Promise<unknown>, chain: Chain): Promise<void> {
  if (chain.start === 'unversioned') return;
  const { schema, table } = versionTableOf(chain);
  const name = sqlName(schema, table);
  if (schema !== 'public') await query(`CREATE SCHEMA ${sqlName(schema)}`);
  await query(`CREATE TABLE ${name} (version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY)`);
  for (const revision of chain.start) await query(`INSERT INTO ${name} VALUES ('${revision}')`);
}

async function createFiles(folder: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  for (const name of ['1.jpeg', '2.jpeg', '3.jpeg']) await writeFile(join(folder, name), name);
  return folder;
}

function environmentOf(world: World, chain: Chain, files: string): Readonly<Record<string, string>> {
  const folder = join(world.repository, folderOf(chain));
  return Object.fromEntries(
    Object.entries({ PYTHONDONTWRITEBYTECODE: '1', ...chain.alembic?.environment }).map(([name, value]) => [
      name,
      value.replaceAll('{folder}', folder).replaceAll('{files}', files),
    ]),
  );
}

const template = await readFile(join(root, 'config', 'profile-template.yaml'), 'utf8');

async function profileOf(world: World, chain: Chain, database: string, files: Service['files']): Promise<Profile> {
  const { profile } = parseProfile(template, world.directory, 'whisper-transcriber.yaml');
  const folder = folderOf(chain);
  const url = (role: Role): Promise<SecretReference> => world.secret(`${database}-${role}`, world.url(role, database));
  const migrator = await url('migrator');
  const administrator = await url('administrator');
  const { prepare: _prepare, ...repository } = profile.repository;
  const { deployed: _deployed, ...application } = profile.application;
  return {
    ...profile,
    service: chain.name,
    repository: { ...repository, url: world.repository },
    postgresPrograms: world.server.binDirectory,
    databases: {
      production: {
        ...profile.databases.production,
        administrator,
        migrator,
        backup: await url('backup'),
        application: await url('application'),
        applicationRoles: [ROLES.application],
        maintenanceDatabase: 'postgres',
        standbys: [],
        tls: 'allow',
      },
      // No part of what is proven here, but the graph is compared with its revisions: it stands where production does.
      staging: { administrator, migrator },
      scratch: { administrator: await world.secret('scratch', world.stack.postgres.scratch!.superuserUrl) },
    },
    backup: { ...profile.backup, ...world.backup },
    staging: { ...profile.staging, environmentFile: STAGING },
    application,
    alembic: {
      python: venv.python,
      config: `${folder}/alembic.ini`,
      directory: folder,
      urlVariable: chain.alembic?.urlVariable ?? 'DATABASE_URL',
      urlScheme: chain.alembic?.urlScheme ?? 'postgresql+psycopg',
      environment: environmentOf(world, chain, files.production),
      versionTable: versionTableOf(chain),
      commands: chain.alembic?.commands ?? {},
    },
    lint: { ...profile.lint, refuse: [] },
    rehearsal: { ...profile.rehearsal, environment: environmentOf(world, chain, files.rehearsal), smoke: [] },
  };
}
