import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stackRoot } from '../../scripts/stack/layout.ts';
import { type Stack, startStack } from '../../scripts/stack/stack.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { createDatabaseLike } from '../../src/postgres/catalog/database-properties.ts';
import { checkReplication, type ReplicationLimits } from '../../src/postgres/replication.ts';
import { freshDatabaseName } from '../../src/postgres/restore/restore.ts';
import { findStandbyBlockers, type StandbyAccess } from '../../src/postgres/standbys.ts';
import { swapDatabases, type SwapRequest } from '../../src/postgres/swap/swap.ts';
import { createService, execute, query, type TestService, withClient } from '../postgres-service.ts';
import { databaseUrl } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

// Servers of their own: a standby that stands still would be found by other files too.
const directory = join(stackRoot, 'test', randomBytes(4).toString('hex'));
let stack: Stack;
beforeAll(async () => {
  stack = await startStack({ directory, parts: ['replica'] });
});
afterAll(async () => {
  await stack.stop();
  await rm(directory, { recursive: true, force: true });
});

const signal = new AbortController().signal;
const check = (limits: Partial<ReplicationLimits> = {}) =>
  withConnection(stack.postgres.primary!.superuserUrl, { runId: 'lag', step: 'apply.replication', signal }, (client) =>
    checkReplication(
      client,
      {
        standbys: [{ name: stack.postgres.replica!.name, sessions: 'none' }],
        maximumLagBytes: 1_000_000_000,
        maximumLag: 5_000,
        ...limits,
      },
      signal,
    ),
  );

it('fails while the standby has stopped replaying, by bytes and by time, and recovers with it', async () => {
  const replica = stack.postgres.replica!.superuserUrl;
  await query(replica, 'SELECT pg_wal_replay_pause()');
  await execute(
    stack.postgres.primary!.superuserUrl,
    `CREATE TABLE replicated AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)`,
  );
  await expect(check({ maximumLagBytes: 1_000_000 })).rejects.toMatchObject({
    type: STEP_ERRORS.checkFailed,
    message: expect.stringMatching(/is \d+ bytes behind, 1000000 are allowed/),
  });
  await expect(check({ maximumLag: 100 })).rejects.toMatchObject({
    type: STEP_ERRORS.checkFailed,
    message: expect.stringMatching(/has not replayed in \d+ ms/),
  });
  await query(replica, 'SELECT pg_wal_replay_resume()');
  expect((await check()).standbys).toEqual([expect.objectContaining({ state: 'streaming' })]);
});

it('is patient with a standby that is about to catch up', async () => {
  const replica = stack.postgres.replica!.superuserUrl;
  await query(replica, 'SELECT pg_wal_replay_pause()');
  await execute(stack.postgres.primary!.superuserUrl, `INSERT INTO replicated VALUES (repeat('y', 1000))`);
  const checking = check({ maximumLagBytes: 10 });
  await query(replica, 'SELECT pg_wal_replay_resume()');
  expect((await checking).standbys).toHaveLength(1);
});

/** The same database, seen from the standby. */
const onReplica = (url: string): string => {
  const there = new URL(url);
  there.port = String(stack.postgres.replica!.port);
  return there.href;
};

const standbyOf = (service: TestService, more: Partial<StandbyAccess> = {}): StandbyAccess => ({
  name: stack.postgres.replica!.name,
  sessions: 'end',
  url: onReplica(service.administratorUrl),
  ...more,
});

/** Waits until the standby has replayed all that the primary has written. */
const caughtUp = async (): Promise<void> => {
  const [row] = await query<{ lsn: string }>(
    stack.postgres.primary!.superuserUrl,
    'SELECT pg_current_wal_flush_lsn()::text AS lsn',
  );
  await expect
    .poll(
      async () =>
        (
          await query<{ there: boolean }>(
            stack.postgres.replica!.superuserUrl,
            'SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS there',
            [row!.lsn],
          )
        )[0]!.there,
      { timeout: 10_000 },
    )
    .toBe(true);
};

