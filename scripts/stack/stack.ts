import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { stackParts } from './connection.ts';
import type { PostgresServer, StackConnection, StackPart, TemporalServer, S3Server } from './connection.ts';
import { postgresBinDirectory, venv } from './layout.ts';
import { postgresStopPolicy, startCluster, startReplica } from './postgres-cluster.ts';
import type { RunningCluster } from './postgres-cluster.ts';
import { identify, isAlive } from './process-identity.ts';
import { startRedis } from './redis.ts';
import { startS3 } from './s3.ts';
import { stopServer } from './server-process.ts';
import type { Lifetime, RunningServer, StopPolicy } from './server-process.ts';
import { changeState, claim, livingServers, readState, removeState, writeState } from './state-file.ts';
import type { StackState } from './state-file.ts';
import { startTemporal } from './temporal.ts';

export interface StackOptions {
  /** Folder of this stack's own, below the ignored `.stack`. */
  readonly directory: string;
  /** Default: all. */
  readonly parts?: readonly StackPart[];
  /** Default `with-parent`: nothing outlives this process, even when it is killed. */
  readonly lifetime?: Lifetime;
  /** `keep` starts on what an earlier stack in this folder left (quicker), `fresh` deletes it first. Default `keep`. */
  readonly data?: 'keep' | 'fresh';
  /** Folder of PostgreSQL's programs, for servers of another version. Default: the packaged ones, see `postgresBinDirectory`. */
  readonly postgresBin?: string;
  /** Told one line for each part, with the seconds it took. */
  readonly onProgress?: (line: string) => void;
}

export interface Stack extends StackConnection {
  readonly lifetime: Lifetime;
  /** Pid and start time of each server. */
  readonly servers: readonly RunningServer[];
  /** Stops every server, those recorded later with it, and returns when all are gone. */
  readonly stop: () => Promise<void>;
}

/**
 * Starts the parts asked for, side by side where they do not depend on each other, on loopback ports chosen free.
 * @throws Error when a stack is running in that folder, or a part does not start (the others are stopped then).
 */
export async function startStack(options: StackOptions): Promise<Stack> {
  const directory = resolve(options.directory);
  const lifetime = options.lifetime ?? 'with-parent';
  const parts = new Set<StackPart>(options.parts ?? stackParts);
  if (parts.has('replica')) parts.add('primary');
  const owner = identify(process.pid);
  if (owner === undefined) throw new Error('this process cannot be identified');
  const release = await claim(directory, owner);
  try {
    const running = livingServers(await readState(directory));
    if (running.length > 0)
      throw new Error(
        `a stack is running in ${directory}: stop it first (node scripts/stack/cli.ts down ${directory})`,
      );
    if (options.data === 'fresh')
      await Promise.all(stackParts.map((part) => rm(join(directory, part), { recursive: true, force: true })));
    const servers: RunningServer[] = [];
    try {
      const connection = await startParts(parts, {
        directory,
        lifetime,
        servers,
        // says at once when the set-up has not run
        binDirectory: options.postgresBin ?? postgresBinDirectory(),
        onProgress: options.onProgress ?? (() => {}),
      });
      const state: StackState = { lifetime, owner, servers, connection };
      await writeState(directory, state);
      return stackOf(state);
    } catch (error) {
      await stopServers(servers);
      throw error;
    }
  } finally {
    await release();
  }
}

/** The stack that runs in this folder; undefined when none of its servers does. */
export async function attachStack(directory: string): Promise<Stack | undefined> {
  const state = await readState(resolve(directory));
  return state !== undefined && livingServers(state).length > 0 ? stackOf(state) : undefined;
}

/** Stops the stack of this folder, whoever started it: exactly the processes it recorded. Returns how many were still running. */
export async function stopStack(directory: string): Promise<number> {
  const state = await readState(resolve(directory));
  if (state === undefined) return 0;
  const living = livingServers(state);
  await stopServers(living);
  await removeState(resolve(directory));
  return living.length;
}

function stackOf(state: StackState): Stack {
  return {
    ...state.connection,
    lifetime: state.lifetime,
    servers: state.servers,
    stop: async () => {
      await stopStack(state.connection.directory);
    },
  };
}

interface Surroundings {
  readonly directory: string;
  readonly lifetime: Lifetime;
  /** Receives each server as soon as it runs, so that a failure elsewhere stops it. */
  readonly servers: RunningServer[];
  readonly binDirectory: string;
  readonly onProgress: (line: string) => void;
}

