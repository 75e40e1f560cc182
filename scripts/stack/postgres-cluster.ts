import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import type { PostgresReplica, PostgresServer } from './connection.ts';
import { freePort } from './free-port.ts';
import { handOver, unprivileged } from './privileges.ts';
import { startServer, withFreshPorts } from './server-process.ts';
import type { Lifetime, RunningServer, StopPolicy } from './server-process.ts';

const run = promisify(execFile);
const host = '127.0.0.1';
const replicationRole = 'replicator';
const replicaName = 'replica1';

export interface ClusterOptions {
  readonly name: string;
  /** Folder of its own: data, password and log. */
  readonly directory: string;
  readonly lifetime: Lifetime;
  /** `flushed` where a crash must lose nothing (the production stand-in), `quick` elsewhere. */
  readonly durability: 'flushed' | 'quick';
  /** The one it had, where it is to come back at its old address. Default: a free one. */
  readonly port?: number;
  /** Folder of the server's and the client programs. Its data stays of this major version. */
  readonly binDirectory: string;
}

export interface RunningCluster<S extends PostgresServer = PostgresServer> {
  readonly server: S;
  readonly process: RunningServer;
}

/** Fast shutdown, then immediate shutdown (PostgreSQL documentation, "Shutting Down the Server"). */
export const postgresStopPolicy: StopPolicy = {
  signals: [
    ['SIGINT', 8000],
    ['SIGQUIT', 6000],
    ['SIGKILL', 2000],
  ],
};

/** Starts a cluster, made first where there is none yet. */
export async function startCluster(options: ClusterOptions): Promise<RunningCluster> {
  const data = join(options.directory, 'data');
  if (!existsSync(data)) await initialise(options);
  return withFreshPorts(async () => {
    const port = options.port ?? (await freePort());
    return serve({ ...options, data, port, password: await storedPassword(options.directory) });
  });
}

/** Starts a streaming replica of `primary`, made by a base backup where there is none yet, and waits until it streams. */
export async function startReplica(
  options: Omit<ClusterOptions, 'durability' | 'port'>,
  primary: RunningCluster,
  primaryDirectory: string,
): Promise<RunningCluster<PostgresReplica>> {
  const data = join(options.directory, 'data');
  const password = await storedPassword(primaryDirectory);
  const replication = await ensureReplicationRole(primary.server, primaryDirectory);
  if (!existsSync(data)) await copyPrimary(options, primary.server, replication);
  const conninfo = Object.entries({
    host,
    port: primary.server.port,
    user: replicationRole,
    password: replication,
    application_name: replicaName,
  })
    .map(([key, value]) => `${key}=${value}`)
    .join(' ');
  const settings = [`primary_conninfo = '${conninfo}'`, `primary_slot_name = '${replicaName}'`];
  const replica = await withFreshPorts(async () => {
    const port = await freePort();
    return serve({ ...options, durability: 'quick', data, port, password, settings });
  });
  await waitForStreaming(primary.server);
  return { ...replica, server: { ...replica.server, name: replicaName } };
}

async function initialise({ directory, binDirectory }: ClusterOptions): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o711 });
  const password = randomBytes(18).toString('base64url');
  const passwordFile = join(directory, 'password');
  await writeFile(passwordFile, password, { mode: 0o600 });
  const fresh = join(directory, 'data.new');
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { mode: 0o700 });
  handOver(fresh, unprivileged());
  handOver(passwordFile, unprivileged());
  // The C locale of UTF-8: the same on every machine, and the packaged server has no ICU. No sync: the folder is new and replaceable.
  await unprivilegedRun(join(binDirectory, 'initdb'), [
    '--pgdata',
    fresh,
    '--username',
    'postgres',
    '--pwfile',
    passwordFile,
    '--auth',
    'scram-sha-256',
    '--encoding',
    'UTF8',
    '--locale',
    'C.UTF-8',
    '--no-sync',
    '--no-instructions',
  ]);
  await rename(fresh, join(directory, 'data'));
}

async function copyPrimary(
  { directory, binDirectory }: Pick<ClusterOptions, 'directory' | 'binDirectory'>,
  primary: PostgresServer,
  password: string,
): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o711 });
  const fresh = join(directory, 'data.new');
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { mode: 0o700 });
  handOver(fresh, unprivileged());
  await withClient(primary.superuserUrl, async (client) => {
    await client.query(
      'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active',
      [replicaName],
    );
  });
  await unprivilegedRun(
    join(binDirectory, 'pg_basebackup'),
    [
      '--pgdata',
      fresh,
      '--host',
      host,
      '--port',
      String(primary.port),
      '--username',
      replicationRole,
      '--no-password',
      '--wal-method',
      'stream',
      '--create-slot',
      '--slot',
      replicaName,
      '--checkpoint',
      'fast',
      '--no-sync',
    ],
    { PGPASSWORD: password },
  );
  await writeFile(join(fresh, 'standby.signal'), '', { mode: 0o600 });
  handOver(fresh, unprivileged());
  await rename(fresh, join(directory, 'data'));
}

