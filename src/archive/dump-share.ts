import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import type { DatabaseContents } from '../postgres/contents.ts';
import { parseQualifiedName, type RelationName } from './relation-name.ts';

const INTERVAL = 1_000;

/**
 * Tells about how far a running pg_dump has come, by rows, until the signal fires: pg_dump goes through the tables by schema
 * and name, and the server counts the rows of the one under way (`pg_stat_progress_copy`, PostgreSQL 14).
 *
 * @param client of the same role as pg_dump's, otherwise idle
 * @param told 0 to 1
 */
export async function followDump(
  client: Client,
  dump: { readonly application: string; readonly tables: DatabaseContents['tables'] },
  told: (share: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const tables = dump.tables
    .map(({ table, rows }) => ({ ...parseQualifiedName(table), rows }))
    .sort((one, other) => compare(one, other));
  const total = tables.reduce((sum, { rows }) => sum + rows, 0);
  while (total > 0 && !signal.aborted) {
    const current = await tableUnderWay(client, dump.application);
    if (current !== undefined) {
      const before = tables.filter((table) => compare(table, current) < 0).reduce((sum, { rows }) => sum + rows, 0);
      told(Math.round(Math.min(0.99, (before + current.rows) / total) * 1000) / 1000);
    }
    await delay(INTERVAL, undefined, { signal }).catch(() => undefined);
  }
}

async function tableUnderWay(
  client: Client,
  application: string,
): Promise<(RelationName & { readonly rows: number }) | undefined> {
  // Within a transaction statistics are read once and then repeated.
  await client.query('SELECT pg_stat_clear_snapshot()');
  const { rows } = await client.query<RelationName & { rows: number }>(
    `SELECT n.nspname AS "schema", c.relname AS "name", p.tuples_processed::float8 AS "rows"
     FROM pg_stat_progress_copy p
     JOIN pg_stat_activity a ON a.pid = p.pid
     JOIN pg_class c ON c.oid = p.relid
     JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE a.application_name = $1 AND p.datname = current_database()`,
    [application],
  );
  return rows[0];
}

const compare = (one: RelationName, other: RelationName): number =>
  compareText(one.schema, other.schema) || compareText(one.name, other.name);

/** By code units, as pg_dump sorts. */
const compareText = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0);