async function startParts(parts: ReadonlySet<StackPart>, surroundings: Surroundings): Promise<StackConnection> {
  const { lifetime, servers, binDirectory } = surroundings;
  const folder = (part: StackPart): string => join(surroundings.directory, part);
  const start = async <T extends { readonly process: RunningServer }>(
    part: StackPart,
    work: () => Promise<T>,
  ): Promise<T | undefined> => {
    if (!parts.has(part)) return undefined;
    const began = Date.now();
    const stillAtIt = setInterval(() => surroundings.onProgress(`${part}: starting, ${seconds(began)}`), 2000);
    try {
      const started = await work();
      servers.push(started.process);
      surroundings.onProgress(`${part}: up in ${seconds(began)}`);
      return started;
    } finally {
      clearInterval(stillAtIt);
    }
  };
  const cluster = (
    part: 'primary' | 'staging' | 'scratch',
    durability: 'flushed' | 'quick',
  ): Promise<RunningCluster | undefined> =>
    start(part, () => startCluster({ name: part, directory: folder(part), lifetime, durability, binDirectory }));
  const primaryAndReplica = async (): Promise<StackConnection['postgres']> => {
    const primary = await cluster('primary', 'flushed');
    if (primary === undefined) return {};
    const replica = await start('replica', () =>
      startReplica(
        { name: 'replica', directory: folder('replica'), lifetime, binDirectory },
        primary,
        folder('primary'),
      ),
    );
    return { primary: primary.server, ...(replica === undefined ? {} : { replica: replica.server }) };
  };
  // Every part is waited for, also when one fails: what starts late would otherwise be missed by the clean-up.
  const [production, staging, scratch, temporal, s3, redis] = await allSettled([
    primaryAndReplica(),
    cluster('staging', 'quick'),
    cluster('scratch', 'quick'),
    start('temporal', () => startTemporal({ directory: folder('temporal'), lifetime })),
    start('s3', () => startS3({ directory: folder('s3'), lifetime })),
    start('redis', () => startRedis({ directory: folder('redis'), lifetime })),
  ]);
  return {
    directory: surroundings.directory,
    postgres: { ...production, ...serverEntry('staging', staging), ...serverEntry('scratch', scratch) },
    ...(temporal === undefined ? {} : { temporal: temporal.server satisfies TemporalServer }),
    ...(s3 === undefined ? {} : { s3: s3.server satisfies S3Server }),
    ...(redis === undefined ? {} : { redis: { url: redis.url } }),
    venv,
  };
}

function serverEntry(
  name: 'staging' | 'scratch',
  cluster: RunningCluster | undefined,
): Partial<Record<'staging' | 'scratch', PostgresServer>> {
  return cluster === undefined ? {} : { [name]: cluster.server };
}

async function allSettled<T extends readonly unknown[]>(work: { readonly [K in keyof T]: Promise<T[K]> }): Promise<T> {
  const results = await Promise.allSettled(work);
  const failures = results.filter((result) => result.status === 'rejected').map((result) => result.reason as unknown);
  const messages = [...new Set(failures.map(String))];
  if (messages.length === 1) throw failures[0];
  if (messages.length > 1) throw new AggregateError(failures, messages.join('\n'));
  return results.map((result) => (result as PromiseFulfilledResult<unknown>).value) as unknown as T;
}

/** For everything but PostgreSQL. */
const plainStopPolicy: StopPolicy = {
  signals: [
    ['SIGTERM', 5000],
    ['SIGKILL', 2000],
  ],
};

const stopPolicies: Readonly<Record<string, StopPolicy>> = {
  primary: postgresStopPolicy,
  replica: postgresStopPolicy,
  staging: postgresStopPolicy,
  scratch: postgresStopPolicy,
};

/**
 * Clients first, so that they do not complain about vanished servers; the primary last, since at its shutdown it waits for a replica
 * that is still connected.
 */
async function stopServers(servers: readonly RunningServer[]): Promise<void> {
  const living = servers.filter(isAlive);
  const isPart = (name: string): boolean => stackParts.some((part) => part === name);
  for (const group of [
    living.filter(({ name }) => !isPart(name)),
    living.filter(({ name }) => isPart(name) && name !== 'primary'),
    living.filter(({ name }) => name === 'primary'),
  ]) {
    await allSettled(group.map((server) => stopServer(server, stopPolicies[server.name] ?? plainStopPolicy)));
  }
}

/** Puts further servers under the stack's care: whoever stops the stack stops them first. */
export async function recordServers(directory: string, servers: readonly RunningServer[]): Promise<void> {
  await changeState(directory, (state) => ({ ...state, servers: [...state.servers.filter(isAlive), ...servers] }));
}

function seconds(since: number): string {
  return `${((Date.now() - since) / 1000).toFixed(1)} s`;
}
