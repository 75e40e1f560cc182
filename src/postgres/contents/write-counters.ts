import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import type { TableCost } from '../../contract/evidence/restore.ts';
import { qualifiedName } from '../identifier.ts';
import { readServerMajor } from '../server-version.ts';

/** Rows written to one table since its statistics began, those of aborted transactions included. */
export interface TableCounter extends TableCost {
  /** Another one under the same name: the table was made anew. */
  readonly oid: number;
  /** Another one of the same table: it was truncated or rewritten, which counts no rows. */
  readonly file: number;
}

/** The server's own count of what was written. Plain JSON, fit to be stored and compared later. */
export interface TableCounters {
  /** ISO 8601. */
  readonly takenAt: string;
  /** When the database's statistics were last reset (of one table or all); null = never. */
  readonly statsReset: string | null;
  /** Changes when the server lost its statistics in a crash, and differs between a primary and a promoted standby. */
  readonly serverReset: string | null;
  /** By the object map's names; large objects under `LARGE_OBJECTS`. */
  readonly tables: readonly TableCounter[];
}

/** Large objects live in one catalog table; an owner changes them page by page, not row by row. */
export const LARGE_OBJECTS = 'pg_catalog.pg_largeobject';

/**
 * Reads the counters of every ordinary table and leaf partition; extension members and temporary tables left out.
 *
 * Not under MVCC: as a reference for a snapshot read them *before* it is taken, and what they are compared with becomes an
 * upper bound. A session that writes reports when its transaction ends, at most once a second, and what it kept back when
 * it ends or has idled for 10 s (PostgreSQL documentation, "The Cumulative Statistics System"); see `settledCounters`.
 * Until PostgreSQL 14 a collector writes what it was told to a file, which readers take for up to 500 ms
 * (PGSTAT_STAT_INTERVAL): it is read once no older file will do.
 */
export async function readCounters(client: Client): Promise<TableCounters> {
  if (await hasStatisticsCollector(client)) await pause(COLLECTED_AFTER);
  // Within one transaction the server would go on showing what was read first.
  await client.query('SELECT pg_stat_clear_snapshot()');
  const { rows } = await client.query<Omit<TableCounters, 'tables'>>(
    `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "takenAt",
            (SELECT to_char(stats_reset AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
             FROM pg_stat_database WHERE datname = current_database()) AS "statsReset",
            (SELECT to_char(stats_reset AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
             FROM pg_stat_archiver) AS "serverReset"`,
  );
  const counted = await client.query<Omit<TableCounter, 'table'> & { schema: string; name: string }>(
    `SELECT n.nspname AS "schema", c.relname AS "name", c.oid::int8::float8 AS "oid",
            coalesce(pg_relation_filenode(c.oid), 0)::int8::float8 AS "file",
            pg_stat_get_tuples_inserted(c.oid)::float8 AS "inserted",
            pg_stat_get_tuples_updated(c.oid)::float8 AS "updated",
            pg_stat_get_tuples_deleted(c.oid)::float8 AS "deleted"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = 'pg_catalog.pg_largeobject'::regclass
        OR (c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
            AND NOT EXISTS (SELECT FROM pg_depend d
                            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))`,
  );
  const tables = counted.rows
    .map(({ schema, name, ...counter }) => ({ table: qualifiedName(schema, name), ...counter }))
    .sort((one, other) => (one.table < other.table ? -1 : 1));
  return { ...rows[0]!, tables };
}

const COLLECTED_AFTER = 700;

/** Sessions told a process of its own, which wrote files, until PostgreSQL 14; since 15 they share memory. */
export const hasStatisticsCollector = async (client: Client): Promise<boolean> => (await readServerMajor(client)) < 15;

export interface CounterDelta {
  /** Tables that were written, the most written first. */
  readonly written: readonly TableCost[];
  /** Tables whose counters cannot tell: made anew, gone, truncated or rewritten, statistics reset. */
  readonly unknown: readonly string[];
}

/** What was written between two readings of the same database. */
export function counterDelta(before: TableCounters, after: TableCounters): CounterDelta {
  const first = new Map(before.tables.map((counter) => [counter.table, counter]));
  const names = new Set([...first.keys(), ...after.tables.map(({ table }) => table)]);
  if (before.statsReset !== after.statsReset || before.serverReset !== after.serverReset) {
    return { written: [], unknown: [...names].sort() };
  }
  const written: TableCost[] = [];
  const unknown: string[] = [];
  for (const now of after.tables) {
    names.delete(now.table);
    const then = first.get(now.table);
    const change = {
      table: now.table,
      inserted: now.inserted - (then?.inserted ?? 0),
      updated: now.updated - (then?.updated ?? 0),
      deleted: now.deleted - (then?.deleted ?? 0),
    };
    const remade = then !== undefined && (then.oid !== now.oid || then.file !== now.file);
    if (remade || change.inserted < 0 || change.updated < 0 || change.deleted < 0) unknown.push(now.table);
    else if (totalOf(change) > 0) written.push(change);
  }
  // What is left was there before and is gone.
  unknown.push(...names);
  return { written: written.sort((one, other) => totalOf(other) - totalOf(one)), unknown: unknown.sort() };
}

const totalOf = ({ inserted, updated, deleted }: TableCost): number => inserted + updated + deleted;
