import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import type { PostgresServer } from '../../../scripts/stack/connection.ts';

export interface Door {
  /** Ends the watch. @returns milliseconds of each time nobody could connect to the database of this name, to within 50 ms */
  readonly leave: () => Promise<readonly number[]>;
}

/** Watches whether a database takes connections, over a session that is there before anybody is shut out. */
export async function watchDoor(server: PostgresServer, database: string): Promise<Door> {
  const client = new Client({ connectionString: server.superuserUrl, application_name: 'door' });
  client.on('error', () => undefined);
  await client.connect();
  const stopped = new AbortController();
  const periods: number[] = [];
  const watching = (async () => {
    let shutAt: number | undefined;
    while (!stopped.signal.aborted) {
      const { rows } = await client.query('SELECT FROM pg_database WHERE datname = $1 AND datallowconn', [database]);
      if (rows.length === 0) shutAt ??= Date.now();
      else if (shutAt !== undefined) {
        periods.push(Date.now() - shutAt);
        shutAt = undefined;
      }
      await delay(50);
    }
  })().catch(() => undefined);
  return {
    leave: async () => {
      stopped.abort();
      await watching;
      await client.end().catch(() => undefined);
      return periods;
    },
  };
}
