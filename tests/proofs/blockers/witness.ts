/** What is seen of an upgrade from outside: when it began to wait, what people are shown, how long readers wait. */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client } from 'pg';
import type { Session } from '../../../scripts/scenarios/session.ts';
import { root } from '../../../scripts/stack/layout.ts';

const run = promisify(execFile);

/** `runbook status`, as a person runs it: as a program of its own. */
export async function runbookStatus({ temporal, profile }: Session): Promise<string> {
  const { stdout } = await run(process.execPath, [path.join(root, 'src', 'cli.ts'), 'status', profile.service], {
    env: { ...process.env, TEMPORAL_ADDRESS: temporal.address, TEMPORAL_NAMESPACE: temporal.namespace },
  });
  return stdout;
}

/** What the migrator waits for: a lock on a table, or the end of older transactions. As in pg_locks. */
export type Awaited = 'relation' | 'virtualxid';

/** Milliseconds since the epoch at which the migrator began to wait, by the server; undefined while it does not. */
export async function waitingSince(client: Client, awaited: Awaited): Promise<number | undefined> {
  const { rows } = await client.query<{ waited: number }>(
    `SELECT (extract(epoch FROM clock_timestamp() - l.waitstart) * 1000)::float8 AS "waited"
     FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE a.usename = 'whisper_migrator' AND NOT l.granted AND l.waitstart IS NOT NULL AND l.locktype = $1`,
    [awaited],
  );
  const [first] = rows;
  return first && Date.now() - first.waited;
}

export interface Readings {
  readonly reads: number;
  /** Milliseconds, of those that have come back. */
  readonly longest: number;
}

export interface ReaderLoop {
  readonly soFar: () => Readings;
  readonly stop: () => Promise<Readings>;
}

/** Reads one row of a table again and again, as the application does, and remembers the longest wait. */
export async function startReader(url: string, table: string): Promise<ReaderLoop> {
  const client = new Client({ connectionString: url, application_name: `reader of ${table}` });
  client.on('error', () => undefined);
  await client.connect();
  // Whatever keeps it waiting is to be measured, not cut short.
  await client.query('SET lock_timeout = 0');
  const stopped = new AbortController();
  let reads = 0;
  let longest = 0;
  const reading = (async () => {
    while (!stopped.signal.aborted) {
      const began = performance.now();
      await client.query(`SELECT * FROM public.${client.escapeIdentifier(table)} LIMIT 1`);
      longest = Math.max(longest, performance.now() - began);
      reads += 1;
      await delay(5);
    }
  })();
  reading.catch(() => undefined);
  const soFar = (): Readings => ({ reads, longest: Math.round(longest) });
  return {
    soFar,
    stop: async () => {
      stopped.abort();
      try {
        await reading;
      } finally {
        await client.end().catch(() => undefined);
      }
      return soFar();
    },
  };
}

export interface OpenTransaction {
  readonly pid: number;
  readonly end: () => Promise<void>;
}

/** A session of the application that has done something in a transaction and then nothing more. */
export async function openTransaction(url: string, application: string, statement: string): Promise<OpenTransaction> {
  const client = new Client({ connectionString: url, application_name: application });
  client.on('error', () => undefined);
  await client.connect();
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await client.query(statement);
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  return { pid: rows[0]?.pid ?? 0, end: () => client.end().catch(() => undefined) };
}

export interface HeldLock {
  /** @returns the longest time, in milliseconds, that it was seen to be held */
  readonly stop: () => Promise<number>;
}

/** How long the migration keeps readers of a table out by its own work, once it has its lock. */
export async function watchHeld(url: string, table: string): Promise<HeldLock> {
  const client = new Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  const stopped = new AbortController();
  let longest = 0;
  const watching = (async () => {
    let since: number | undefined;
    let last = Date.now();
    while (!stopped.signal.aborted) {
      const { rowCount } = await client.query(
        `SELECT FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE a.usename = 'whisper_migrator' AND l.relation = to_regclass($1) AND l.granted
           AND l.mode = 'AccessExclusiveLock'`,
        [`public.${table}`],
      );
      // It may have begun right after the look before.
      if (rowCount === 0) since = undefined;
      else since ??= last;
      last = Date.now();
      if (since !== undefined) longest = Math.max(longest, last - since);
      await delay(10);
    }
  })();
  watching.catch(() => undefined);
  return {
    stop: async () => {
      stopped.abort();
      try {
        await watching;
      } finally {
        await client.end().catch(() => undefined);
      }
      return longest;
    },
  };
}
