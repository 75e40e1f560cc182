import type { Client, QueryArrayConfig } from 'pg';
import type { JsonValue } from '../contract/profile.ts';

/**
 * The first value of the first row of a query of the profile, in a transaction that can only read. One statement: the
 * extended protocol takes no second one that could end the transaction.
 *
 * @returns undefined without a row; bigint and numeric as text
 */
export async function readSingleValue(client: Client, query: string): Promise<JsonValue | undefined> {
  await client.query('BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
  try {
    const statement: QueryArrayConfig & { queryMode: 'extended' } = {
      text: query,
      rowMode: 'array',
      queryMode: 'extended',
    };
    const { rows } = await client.query<unknown[]>(statement);
    return rows[0]?.[0] as JsonValue | undefined;
  } finally {
    await client.query('ROLLBACK');
  }
}