describe('sessions on a standby', () => {
  async function restored(runId: string): Promise<{ service: TestService; request: SwapRequest }> {
    const service = await createService(stack.postgres.primary!);
    const fresh = freshDatabaseName(service.database, runId);
    await withClient(stack.postgres.primary!.superuserUrl, (client) =>
      createDatabaseLike(client, service.database, fresh),
    );
    await execute(
      databaseUrl(stack.postgres.primary!, fresh),
      `CREATE TABLE public.notes AS SELECT 'restored' AS body`,
      `GRANT SELECT ON public.notes TO ${service.roles.application}`,
    );
    await caughtUp();
    return {
      service,
      request: {
        url: service.administratorUrl,
        maintenanceDatabase: 'postgres',
        fresh,
        runId,
        service: 'whisper-transcriber',
        workflowId: 'migrate-whisper-transcriber',
        quarantine: 3_600_000,
        step: 'recovery.restore/swap',
        standbys: [standbyOf(service)],
        signal,
        progress: () => undefined,
      },
    };
  }

  async function reader(service: TestService): Promise<{ readonly client: Client; readonly gone: Promise<unknown> }> {
    const client = new Client({ connectionString: onReplica(service.applicationUrl) });
    client.on('error', () => undefined);
    const gone = new Promise((resolve) => void client.once('end', resolve));
    await client.connect();
    expect((await client.query('SELECT count(*)::int AS n FROM public.notes')).rows).toEqual([{ n: 2000 }]);
    return { client, gone };
  }

  it('would go on reading the old database, and are ended after the swap', async () => {
    const { service, request } = await restored('0190e001-1');
    const { client, gone } = await reader(service);
    const untouched = await swapDatabases({ ...request, standbys: [standbyOf(service, { sessions: 'none' })] });
    expect(untouched.standbySessions).toBe(0);
    await caughtUp();
    expect((await client.query('SELECT count(*)::int AS n FROM public.notes')).rows).toEqual([{ n: 2000 }]);

    const again = await swapDatabases(request);
    expect(again).toMatchObject({ keptAside: untouched.keptAside, standbySessions: 1, openItems: [] });
    await gone;
    expect(await query(onReplica(service.applicationUrl), 'SELECT body FROM public.notes')).toEqual([
      { body: 'restored' },
    ]);
    const old = onReplica(service.applicationUrl).replace(service.database, again.keptAside);
    await expect(query(old, 'SELECT 1')).rejects.toThrow(/not currently accepting connections/);
  });

  it('are ended in the middle of a query', async () => {
    const { service, request } = await restored('0190e002-1');
    const { client, gone } = await reader(service);
    client.query('SELECT pg_sleep(600)').catch(() => undefined);
    expect(await swapDatabases(request)).toMatchObject({ standbySessions: 1, openItems: [] });
    await gone;
  });

  it('are an open item while the standby does not replay, and only that is done again', async () => {
    const { service, request } = await restored('0190e003-1');
    await query(stack.postgres.replica!.superuserUrl, 'SELECT pg_wal_replay_pause()');
    let first: Awaited<ReturnType<typeof swapDatabases>>;
    try {
      first = await swapDatabases({ ...request, standbyLimit: 1_000 });
    } finally {
      await query(stack.postgres.replica!.superuserUrl, 'SELECT pg_wal_replay_resume()');
    }
    expect(first.openItems).toEqual([
      expect.stringMatching(
        new RegExp(
          `^standby "replica.*": sessions may go on reading the old database "${first.keptAside}" \\(it has not replayed the swap .*pg_terminate_backend`,
        ),
      ),
    ]);
    // The swap stands.
    expect(await query(service.applicationUrl, 'SELECT body FROM public.notes')).toEqual([{ body: 'restored' }]);
    const second = await swapDatabases(request);
    expect(second).toMatchObject({ keptAside: first.keptAside, openItems: [] });
  });

  it('are an open item when the standby is gone after the swap', async () => {
    const { service, request } = await restored('0190e004-1');
    const swapped = await swapDatabases({ ...request, standbys: [standbyOf(service, { sessions: 'none' })] });
    const nobody = new URL(service.administratorUrl);
    nobody.port = '1';
    const again = await swapDatabases({
      ...request,
      standbys: [standbyOf(service, { url: nobody.href }), standbyOf(service)],
    });
    expect(again.keptAside).toBe(swapped.keptAside);
    expect(again.openItems).toEqual([expect.stringContaining('cannot be reached')]);
  });
});

