/** Production is replaced again and again under clients that write and a client that reads on the standby. */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { type Client, Client as PostgresClient } from 'pg';
import type { ProofCase } from '../../scripts/proof.ts';
import { runCommand } from '../../scripts/stack/command.ts';
import type { PostgresServer } from '../../scripts/stack/connection.ts';
import { stackRoot } from '../../scripts/stack/layout.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { startStack } from '../../scripts/stack/stack.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { libpqEnvironment, parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { createDatabaseLike } from '../../src/postgres/catalog/database-properties.ts';
import { type FenceRequest, lowerFence, raiseFence, readFence } from '../../src/postgres/fence/fence.ts';
import { sqlName } from '../../src/postgres/identifier.ts';
import { freshDatabaseName } from '../../src/postgres/restore/restore.ts';
import { type SwapResult, swapDatabases } from '../../src/postgres/swap/swap.ts';
import { startWriter, type Write, type Writer, type WriterLog } from '../fixtures/reconnecting-writer.ts';

export const sentence =
  'swap under writing clients: 20 of 20, under 1 s without a write, standbys emptied, nothing lost behind the fence';

const SWAPS = 20;
const WRITERS = 2;
/** Milliseconds. */
const LONGEST = 1_000;

const DATABASE = 'service';
const ROLES = ['owner', 'application', 'migrator', 'administrator'] as const;
type Role = (typeof ROLES)[number];

interface World {
  readonly directory: string;
  readonly primary: PostgresServer;
  readonly standby: PostgresServer & { readonly name: string };
  readonly url: (role: Role, server?: PostgresServer, database?: string) => string;
}

const signal = new AbortController().signal;

export const run = async (say: (line: string) => void): Promise<readonly ProofCase[]> => {
  const directory = join(stackRoot, `proof-swap-${randomBytes(4).toString('hex')}`);
  const stack = await startStack({ directory, parts: ['replica'], onProgress: say });
  try {
    const { primary, replica } = stack.postgres;
    if (!primary || !replica) throw new Error('the proof needs primary and replica');
    const world = await createWorld(directory, primary, replica);
    return [...(await backAndForth(world, say)), ...(await behindTheFence(world, say))];
  } finally {
    await stack.stop();
    await rm(directory, { recursive: true, force: true });
  }
};

/** A service with the roles the runbook works with: the administrator is no superuser. */
async function createWorld(directory: string, primary: PostgresServer, standby: World['standby']): Promise<World> {
  const passwords = Object.fromEntries(ROLES.map((role) => [role, randomBytes(12).toString('hex')]));
  const world: World = {
    directory,
    primary,
    standby,
    url: (role, server = primary, database = DATABASE) => {
      const url = new URL(server.superuserUrl);
      url.username = role;
      url.password = passwords[role]!;
      url.pathname = `/${encodeURIComponent(database)}`;
      return url.href;
    },
  };
  await withClient(primary.superuserUrl, async (client) => {
    for (const role of ROLES) {
      const attributes = role === 'administrator' ? 'CREATEDB CREATEROLE' : '';
      await client.query(`CREATE ROLE ${role} LOGIN PASSWORD '${passwords[role]}' ${attributes}`);
    }
    await client.query('GRANT owner TO migrator, administrator');
    await client.query('GRANT pg_monitor, pg_signal_backend, pg_read_all_data TO administrator');
    await client.query('GRANT application, migrator TO administrator WITH ADMIN TRUE, INHERIT FALSE, SET FALSE');
    await client.query(`ALTER ROLE migrator SET role = 'owner'`);
    await client.query(`CREATE DATABASE ${DATABASE} OWNER owner`);
    await client.query(`REVOKE ALL ON DATABASE ${DATABASE} FROM PUBLIC`);
    await client.query(`GRANT CONNECT ON DATABASE ${DATABASE} TO application, migrator`);
  });
  await withClient(world.url('owner'), async (client) => {
    await client.query('CREATE TABLE public.writes (id text PRIMARY KEY)');
    await client.query('GRANT USAGE ON SCHEMA public TO application');
    await client.query('GRANT SELECT, INSERT ON public.writes TO application');
  });
  return world;
}

// ---- twenty swaps -----------------------------------------------------------------------------------------------------

/** Two databases take production's name in turn, so that every swap is one of a database that is in use. */
async function backAndForth(world: World, say: (line: string) => void): Promise<ProofCase[]> {
  let other = await restoreInto(world, await backUp(world), runIdOf(1));
  const writers = Array.from({ length: WRITERS }, (_, index) => startWriter(world.url('application'), `w${index + 1}`));
  const reader = startReader(world.url('application', world.standby));
  const swaps: { readonly began: number; readonly ended: number; readonly swapped: SwapResult | Error }[] = [];
  try {
    for (let number = 1; number <= SWAPS; number += 1) {
      await Promise.all([reader.reads(), writesGoOn(writers)]);
      const began = now();
      const swapped = await swap(world, other, runIdOf(number)).catch((error: unknown) =>
        error instanceof Error ? error : new Error(String(error)),
      );
      swaps.push({ began, ended: now(), swapped });
      say(`swap ${number}: ${swapped instanceof Error ? swapped.message : `${swapped.shutOut} ms shut out`}`);
      if (swapped instanceof Error) break;
      await writesGoOn(writers);
      other = freshDatabaseName(DATABASE, runIdOf(number + 1));
      await openAgain(world, swapped.keptAside, other);
    }
    await writesGoOn(writers);
  } finally {
    await reader.stop();
  }
  const logs = await Promise.all(writers.map((writer) => writer.stop()));
  const cases = swaps.map(({ began, ended, swapped }, index): ProofCase => {
    const name = `swap ${index + 1}`;
    if (swapped instanceof Error) return { name, passed: false, detail: swapped.message };
    const gap = Math.max(...logs.map(({ committed }) => longestGap(committed, began, ended)));
    const { shutOut, endedSessions, standbySessions, openItems } = swapped;
    return {
      name,
      passed: gap < LONGEST && standbySessions > 0 && openItems.length === 0,
      detail: `${Math.round(gap)} ms without a write, ${shutOut} ms shut out, ${endedSessions} sessions ended, ${standbySessions} on the standby${openItems.map((item) => `; ${item}`).join('')}`,
    };
  });
  const present = new Set([...(await idsIn(world, DATABASE)), ...(await idsIn(world, other))]);
  const committed = logs.flatMap((log) => log.committed);
  const missing = committed.filter(({ id }) => !present.has(id));
  const gaps = swaps.map(({ began, ended }) => Math.max(...logs.map((log) => longestGap(log.committed, began, ended))));
  return [
    ...cases,
    {
      name: `${SWAPS} swaps of ${SWAPS}`,
      passed: swaps.length === SWAPS && cases.every(({ passed }) => passed),
      detail: `longest time without a write ${Math.round(Math.max(...gaps))} ms, median ${Math.round(median(gaps))} ms`,
    },
    {
      name: 'every write is in one of the two',
      passed: committed.length > 0 && missing.length === 0,
      detail: `${committed.length} reported as committed, ${missing.length} missing`,
    },
  ];
}

/** The database put aside becomes the restored one of the next swap. */
async function openAgain({ primary, standby }: World, keptAside: string, fresh: string): Promise<void> {
  await withClient(primary.superuserUrl, async (client) => {
    await client.query(`ALTER DATABASE ${sqlName(keptAside)} RENAME TO ${sqlName(fresh)}`);
    await client.query(`ALTER DATABASE ${sqlName(fresh)} ALLOW_CONNECTIONS true`);
    await client.query(`COMMENT ON DATABASE ${sqlName(fresh)} IS NULL`);
  });
  await replayed(primary, standby);
}

const swap = ({ url, standby }: World, fresh: string, runId: string): Promise<SwapResult> =>
  swapDatabases({
    url: url('administrator'),
    maintenanceDatabase: 'postgres',
    fresh,
    runId,
    service: DATABASE,
    workflowId: `migrate-${DATABASE}`,
    quarantine: 3_600_000,
    step: 'recovery.restore/swap',
    standbys: [{ name: standby.name, sessions: 'end', url: url('administrator', standby) }],
    signal,
    progress: () => undefined,
  });

// ---- the fence --------------------------------------------------------------------------------------------------------

/** Fence, backup, a migration that destroys, restore, swap, fence down: what was reported as committed is there. */
async function behindTheFence(world: World, say: (line: string) => void): Promise<ProofCase[]> {
  const writers = Array.from({ length: WRITERS }, (_, index) => startWriter(world.url('application'), `f${index + 1}`));
  const fence: FenceRequest = {
    database: DATABASE,
    migratorRole: 'migrator',
    applicationRoles: ['application'],
    signal,
    progress: () => undefined,
  };
  const maintained = <T>(work: (client: Client) => Promise<T>): Promise<T> =>
    withConnection(
      world.url('administrator', world.primary, 'postgres'),
      { runId: runIdOf(50), step: 'fence', signal },
      work,
    );
  await writesGoOn(writers);
  const before = await maintained((client) => readFence(client, fence));
  await maintained((client) => raiseFence(client, fence));
  const raised = now();
  say('the fence is up');
  await refusalsGoOn(writers);
  const fresh = await restoreInto(world, await backUp(world), runIdOf(50));
  await withClient(world.url('migrator'), (client) => client.query('DELETE FROM public.writes'));
  const emptied = (await idsIn(world, DATABASE)).size;
  const swapped = await swap(world, fresh, runIdOf(50));
  say(`swapped, ${swapped.shutOut} ms shut out`);
  await refusalsGoOn(writers);
  const lowered = now();
  await maintained((client) => lowerFence(client, before, fence));
  await writesGoOn(writers);
  const logs = await Promise.all(writers.map((writer) => writer.stop()));
  const committed = logs.flatMap((log) => log.committed);
  const behind = committed.filter(({ at }) => at > raised && at < lowered);
  const earlier = committed.filter(({ at }) => at <= raised);
  const present = await idsIn(world, DATABASE);
  const missing = committed.filter(({ id }) => !present.has(id));
  return [
    {
      name: 'the fence refuses every write',
      passed: behind.length === 0 && logs.every(({ refused }) => refused.length > 0),
      detail: `${logs.reduce((sum, { refused }) => sum + refused.length, 0)} refused, ${behind.length} reported as committed`,
    },
    {
      name: 'nothing reported as committed is missing',
      passed: emptied === 0 && earlier.length > 0 && committed.length > earlier.length && missing.length === 0,
      detail: `${earlier.length} before the fence, ${committed.length - earlier.length} after it, ${missing.length} missing in the production that was swapped in`,
    },
  ];
}

// ---- parts ------------------------------------------------------------------------------------------------------------

/** Run ids are told apart by their ends. */
const runIdOf = (number: number): string => `0190f000-0000-7000-8000-${String(number).padStart(12, '0')}`;

const now = (): number => performance.timeOrigin + performance.now();

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

/** Longest time between two reported writes of which a part lies between these moments. */
function longestGap(committed: readonly Write[], from: number, to: number): number {
  let longest = 0;
  for (const [index, { at }] of committed.entries()) {
    const next = committed[index + 1]?.at ?? Number.POSITIVE_INFINITY;
    if (next >= from && at <= to) longest = Math.max(longest, next - at);
  }
  return longest;
}

/** Waits until every writer has had further writes of its own reported as committed. */
const writesGoOn = (writers: readonly Writer[]): Promise<void> =>
  goOn(writers, ({ committed }) => committed.length, 20);
const refusalsGoOn = (writers: readonly Writer[]): Promise<void> => goOn(writers, ({ refused }) => refused.length, 3);

async function goOn(writers: readonly Writer[], count: (log: WriterLog) => number, more: number): Promise<void> {
  for (const writer of writers) {
    const goal = count(await writer.log()) + more;
    const deadline = Date.now() + 30_000;
    while (count(await writer.log()) < goal) {
      if (Date.now() > deadline) throw new Error(`writer ${writer.name} stands still`);
      await pause(20);
    }
  }
}

/** Keeps one session on the standby, and opens another when it is lost. */
function startReader(url: string): { readonly reads: () => Promise<void>; readonly stop: () => Promise<void> } {
  let running = true;
  let reading = 0;
  const work = async (): Promise<void> => {
    while (running) {
      const client = new PostgresClient({ connectionString: url });
      let lost = false;
      client.on('error', () => {
        lost = true;
      });
      try {
        await client.connect();
        while (running && !lost) {
          await client.query('SELECT count(*) FROM public.writes');
          reading += 1;
          await pause(10);
        }
      } catch {
        await pause(10);
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  };
  const done = work();
  return {
    reads: async () => {
      const goal = reading + 2;
      const deadline = Date.now() + 30_000;
      while (reading < goal) {
        if (Date.now() > deadline) throw new Error('the reader on the standby stands still');
        await pause(10);
      }
    },
    stop: async () => {
      running = false;
      await done;
    },
  };
}

async function idsIn({ primary }: World, database: string): Promise<Set<string>> {
  const url = new URL(primary.superuserUrl);
  url.pathname = `/${database}`;
  return withClient(url.href, async (client) => {
    const { rows } = await client.query<{ id: string }>('SELECT id FROM public.writes');
    return new Set(rows.map(({ id }) => id));
  });
}

/** A dump in a file: the stored backup is other proofs' matter. */
async function backUp(world: World): Promise<string> {
  const file = join(world.directory, `${randomBytes(4).toString('hex')}.dump`);
  await program(world, 'pg_dump', DATABASE, ['--format=custom', `--file=${file}`]);
  return file;
}

/** @returns the name of the database */
async function restoreInto(world: World, dump: string, runId: string): Promise<string> {
  const { primary, standby, url } = world;
  const fresh = freshDatabaseName(DATABASE, runId);
  await withClient(url('administrator', primary, 'postgres'), (client) => createDatabaseLike(client, DATABASE, fresh));
  await program(world, 'pg_restore', fresh, ['--exit-on-error', `--dbname=${fresh}`, dump]);
  await replayed(primary, standby);
  return fresh;
}

const program = ({ primary, url, directory }: World, name: string, database: string, words: readonly string[]) =>
  runCommand(join(primary.binDirectory, name), [...words, '--no-password'], {
    directory,
    environment: libpqEnvironment(parseConnectionUrl(url('administrator', primary, database))),
  });

/** Waits until the standby has replayed what the primary has written. */
async function replayed(primary: PostgresServer, standby: PostgresServer): Promise<void> {
  const lsn = await withClient(primary.superuserUrl, async (client) => {
    const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
    return rows[0]!.lsn;
  });
  await withClient(standby.superuserUrl, async (client) => {
    const deadline = Date.now() + 30_000;
    for (;;) {
      const { rows } = await client.query<{ there: boolean }>(
        'SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS there',
        [lsn],
      );
      if (rows[0]?.there === true) return;
      if (Date.now() > deadline) throw new Error('the standby stands still');
      await pause(20);
    }
  });
}
