import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort } from '../free-port.ts';
import type { StackConnection } from '../connection.ts';
import { isAlive } from '../process-identity.ts';
import { withFreshPorts } from '../server-process.ts';
import type { Lifetime } from '../server-process.ts';
import { recordServers } from '../stack.ts';
import { readState } from '../state-file.ts';
import { secretsOf, urlsOf } from './addresses.ts';
import type { DatabaseUrls } from './addresses.ts';
import { dropDatabases, recreateDatabase } from './databases.ts';
import type { DatabaseContent } from './databases.ts';
import { emptyQueues, redisUrls } from './queues.ts';
import type { RedisUrls } from './queues.ts';
import { checkOut } from './repository.ts';
import type { DeployedRelease } from './repository.ts';
import { ensureRoles, postgresServer, psql, roleUrl, sources } from './roles.ts';
import type { Passwords } from './roles.ts';
import { ageKeys, writeEnvironmentFile, writeSecrets } from './secrets.ts';
import type { Secrets } from './secrets.ts';
import { startService, stopService } from './service.ts';

export interface ExampleOptions {
  /** Release in production. Default `v1.0.0`. */
  readonly tag?: string;
  /** Multiplies the rows; 1, the default, gives about 30,000. */
  readonly scale?: number;
  /** Bytes of sound in each of the 4,000 × scale recordings, a multiple of 32; it does not compress. Default 4,096. */
  readonly audioSize?: number;
  /**
   * Name of the production database, `whisper` by default; staging is `<name>_staging`. On a stack that others use too take a random
   * name of your own: every database whose name begins with it is dropped by a reset.
   */
  readonly database?: string;
  /** `run` (default) starts API and Celery worker on production; `none` leaves the databases alone. */
  readonly service?: 'run' | 'none';
  /** Default: what the stack was started with. */
  readonly lifetime?: Lifetime;
  readonly onProgress?: (line: string) => void;
}

const defaultDatabase = 'whisper';

/** The example service as it runs. Holds passwords. */
export interface Example extends DeployedRelease {
  readonly stack: StackConnection;
  readonly directory: string;
  readonly scale: number;
  readonly audioSize: number;
  readonly databases: { readonly production: string; readonly staging: string };
  readonly urls: DatabaseUrls;
  readonly redis: RedisUrls;
  /** Name and password of the service's own administrator in production. */
  readonly admin: { readonly username: 'admin'; readonly password: string };
  /** `.env.staging`. */
  readonly environmentFile: string;
  /** Every secret by its name in the secrets manager. */
  readonly secrets: Secrets;
  readonly secretsDirectory: string;
  /** Folder of `secretctl`; put it on the PATH of whoever resolves references. */
  readonly binDirectory: string;
  readonly ageRecipient: string;
  /** Base address of the API; undefined with `service: 'none'`. */
  readonly apiUrl?: string;
  readonly lifetime: Lifetime;
  readonly passwords: { readonly production: Passwords; readonly staging: Passwords };
}

/** Puts the example service on the stack: repository, roles, databases with rows, secrets, API and Celery worker. May be repeated. */
export async function deployExample(stack: StackConnection, options: ExampleOptions = {}): Promise<Example> {
  const say = options.onProgress ?? (() => {});
  const production = options.database ?? defaultDatabase;
  const databases = { production, staging: `${production}_staging` };
  const directory = join(stack.directory, 'example', production);
  const lifetime = options.lifetime ?? (await readState(stack.directory))?.lifetime ?? 'with-parent';
  await mkdir(directory, { recursive: true });
  const source = await checkOut(directory, options.tag ?? 'v1.0.0');
  const [primary, staging, scratch] = [
    postgresServer(stack, 'primary'),
    postgresServer(stack, 'staging'),
    postgresServer(stack, 'scratch'),
  ];
  const [onPrimary, onStaging, onScratch] = await Promise.all([
    ensureRoles(stack, 'primary'),
    ensureRoles(stack, 'staging'),
    ensureRoles(stack, 'scratch'),
  ]);
  const urls: DatabaseUrls = {
    production: urlsOf(primary, onPrimary, databases.production),
    ...(stack.postgres.replica && { replica: urlsOf(stack.postgres.replica, onPrimary, databases.production) }),
    staging: urlsOf(staging, onStaging, databases.staging),
    scratch: { administrator: roleUrl(scratch, onScratch, 'administrator', 'postgres') },
  };
  const redis = await redisUrls(stack, { directory, database: production });
  const keys = await ageKeys(directory);
  const passwords = { production: onPrimary, staging: onStaging };
  const secrets = secretsOf({ urls, redis, passwords, ageIdentity: keys.identity, s3: stack.s3 });
  const environmentFile = join(directory, '.env.staging');
  await writeEnvironmentFile(environmentFile, {
    databaseUrl: urls.staging.migrator,
    redisUrl: redis.staging,
    adminPassword: onStaging.admin,
  });
  const example: Example = {
    stack,
    directory,
    ...source,
    scale: options.scale ?? 1,
    audioSize: options.audioSize ?? 4096,
    databases,
    urls,
    redis,
    admin: { username: 'admin', password: onPrimary.admin },
    environmentFile,
    secrets,
    ...(await writeSecrets(directory, secrets)),
    ageRecipient: keys.recipient,
    lifetime,
    passwords,
  };
  await stopExample(example);
  await timed(say, 'databases', () => recreateDatabases(example));
  if (options.service === 'none') return example;
  const apiUrl = await timed(say, 'API and Celery worker', () =>
    withFreshPorts(async () => start(example, await freePort())),
  );
  return { ...example, apiUrl };
}

