import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { stackRoot } from '../../scripts/stack/layout.ts';
import { type Stack, startStack } from '../../scripts/stack/stack.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { checkReplication, type ReplicationLimits } from '../../src/postgres/replication.ts';
import { execute, query } from '../postgres-service.ts';

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
      { standbys: [stack.postgres.replica!.name], maximumLagBytes: 1_000_000_000, maximumLag: 5_000, ...limits },
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
