import type { Client } from 'pg';
import { describe, expect, it } from 'vitest';
import {
  dropIndexes,
  dropInvalidIndexes,
  dropPartitionedIndex,
  listInvalidIndexes,
} from '../../src/postgres/catalog/leftover-indexes.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { createService, execute, query, type TestService, withClient } from '../postgres-service.ts';
import { useStack } from '../stack.ts';

const server = useStack().postgres.primary;
const options = () => ({ runId: 'run', step: 'test', signal: new AbortController().signal });

const invalidIn = ({ administratorUrl }: TestService) =>
  withConnection(administratorUrl, options(), async (client) =>
    (await listInvalidIndexes(client)).map(({ name }) => name),
  );

const drop = ({ administratorUrl }: TestService) =>
  withConnection(administratorUrl, options(), (client) => dropInvalidIndexes(client, [], async () => undefined));

/** Runs a statement while another session holds something, until it waits for that, and ends its session there. */
async function interrupted(service: TestService, statement: string, held: readonly string[]): Promise<void> {
  await withClient(service.superuserUrl, async (holder) => {
    for (const one of held) await holder.query(one);
    const holderPid = await pidOf(holder);
    await withClient(service.migratorUrl, async (builder) => {
      await builder.query('SET lock_timeout = 0');
      const builderPid = await pidOf(builder);
      const building = builder.query(statement).then(
        () => 'went through',
        () => 'was ended',
      );
      // For the holder and nobody else: on its way there it may wait for whoever has a snapshot, this question too.
      const waits = () =>
        query<{ waits: boolean }>(
          service.superuserUrl,
          `SELECT $1 = ANY (pg_blocking_pids($2)) AND EXISTS (SELECT FROM pg_index WHERE NOT indisvalid) AS waits`,
          [holderPid, builderPid],
        );
      await expect.poll(waits, { timeout: 20_000 }).toEqual([{ waits: true }]);
      await query(service.superuserUrl, 'SELECT pg_terminate_backend($1, 5000)', [builderPid]);
      expect(await building).toBe('was ended');
    });
    await holder.query('ROLLBACK');
  });
}

const pidOf = async (client: Client): Promise<number> =>
  (await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]!.pid;

const OLD_SNAPSHOT = ['BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT count(*) FROM pg_class'];
/** Without a snapshot, but with a lock on the table: whoever wants to drop the old index waits for it. */
const READER = ['BEGIN', 'SELECT count(*) FROM public.users'];

describe('what an interrupted REINDEX CONCURRENTLY leaves', () => {
  it('is dropped before the swap: the new index', async () => {
    const service = await createService(server);
    await interrupted(service, 'REINDEX INDEX CONCURRENTLY public.users_pkey', OLD_SNAPSHOT);
    expect(await invalidIn(service)).toEqual(['public.users_pkey_ccnew']);
    expect(await drop(service)).toEqual({ dropped: ['public.users_pkey_ccnew'], kept: [] });
    expect(await invalidIn(service)).toEqual([]);
  });

  it('is dropped after the swap: the old index; the constraint has the new one', async () => {
    const service = await createService(server);
    await interrupted(service, 'REINDEX INDEX CONCURRENTLY public.users_pkey', READER);
    expect(await invalidIn(service)).toEqual(['public.users_pkey_ccold']);
    expect((await drop(service)).dropped).toEqual(['public.users_pkey_ccold']);
    const duplicate = execute(service.migratorUrl, `INSERT INTO public.users (id, name) VALUES (1, 'again')`);
    await expect(duplicate).rejects.toThrow(/users_pkey/);
  });

  it('is dropped from the hidden table of large values too', async () => {
    const service = await createService(server);
    await interrupted(service, 'REINDEX TABLE CONCURRENTLY public.notes', OLD_SNAPSHOT);
    const left = await invalidIn(service);
    expect(left.some((name) => name.startsWith('pg_toast.'))).toBe(true);
    expect(await drop(service)).toEqual({ dropped: left, kept: [] });
    expect(await invalidIn(service)).toEqual([]);
  });
});

describe('an index that became a constraint', () => {
  it('is none to be dropped', async () => {
    const service = await createService(server);
    await execute(
      service.migratorUrl,
      'CREATE UNIQUE INDEX CONCURRENTLY users_id_name ON public.users (id, name)',
      'ALTER TABLE public.users ADD CONSTRAINT users_id_name UNIQUE USING INDEX users_id_name',
    );
    const result = await withConnection(service.administratorUrl, options(), (client) =>
      dropIndexes(client, ['public.users_id_name'], async () => undefined),
    );
    expect(result).toEqual({ dropped: [], kept: [] });
  });
});

describe('an index of a partitioned table', () => {
  async function partitioned(): Promise<TestService> {
    const service = await createService(server);
    await execute(
      service.migratorUrl,
      'CREATE TABLE public.events (id bigint, at date) PARTITION BY RANGE (at)',
      `CREATE TABLE public.events_1 PARTITION OF public.events FOR VALUES FROM ('2026-01-01') TO ('2026-07-01')`,
      `CREATE TABLE public.events_2 PARTITION OF public.events FOR VALUES FROM ('2026-07-01') TO ('2027-01-01')`,
      'CREATE INDEX events_1_older ON public.events_1 (id)',
      'CREATE INDEX events_id ON ONLY public.events (id)',
    );
    return service;
  }
  const dropIt = ({ administratorUrl }: TestService, before: readonly string[]) =>
    withConnection(administratorUrl, options(), (client) =>
      dropPartitionedIndex(client, 'public.events_id', {
        before: new Set(before),
        lockTimeout: 200,
        beforeDrop: async () => undefined,
      }),
    );

  it('that lacks partitions is left to whoever knows whether it is meant so', async () => {
    const service = await partitioned();
    expect(await drop(service)).toEqual({
      dropped: [],
      kept: [{ name: 'public.events_id', why: 'index of a partitioned table: lacks indexes on partitions' }],
    });
  });

  it('goes, with what was attached to it', async () => {
    const service = await partitioned();
    await execute(
      service.migratorUrl,
      'CREATE INDEX CONCURRENTLY events_1_id ON public.events_1 (id)',
      'ALTER INDEX public.events_id ATTACH PARTITION public.events_1_id',
    );
    expect(await dropIt(service, ['public.events_1_older'])).toBeUndefined();
    const left = await query<{ name: string }>(
      service.superuserUrl,
      `SELECT relname AS name FROM pg_class WHERE relkind IN ('i', 'I') AND relname LIKE 'events%'`,
    );
    expect(left.map(({ name }) => name)).toEqual(['events_1_older']);
  });

  it('stays where an index that was there before is attached to it', async () => {
    const service = await partitioned();
    await execute(service.migratorUrl, 'ALTER INDEX public.events_id ATTACH PARTITION public.events_1_older');
    expect(await dropIt(service, ['public.events_1_older'])).toMatch(/events_1_older, which was there before/);
    expect(await invalidIn(service)).toEqual(['public.events_id']);
  });

  it('does not stand in the way of the application for longer than the lock time-out, and says that it is still there', async () => {
    const service = await partitioned();
    await withClient(service.superuserUrl, async (reader) => {
      await reader.query('BEGIN');
      await reader.query('SELECT count(*) FROM public.events');
      expect(await dropIt(service, [])).toMatch(/SQLSTATE 55P03/);
    });
    expect(await dropIt(service, [])).toBeUndefined();
  });
});
