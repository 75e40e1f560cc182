import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { qualifiedName } from '../postgres/identifier.ts';

/** A lock as it was seen from outside, between two looks. Milliseconds since the epoch. */
export interface SampledLock {
  readonly relation: string;
  readonly mode: string;
  readonly first: number;
  readonly last: number;
}

const EVERY = 50;

/**
 * Looks every 50 ms at the locks that others hold in this database on relations with a name, until it is stopped. For
 * migrations that cannot be looked at from inside: what is held for a shorter time may be missed.
 *
 * @param client in no transaction, in the database of the migration
 */
export function sampleLocks(client: Client): { readonly stop: () => Promise<readonly SampledLock[]> } {
  const stopped = new AbortController();
  const open = new Map<string, SampledLock>();
  const closed: SampledLock[] = [];
  const look = async (): Promise<void> => {
    const { rows } = await client.query<{ key: string; schema: string; name: string; mode: string }>(HELD);
    const now = Date.now();
    const seen = new Set<string>();
    for (const { key, schema, name, mode } of rows) {
      seen.add(key);
      const known = open.get(key);
      open.set(key, {
        relation: known?.relation ?? qualifiedName(schema, name),
        mode,
        first: known?.first ?? now,
        last: now,
      });
    }
    for (const [key, lock] of open) {
      if (seen.has(key)) continue;
      open.delete(key);
      // It was released at some time since it was last seen.
      closed.push({ ...lock, last: now });
    }
  };
  const sampling = (async () => {
    while (!stopped.signal.aborted) {
      await look();
      await delay(EVERY, undefined, { signal: stopped.signal }).catch(() => undefined);
    }
  })();
  sampling.catch(() => undefined);
  return {
    stop: async () => {
      stopped.abort();
      await sampling;
      const now = Date.now();
      return [...closed, ...[...open.values()].map((lock) => ({ ...lock, last: now }))];
    },
  };
}

/** One row a session, its transaction, a relation and a mode. */
const HELD = `
  SELECT concat_ws(' ', l.pid, l.virtualtransaction, l.relation, l.mode) AS "key", n.nspname AS "schema", c.relname AS "name", l.mode
  FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`;
