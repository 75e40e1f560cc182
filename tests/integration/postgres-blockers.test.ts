import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { stackRoot } from '../../scripts/stack/layout.ts';
import { type Stack, startStack } from '../../scripts/stack/stack.ts';
import { findSwapBlockers } from '../../src/postgres/blockers.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { fenceObstacles } from '../../src/postgres/fence-obstacles.ts';
import { oldTransactions } from '../../src/postgres/sessions.ts';
import { execute, withClient } from '../postgres-service.ts';

// A server of its own, since prepared transactions and logical slots have to be switched on.
const directory = join(stackRoot, 'test', randomBytes(4).toString('hex'));
let stack: Stack;
beforeAll(async () => {
  stack = await startStack({ directory, parts: ['scratch'] });
  await execute(
    stack.postgres.scratch!.superuserUrl,
    'ALTER SYSTEM SET max_prepared_transactions = 5',
    'ALTER SYSTEM SET wal_level = logical',
  );
  await stack.stop();
  stack = await startStack({ directory, parts: ['scratch'] });
});
afterAll(async () => {
  await stack.stop();
  await rm(directory, { recursive: true, force: true });
});

it('names prepared transactions, logical slots and subscriptions, which a swap would leave behind', async () => {
  const { superuserUrl } = stack.postgres.scratch!;
  const session = { runId: 'blockers', step: 'test', signal: new AbortController().signal };
  await execute(superuserUrl, 'CREATE DATABASE service');
  const service = new URL(superuserUrl);
  service.pathname = '/service';
  const find = () => withConnection(superuserUrl, session, (client) => findSwapBlockers(client, 'service'));
  expect(await find()).toEqual([]);

  await execute(
    service.href,
    `SELECT pg_create_logical_replication_slot('audit_feed', 'pgoutput')`,
    `CREATE SUBSCRIPTION catalogue CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, slot_name = NONE)`,
  );
  await withClient(service.href, async (client) => {
    await client.query('BEGIN');
    await client.query('CREATE TABLE half_done (a int)');
    await client.query(`PREPARE TRANSACTION 'order 7'`);
  });
  expect(await find()).toEqual([
    expect.stringMatching(/^prepared transaction 'order 7' of role "postgres"/),
    expect.stringMatching(/^logical replication slot "audit_feed" \(pgoutput, not in use\)/),
    expect.stringMatching(/^subscription "catalogue"/),
  ]);
  // A subscription that is disabled writes nothing; a prepared transaction could be committed behind a fence.
  const fence = { database: 'service', roles: [] };
  expect(await withConnection(superuserUrl, session, (client) => fenceObstacles(client, fence))).toEqual([
    expect.stringMatching(/^prepared transaction 'order 7' of role "postgres" could be committed behind the fence/),
  ]);
  const old = await withConnection(service.href, session, (client) => oldTransactions(client, 0));
  expect(old.map(({ application }) => application)).toContain('prepared transaction order 7');
});
