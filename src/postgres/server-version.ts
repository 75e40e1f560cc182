import type { Client } from 'pg';

/** Major version of the server behind this connection, as it tells it itself. */
export async function readServerMajor(client: Client): Promise<number> {
  const { rows } = await client.query<{ major: number }>(
    `SELECT current_setting('server_version_num')::int / 10000 AS major`,
  );
  return rows[0]!.major;
}
