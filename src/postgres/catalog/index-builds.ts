import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import { qualifiedName } from '../identifier.ts';

/** One index build that a server reports. The index itself has no name others can see before it is committed. */
export interface IndexBuild {
  /** Process id of the building session. */
  readonly pid: number;
  readonly table: string;
  /** As the server calls it, e.g. `building index: loading tuples in tree`. */
  readonly phase: string;
  /** Of the phase, between 0 and 1; null where it is not counted. */
  readonly share: number | null;
  /** Transactions that a concurrent build still has to wait for in this phase. */
  readonly awaited: number;
}

const INTERVAL = 1_000;

/**
 * Tells once a second which indexes are being built in the client's database (`pg_stat_progress_create_index`). For people: a
 * reading that fails ends the watch and nothing else.
 *
 * @param client is used until `stop` has settled
 */
export function watchIndexBuilds(
  client: Client,
  tell: (builds: readonly IndexBuild[]) => void,
): { readonly stop: () => Promise<void> } {
  const ended = new AbortController();
  const watching = (async () => {
    while (!ended.signal.aborted) {
      tell(await readIndexBuilds(client));
      await pause(INTERVAL, undefined, { signal: ended.signal });
    }
  })().catch(() => undefined);
  return {
    stop: async () => {
      ended.abort();
      await watching;
    },
  };
}

/** Index builds in the client's database. */
export async function readIndexBuilds(client: Client): Promise<IndexBuild[]> {
  const { rows } = await client.query<Omit<IndexBuild, 'table'> & { readonly schema: string; readonly name: string }>(
    `SELECT p.pid, greatest(0, p.lockers_total - p.lockers_done)::int AS "awaited", n.nspname AS "schema", c.relname AS "name", p.phase,
            (CASE WHEN p.blocks_done < p.blocks_total THEN p.blocks_done::float8 / p.blocks_total
                  WHEN p.tuples_total > 0 THEN p.tuples_done::float8 / p.tuples_total END) AS "share"
     FROM pg_stat_progress_create_index p JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE p.datname = current_database() ORDER BY p.pid`,
  );
  return rows.map(({ schema, name, ...build }) => ({ ...build, table: qualifiedName(schema, name) }));
}
