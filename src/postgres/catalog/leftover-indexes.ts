import type { Client } from 'pg';
import { sqlState } from '../database-error.ts';
import { qualifiedName, sqlName } from '../identifier.ts';

/**
 * An index that a failed or interrupted `CREATE INDEX CONCURRENTLY` (or `REINDEX CONCURRENTLY`) left behind. It is
 * maintained by every write, used by no query, and makes `CREATE INDEX CONCURRENTLY IF NOT EXISTS` report success.
 */
export interface InvalidIndex {
  /** `schema.index`, as in the object map. */
  readonly name: string;
  readonly table: string;
  /** SQL text of the name. */
  readonly sql: string;
  /** A session is building it at this moment. */
  readonly building: boolean;
  readonly partitioned: boolean;
}

export async function listInvalidIndexes(client: Client): Promise<InvalidIndex[]> {
  const { rows } = await client.query<{
    schema: string;
    index: string;
    tableSchema: string;
    table: string;
    building: boolean;
    partitioned: boolean;
  }>(
    `SELECT n.nspname AS "schema", c.relname AS "index", tn.nspname AS "tableSchema", t.relname AS "table",
            c.relkind = 'I' AS "partitioned",
            EXISTS (SELECT FROM pg_stat_progress_create_index p
                    WHERE p.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND (p.index_relid = i.indexrelid OR p.index_relid = 0 AND p.relid = i.indrelid)) AS "building"
     FROM pg_index i
     JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
     WHERE NOT (i.indisvalid AND i.indisready AND i.indislive) AND n.nspname !~ '^pg_temp'
     ORDER BY 1, 2`,
  );
  return rows.map((row) => ({
    name: qualifiedName(row.schema, row.index),
    table: qualifiedName(row.tableSchema, row.table),
    sql: sqlName(row.schema, row.index),
    building: row.building,
    partitioned: row.partitioned,
  }));
}

export interface DroppedIndexes {
  readonly dropped: readonly string[];
  /** Left in place, with the reason. */
  readonly kept: readonly { readonly name: string; readonly why: string }[];
}

/** Called with the name of an index right before it is dropped: whoever comes after a crash is to know of it. */
export type BeforeDrop = (name: string) => Promise<void>;

/**
 * Drops the invalid indexes that were not invalid before, without blocking writes.
 *
 * @param client of the owner or a member of it, not in a transaction
 * @param before names of the indexes that were invalid before the migration: not its doing, left alone
 */
export async function dropInvalidIndexes(
  client: Client,
  before: readonly string[],
  beforeDrop: BeforeDrop,
): Promise<DroppedIndexes> {
  const dropped: string[] = [];
  const kept: { name: string; why: string }[] = [];
  for (const index of await listInvalidIndexes(client)) {
    if (before.includes(index.name)) kept.push({ name: index.name, why: 'was invalid before' });
    else if (index.building) kept.push({ name: index.name, why: 'is being built' });
    else if (index.partitioned)
      kept.push({ name: index.name, why: 'index of a partitioned table: lacks indexes on partitions' });
    else {
      await beforeDrop(index.name);
      const failure = await dropConcurrently(client, index);
      if (failure === undefined) dropped.push(index.name);
      else kept.push({ name: index.name, why: failure });
    }
  }
  return { dropped, kept };
}

async function dropConcurrently(client: Client, index: Pick<InvalidIndex, 'sql'>): Promise<string | undefined> {
  // The wait for older snapshots counts against lock_timeout; a minute covers those of ordinary requests.
  await client.query(`SET lock_timeout = '60s'`);
  await client.query(`SET statement_timeout = '120s'`);
  try {
    await client.query(`DROP INDEX CONCURRENTLY IF EXISTS ${index.sql}`);
    return undefined;
  } catch (error) {
    const state = sqlState(error);
    if (state === undefined) throw error;
    return notDropped(error, state);
  }
}

/**
 * Drops an invalid index of a partitioned table, with the indexes of partitions that were attached to it. There is no way to
 * do that beside the application: it is kept waiting for `lockTimeout` milliseconds at most, some times.
 *
 * @param name `schema.index`, as in the object map
 * @param before names of the indexes that were there before: one that was attached to it is not to go with it
 * @returns why it is still there; undefined when it is not
 */
export async function dropPartitionedIndex(
  client: Client,
  name: string,
  {
    before,
    lockTimeout,
    beforeDrop,
  }: { readonly before: ReadonlySet<string>; readonly lockTimeout: number; readonly beforeDrop: BeforeDrop },
): Promise<string | undefined> {
  const index = (await listInvalidIndexes(client)).find((one) => one.name === name && one.partitioned);
  if (index === undefined) return undefined;
  const { rows } = await client.query<{ schema: string; index: string }>(
    `SELECT n.nspname AS "schema", c.relname AS "index"
     FROM pg_partition_tree($1::regclass) t JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE t.level > 0`,
    [index.sql],
  );
  const older = rows.map((row) => qualifiedName(row.schema, row.index)).find((attached) => before.has(attached));
  if (older !== undefined) return `index ${older}, which was there before, is attached to it`;
  await beforeDrop(name);
  await client.query(`SET lock_timeout = ${Math.max(1, Math.round(lockTimeout))}`);
  for (let tries = 5; ; tries -= 1) {
    try {
      await client.query(`DROP INDEX IF EXISTS ${index.sql}`);
      return undefined;
    } catch (error) {
      const state = sqlState(error);
      if (state === undefined) throw error;
      if (state !== '55P03' || tries === 1) return notDropped(error, state);
    }
  }
}

const notDropped = (error: unknown, state: string): string =>
  `could not be dropped: ${(error as Error).message.slice(0, 200)} (SQLSTATE ${state})`;

/** Which of these, `schema.index` as in the object map, are not there, valid or not. */
export async function indexesGone(client: Client, names: readonly string[]): Promise<string[]> {
  if (names.length === 0) return [];
  const { rows } = await client.query<{ schema: string; index: string }>(
    `SELECT n.nspname AS "schema", c.relname AS "index"
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace`,
  );
  const there = new Set(rows.map(({ schema, index }) => qualifiedName(schema, index)));
  return names.filter((name) => !there.has(name));
}

/**
 * Drops valid indexes by name, without blocking writes: what a revision that was interrupted in its middle had built.
 *
 * @param names `schema.index`, as in the object map
 */
export async function dropIndexes(
  client: Client,
  names: readonly string[],
  beforeDrop: BeforeDrop,
): Promise<DroppedIndexes> {
  const { rows } = await client.query<{ schema: string; index: string }>(
    `SELECT n.nspname AS "schema", c.relname AS "index"
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'i' AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)`,
  );
  const dropped: string[] = [];
  const kept: { name: string; why: string }[] = [];
  for (const { schema, index } of rows) {
    const name = qualifiedName(schema, index);
    if (!names.includes(name)) continue;
    await beforeDrop(name);
    const failure = await dropConcurrently(client, { sql: sqlName(schema, index) });
    if (failure === undefined) dropped.push(name);
    else kept.push({ name, why: failure });
  }
  return { dropped, kept };
}
