/** Subscriptions of a copy: they would draw production's changes, and keep their database from being dropped. */
import type { Client } from 'pg';
import { NOWHERE } from '../nowhere.ts';
import { sqlName } from '../identifier.ts';

/** Disabled, without a slot, and leading nowhere, in this order: neither step asks the publisher. @returns their names */
export async function cutOffSubscriptions(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT s.subname AS "name" FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
     WHERE d.datname = current_database() ORDER BY 1`,
  );
  for (const { name } of rows) {
    const subscription = sqlName(name);
    await client.query(`ALTER SUBSCRIPTION ${subscription} DISABLE`);
    await client.query(`ALTER SUBSCRIPTION ${subscription} SET (slot_name = NONE)`);
    await client.query(
      `ALTER SUBSCRIPTION ${subscription} CONNECTION 'host=${NOWHERE} port=1 dbname=nowhere user=nobody password=none'`,
    );
  }
  return rows.map(({ name }) => name);
}

/** @param client in the database */
export async function dropSubscriptions(client: Client): Promise<void> {
  for (const name of await cutOffSubscriptions(client)) await client.query(`DROP SUBSCRIPTION ${sqlName(name)}`);
}

/** @param client in any database of the server: the catalog is shared */
export async function hasSubscriptions(client: Client, database: string): Promise<boolean> {
  const { rowCount } = await client.query(
    `SELECT s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = $1`,
    [database],
  );
  return rowCount !== 0;
}
