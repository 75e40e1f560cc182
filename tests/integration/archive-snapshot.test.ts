import { afterEach, beforeEach, expect, it } from 'vitest';
import { type OpenConnection, openConnection } from '../../src/postgres/connection.ts';
import { exportSnapshot } from '../../src/archive/snapshot.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { createDatabase, useStack } from '../stack.ts';
import { never } from './archive-source.ts';

const stack = useStack();
const database = await createDatabase(stack.postgres.primary, 'snapshot');
let exporting: OpenConnection;

beforeEach(async () => {
  await withClient(database.url, (client) =>
    client.query('DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT generate_series(1, 100) AS n'),
  );
  exporting = await openConnection(database.url, { runId: 'snapshot-test', step: 'backup.capture', signal: never() });
});
afterEach(() => exporting.end());

it('is seen by a session that imports it, whatever was written since', async () => {
  const snapshot = await exportSnapshot(exporting.client, never());
  expect(snapshot.lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
  await withClient(database.url, async (client) => {
    await client.query('DELETE FROM kept WHERE n > 10');
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await client.query(`SET TRANSACTION SNAPSHOT ${client.escapeLiteral(snapshot.id)}`);
    const { rows } = await client.query('SELECT count(*)::int AS n FROM kept');
    expect(rows).toEqual([{ n: 100 }]);
    await client.query('COMMIT');
  });
});

it('keeps tables from being emptied under it: TRUNCATE waits', async () => {
  await exportSnapshot(exporting.client, never());
  await withClient(database.url, async (client) => {
    await client.query(`SET lock_timeout = '300ms'`);
    await expect(client.query('TRUNCATE kept')).rejects.toMatchObject({ code: '55P03' });
    await expect(client.query('ALTER TABLE kept ADD COLUMN more int')).rejects.toMatchObject({ code: '55P03' });
  });
});

it('waits for a table that is being emptied and then shows it empty', async () => {
  await withClient(database.url, async (client) => {
    await client.query('BEGIN; TRUNCATE kept');
    const taking = exportSnapshot(exporting.client, never());
    const { rows: waiting } = await pollUntilWaiting(client, exporting.pid);
    expect(waiting).toHaveLength(1);
    await client.query('COMMIT');
    await taking;
    const { rows } = await exporting.client.query('SELECT count(*)::int AS n FROM public.kept');
    expect(rows).toEqual([{ n: 0 }]);
  });
});

it('lets others pass while it waits, and in the end names who is in the way', async () => {
  await withClient(database.url, async (client) => {
    await client.query('CREATE TABLE IF NOT EXISTS another (n int)');
    await client.query('BEGIN; LOCK TABLE kept');
    const patience = { atOnce: 200, inAll: 4_000 };
    const taking = exportSnapshot(exporting.client, never(), patience).catch((error: unknown) => error);
    await withClient(database.url, async (other) => {
      await other.query(`SET lock_timeout = '3s'`);
      await other.query('ALTER TABLE another ADD COLUMN IF NOT EXISTS more int');
    });
    expect(await taking).toMatchObject({
      type: 'OutsideUnavailable',
      message: expect.stringMatching(/locked by somebody who changes it: (?:public\.)?kept \(\w+, pid \d+\)/),
    });
    await client.query('COMMIT; DROP TABLE another');
    await exportSnapshot(exporting.client, never(), patience);
    const { rows } = await exporting.client.query<{ lock_timeout: string }>('SHOW lock_timeout');
    expect(rows[0]!.lock_timeout).not.toBe('200ms');
  });
});

it('starts over when a table was dropped while it waited', async () => {
  await withClient(database.url, async (client) => {
    await client.query('BEGIN; DROP TABLE kept; CREATE TABLE came_instead (n int)');
    const taking = exportSnapshot(exporting.client, never());
    await pollUntilWaiting(client, exporting.pid);
    await client.query('COMMIT');
    await taking;
    const { rows } = await exporting.client.query(
      `SELECT c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE l.pid = pg_backend_pid() AND l.mode = 'AccessShareLock' AND n.nspname = 'public'`,
    );
    expect(rows).toEqual([{ relname: 'came_instead' }]);
  });
});

async function pollUntilWaiting(
  client: Parameters<Parameters<typeof withClient>[1]>[0],
  pid: number,
): Promise<{ readonly rows: readonly unknown[] }> {
  for (;;) {
    const found = await client.query('SELECT pid FROM pg_locks WHERE pid = $1 AND NOT granted', [pid]);
    if (found.rows.length > 0) return found;
  }
}