/**
 * Puts production and staging back to the first day: databases anew, leftovers of earlier runs dropped, empty queues, API and worker
 * started again at the same address.
 */
export async function resetExample(example: Example): Promise<void> {
  await stopExample(example);
  await recreateDatabases(example);
  if (example.apiUrl !== undefined) await start(example, Number(new URL(example.apiUrl).port));
}

/** Stops API and worker; stopping the stack does so too. */
export async function stopExample(example: Example): Promise<void> {
  const state = await readState(example.stack.directory);
  const names = serviceNames(example);
  await stopService((state?.servers ?? []).filter((server) => names.includes(server.name) && isAlive(server)));
}

/** Puts the rows into production that make a release's defect show: `scenarios/<tag>.sql`. Nothing to do for a release without one. */
export async function addScenarioRows(example: Example, tag: string): Promise<void> {
  const file = join(sources, 'scenarios', `${tag}.sql`);
  if (existsSync(file))
    await psql(postgresServer(example.stack, 'primary'), ['--file', file], {}, example.urls.production.application);
}

async function recreateDatabases(example: Example): Promise<void> {
  const { stack, passwords, databases } = example;
  const [primary, staging, scratch] = [
    postgresServer(stack, 'primary'),
    postgresServer(stack, 'staging'),
    postgresServer(stack, 'scratch'),
  ];
  // On a stack of its own everything on the scratch server is a leftover.
  const onScratch = databases.production === defaultDatabase ? '' : databases.production;
  await Promise.all([
    dropDatabases(primary, databases.production),
    dropDatabases(staging, databases.production),
    dropDatabases(scratch, onScratch),
  ]);
  const content: DatabaseContent = example;
  await Promise.all([
    recreateDatabase(primary, passwords.production, databases.production, content),
    recreateDatabase(staging, passwords.staging, databases.staging, content),
  ]);
}

async function start(example: Example, port: number): Promise<string> {
  const { directory, checkout, lifetime } = example;
  await emptyQueues(example.redis);
  const servers = await startService({
    directory,
    checkout,
    port,
    lifetime,
    databaseUrl: example.urls.production.application,
    redisUrl: example.redis.production,
  });
  const [api, worker] = serviceNames(example);
  await recordServers(
    example.stack.directory,
    servers.map((server) => ({ ...server, name: server.name === 'api' ? api : worker })),
  );
  return `http://127.0.0.1:${port}`;
}

/** How the stack's state calls the two, so that several deployments on one stack are told apart. */
function serviceNames(example: Example): readonly [api: string, worker: string] {
  const { production } = example.databases;
  return production === defaultDatabase ? ['api', 'worker'] : [`api of ${production}`, `worker of ${production}`];
}

async function timed<T>(say: (line: string) => void, what: string, work: () => Promise<T>): Promise<T> {
  const began = Date.now();
  const seconds = (): string => `${((Date.now() - began) / 1000).toFixed(1)} s`;
  const stillAtIt = setInterval(() => say(`${what}: working, ${seconds()}`), 2000);
  try {
    const result = await work();
    say(`${what}: ready in ${seconds()}`);
    return result;
  } finally {
    clearInterval(stillAtIt);
  }
}
