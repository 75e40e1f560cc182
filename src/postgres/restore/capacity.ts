import type { Client } from 'pg';
import type { RestoreProfile } from '../../contract/profile.ts';
import { StepError } from '../../contract/errors.ts';

/** What a second copy of a database takes, read from the server it will lie on. Bytes. */
export interface CapacityNeed {
  readonly database: string;
  readonly sizeBytes: number;
  /** WAL that writing the copy leaves at the same time: what the server keeps, at most as much as the copy. */
  readonly walBytes: number;
  /** Tablespaces of the database beside `pg_default`: they may lie on other volumes. */
  readonly tablespaces: readonly string[];
}

/** Indexes packed anew are smaller than grown ones; sorts and the statistics of ANALYZE come on top for a while. */
const MARGIN = 1.1;

/**
 * @param client of the administrator, in any database of production's server
 */
export async function readCapacityNeed(client: Client, database: string): Promise<CapacityNeed> {
  const { rows } = await client.query<{
    size: number;
    kept: number;
    slotLimit: number;
    heldBack: boolean;
    tablespaces: string[];
  }>(
    `SELECT pg_database_size(d.oid)::float8 AS "size",
            (SELECT sum(pg_size_bytes(current_setting(name))) FROM unnest(ARRAY['max_wal_size', 'wal_keep_size']) AS name)::float8 AS "kept",
            (SELECT CASE setting::int8 WHEN -1 THEN 'Infinity' ELSE (setting::int8 * 1048576)::float8 END
             FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS "slotLimit",
            EXISTS (SELECT FROM pg_replication_slots WHERE NOT active)
              OR EXISTS (SELECT FROM pg_stat_archiver WHERE last_failed_time > coalesce(last_archived_time, '-infinity')) AS "heldBack",
            (SELECT coalesce(array_agg(spcname::text ORDER BY spcname), '{}') FROM pg_tablespace t
             WHERE spcname NOT IN ('pg_default', 'pg_global')
               AND (t.oid = d.dattablespace
                    OR EXISTS (SELECT FROM pg_tablespace_databases(t.oid) AS used(oid) WHERE used.oid = d.oid))) AS "tablespaces"
     FROM pg_database d WHERE d.datname = $1`,
    [database],
  );
  const { size, kept, slotLimit, heldBack, tablespaces } = rows[0]!;
  // A slot nobody reads and an archiver that fails keep all WAL, max_wal_size or not (documentation, "WAL Configuration").
  const bound = heldBack ? Math.max(kept, slotLimit) : kept;
  return { database, sizeBytes: size, walBytes: Math.min(size, bound), tablespaces };
}

export interface CapacityRequest {
  readonly need: CapacityNeed;
  /** Names of the standbys: each takes a copy as large as the primary's. */
  readonly standbys: readonly string[];
  readonly capacity: RestoreProfile['capacity'];
  /** Runs the profile's command. @returns what it printed */
  readonly freeBytes: () => Promise<string>;
}

export interface CapacityVerdict {
  /** Why there is no room, or why that cannot be told; empty = there is. */
  readonly findings: readonly string[];
  /** For evidence and plan: what was measured, or the waiver in its own words. */
  readonly text: string;
}

/**
 * Is there room for a second copy of the database and its WAL, on the primary and on every standby? SQL cannot tell how
 * much is free, so the profile's command does. What it does not tell counts as no room.
 */
export async function checkCapacity(request: CapacityRequest): Promise<CapacityVerdict> {
  const { need, standbys, capacity } = request;
  const each = Math.ceil(need.sizeBytes * MARGIN + need.walBytes);
  const note =
    need.tablespaces.length === 0
      ? ''
      : ` (tablespaces ${need.tablespaces.join(', ')} may lie on volumes of their own, which is not looked into)`;
  if (capacity.kind === 'waiver') {
    return {
      findings: [],
      text: `waived: ${capacity.reason} (${inUnits(each)} needed on the primary${standbys.length === 0 ? '' : ' and on each standby'})${note}`,
    };
  }
  const servers = ['primary', ...standbys];
  let free: FreeBytes;
  try {
    free = readFreeBytes(await request.freeBytes(), servers);
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    return { findings: [`restore.capacity: ${error.message}`], text: 'unknown' };
  }
  if (free.kind === 'unknown') {
    return { findings: free.why.map((why) => `restore.capacity: ${why}`), text: 'unknown' };
  }
  const volumes =
    free.kind === 'one-volume'
      ? [{ name: servers.join(' and '), free: free.bytes, needed: each * servers.length }]
      : servers.map((name) => ({ name, free: free.bytes.get(name)!, needed: each }));
  return {
    findings: volumes
      .filter((volume) => volume.free < volume.needed)
      .map(
        (volume) =>
          `no room for a second copy of database "${need.database}" on ${volume.name}: ${inUnits(volume.free)} free, ${inUnits(volume.needed)} needed (the data is ${inUnits(need.sizeBytes)}, and its WAL comes on top)`,
      ),
    text: `measured: ${volumes.map((volume) => `${volume.name} ${inUnits(volume.free)} free of ${inUnits(volume.needed)} needed`).join(', ')}${note}`,
  };
}

type FreeBytes =
  | { readonly kind: 'one-volume'; readonly bytes: number }
  | { readonly kind: 'each'; readonly bytes: ReadonlyMap<string, number> }
  | { readonly kind: 'unknown'; readonly why: readonly string[] };

/** Either an object with exactly these servers, or one number: then all of them share one volume. */
function readFreeBytes(printed: string, servers: readonly string[]): FreeBytes {
  const unknown = (...why: readonly string[]): FreeBytes => ({ kind: 'unknown', why });
  const expected = `{${servers.map((name) => `${JSON.stringify(name)}: <bytes>`).join(', ')}}`;
  let value: unknown;
  try {
    value = JSON.parse(printed);
  } catch {
    return unknown(`the command printed ${quoted(printed)}, which is neither a number nor ${expected}`);
  }
  if (isBytes(value)) return { kind: 'one-volume', bytes: value };
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return unknown(`the command printed ${quoted(printed)}, which is neither a number nor ${expected}`);
  }
  const entries = Object.entries(value);
  const why = [
    ...servers
      .filter((name) => !Object.hasOwn(value, name))
      .map((name) => `the command tells nothing of "${name}": it must print ${expected}`),
    ...entries.flatMap(([name, bytes]) => {
      if (!servers.includes(name)) {
        return [
          `the command tells of "${name.slice(0, 63)}", which is neither the primary nor a standby of the profile`,
        ];
      }
      return isBytes(bytes)
        ? []
        : [`the command gives ${quoted(JSON.stringify(bytes))} for "${name}": no number of bytes`];
    }),
  ];
  return why.length > 0 ? unknown(...why) : { kind: 'each', bytes: new Map(entries) };
}

const isBytes = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value) && value >= 0;

const quoted = (text: string): string => `"${text.length > 80 ? `${text.slice(0, 80)} ...` : text}"`;

const UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB'] as const;

/** As PostgreSQL writes sizes: powers of 1024. */
function inUnits(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}