interface Serve extends Omit<ClusterOptions, 'durability' | 'port'> {
  readonly durability: ClusterOptions['durability'];
  readonly data: string;
  readonly port: number;
  readonly password: string;
  readonly settings?: readonly string[];
}

async function serve(options: Serve): Promise<RunningCluster> {
  const { data, port, password, binDirectory } = options;
  await configure(options);
  const superuserUrl = `postgresql://postgres:${password}@${host}:${port}/postgres`;
  const process = await startServer({
    name: options.name,
    program: join(binDirectory, 'postgres'),
    arguments: ['-D', data],
    directory: options.directory,
    logFile: join(options.directory, 'server.log'),
    lifetime: options.lifetime,
    // Immediate shutdown: the postmaster takes all its children along, and waits for no client and no standby. KILL would leave them.
    orphanSignal: 'QUIT',
    ready: () =>
      withClient(superuserUrl, async (client) => {
        const { rows } = await client.query<{ data: string }>(`SELECT current_setting('data_directory') AS data`);
        return rows[0]?.data === data;
      }),
  });
  return { server: { host, port, superuserUrl, binDirectory, dataDirectory: data }, process };
}

/** Writes the settings of this start. A file of our own, included by postgresql.conf, since ports change and the replica's holds a password. */
async function configure(options: Serve): Promise<void> {
  const quick = options.durability === 'quick';
  const settings = [
    `listen_addresses = '${host}'`,
    `port = ${options.port}`,
    // TCP only: a socket's path may have 107 bytes at most, and this folder can be anywhere.
    `unix_socket_directories = ''`,
    'max_connections = 60',
    'shared_buffers = 64MB',
    'wal_level = replica',
    'max_wal_senders = 8',
    'max_replication_slots = 8',
    'hot_standby = on',
    'max_wal_size = 512MB',
    'min_wal_size = 80MB',
    // A slot whose replica is not started must not fill the disk.
    'max_slot_wal_keep_size = 2GB',
    'password_encryption = scram-sha-256',
    `fsync = ${quick ? 'off' : 'on'}`,
    `full_page_writes = ${quick ? 'off' : 'on'}`,
    `log_line_prefix = '%m [%p] %u@%d %a '`,
    // A statement that fails may hold a password.
    `log_min_error_statement = panic`,
    ...(options.settings ?? []),
  ];
  const file = join(options.data, 'stack.conf');
  await writeFile(file, `${settings.join('\n')}\n`, { mode: 0o600 });
  handOver(file, unprivileged());
  const main = join(options.data, 'postgresql.conf');
  const include = `include = 'stack.conf'\n`;
  const present = await readFile(main, 'utf8');
  if (!present.endsWith(include)) await writeFile(main, `${present}\n${include}`);
}

async function ensureReplicationRole(primary: PostgresServer, directory: string): Promise<string> {
  const file = join(directory, 'replication-password');
  if (!existsSync(file)) await writeFile(file, randomBytes(18).toString('base64url'), { mode: 0o600 });
  const password = await readFile(file, 'utf8');
  await withClient(primary.superuserUrl, async (client) => {
    const { rowCount } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [replicationRole]);
    if (rowCount === 0)
      await client.query(`CREATE ROLE ${replicationRole} LOGIN REPLICATION PASSWORD ${pg.escapeLiteral(password)}`);
  });
  return password;
}

async function waitForStreaming(primary: PostgresServer): Promise<void> {
  await withClient(primary.superuserUrl, async (client) => {
    for (let attempt = 0; attempt < 600; attempt += 1) {
      const { rowCount } = await client.query(
        `SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'`,
        [replicaName],
      );
      if (rowCount === 1) return;
      await client.query('SELECT pg_sleep(0.05)');
    }
    throw new Error(`the replica ${replicaName} does not stream; see its server.log`);
  });
}

async function storedPassword(directory: string): Promise<string> {
  return readFile(join(directory, 'password'), 'utf8');
}

async function unprivilegedRun(
  program: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<void> {
  const privileges = unprivileged();
  const command = [...(privileges.kind === 'namespace' ? privileges.prefix : []), program, ...args];
  await run(command[0] ?? '', command.slice(1), {
    cwd: '/',
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', LC_ALL: 'C.UTF-8', TZ: 'UTC', ...environment },
    ...(privileges.kind === 'drop' ? { uid: privileges.uid, gid: privileges.gid } : {}),
  });
}

/** Opens a connection for one piece of work and closes it again. */
export async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url, application_name: 'stack', connectionTimeoutMillis: 10_000 });
  client.on('error', () => {}); // a server that goes away is reported by the statement under way
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end().catch(() => {});
  }
}