describe('what would keep sessions on standbys from being ended', () => {
  const find = (service: TestService, standbys: readonly StandbyAccess[]): Promise<string[]> => {
    const session = { runId: 'standbys', step: 'preconditions.access', signal };
    return withConnection(service.administratorUrl, { ...session, database: 'postgres' }, (client) =>
      findStandbyBlockers(client, {
        database: service.database,
        maintenanceDatabase: 'postgres',
        standbys,
        session,
      }),
    );
  };

  it('is named for each standby', async () => {
    const service = await createService(stack.postgres.primary!);
    await caughtUp();
    expect(await find(service, [standbyOf(service)])).toEqual([]);
    expect(await find(service, [standbyOf(service, { sessions: 'none', url: undefined })])).toEqual([]);
    expect(await find(service, [standbyOf(service, { url: undefined })])).toEqual([
      expect.stringMatching(/give databases\.production\.standbys\[\]\.administrator, or say sessions: none/),
    ]);
    expect(await find(service, [])).toEqual([
      expect.stringMatching(new RegExp(`^standby "${stack.postgres.replica!.name}" .*is not named in the profile`)),
    ]);
    expect(await find(service, [standbyOf(service, { url: service.administratorUrl })])).toEqual([
      expect.stringContaining('not in recovery'),
    ]);
    const nobody = new URL(service.administratorUrl);
    nobody.port = '1';
    expect(await find(service, [standbyOf(service, { url: nobody.href })])).toEqual([
      expect.stringContaining('cannot be reached'),
    ]);
  });

  it('includes missing rights and sessions of superusers there', async () => {
    const service = await createService(stack.postgres.primary!);
    await execute(
      stack.postgres.primary!.superuserUrl,
      `REVOKE pg_signal_backend, pg_monitor FROM ${service.roles.administrator}`,
    );
    await caughtUp();
    const superuser = new Client({ connectionString: onReplica(service.superuserUrl) });
    superuser.on('error', () => undefined);
    await superuser.connect();
    const told = (await find(service, [standbyOf(service)])).join('\n');
    expect(told).toContain('which standbys stream from production cannot be seen');
    expect(told).toContain('lacks pg_signal_backend');
    expect(told).toContain('lacks pg_monitor');
    expect(told).toContain(`a superuser is connected to database "${service.database}" there`);
    await superuser.end();
  });

  it('does not include receivers that are no servers', async () => {
    const service = await createService(stack.postgres.primary!);
    await caughtUp();
    const folder = await temporaryDirectory('receivewal');
    const url = new URL(stack.postgres.primary!.superuserUrl);
    const receiver = spawn(
      join(stack.postgres.primary!.binDirectory, 'pg_receivewal'),
      ['--directory', folder, '--no-loop', '--no-password', '--status-interval=1'],
      {
        env: {
          PATH: process.env['PATH'],
          PGHOST: url.hostname,
          PGPORT: url.port,
          PGUSER: url.username,
          PGPASSWORD: decodeURIComponent(url.password),
        },
        stdio: 'ignore',
      },
    );
    try {
      await expect
        .poll(
          () =>
            query(
              stack.postgres.primary!.superuserUrl,
              `SELECT FROM pg_stat_replication WHERE application_name = 'pg_receivewal' AND state = 'streaming' AND reply_time IS NOT NULL`,
            ),
          { timeout: 15_000 },
        )
        .toHaveLength(1);
      expect(await find(service, [standbyOf(service)])).toEqual([]);
    } finally {
      receiver.kill();
      await once(receiver, 'exit');
    }
  });
});
