import type { Client } from 'pg';
import type { DatabaseIdentity } from '../contract/evidence/production.ts';
import type { AlembicProfile } from '../contract/profile.ts';
import { qualifiedName, sqlName } from '../postgres/identifier.ts';
import { digestOf, type ObjectMap, readObjectMap, withoutTable } from '../postgres/catalog/object-map.ts';
import type { TableCounters } from '../postgres/contents/write-counters.ts';
import { type DatabaseContents, readContents } from '../postgres/contents/contents.ts';
import { type DatabaseProperties, readDatabaseProperties, readRoles } from '../postgres/catalog/database-properties.ts';
import { canonicalJson } from './canonical.ts';
import type { ExportedSnapshot } from './snapshot.ts';

const FORMAT = 'migration-runbook/ledger/2';

/** What a restored database is compared with, read in the dump's own snapshot. Kept as JSON beside the dump. */
export interface Ledger {
  readonly format: typeof FORMAT;
  /** ISO 8601, UTC: when the snapshot was taken. */
  readonly capturedAt: string;
  /** All that the backup holds was written to the log before this position. */
  readonly lsn: string;
  readonly database: DatabaseIdentity;
  /** Rows of Alembic's version table, sorted; empty where there is no such table. */
  readonly versionRows: readonly string[];
  readonly contents: DatabaseContents;
  /** Read before the snapshot: what is compared with them later is an upper bound of what was written since. */
  readonly counters: TableCounters;
  /** What is in no dump: it belongs to the database as a whole. */
  readonly properties: DatabaseProperties;
  /** Every role that owners, grants, policies, default privileges or settings name: a server to restore on must have them. */
  readonly roles: readonly string[];
  /** Of the map without the version table: what an upgrade is judged by. */
  readonly objectMapDigest: string;
  readonly objectMap: ObjectMap;
}

export interface LedgerFacts {
  readonly snapshot: ExportedSnapshot;
  readonly capturedAt: string;
  readonly database: DatabaseIdentity;
  readonly versionTable: AlembicProfile['versionTable'];
  /** See `readCounters`: taken before the snapshot. */
  readonly counters: TableCounters;
  /** Bytes, of the profile. */
  readonly sampleAbove: number;
}

/**
 * Reads the ledger of one snapshot.
 *
 * @param sessions all in that snapshot; the first is the transaction that exported it, in which the tables are locked
 */
export async function readLedger(
  sessions: readonly [Client, ...Client[]],
  facts: LedgerFacts,
  progress: (table: string, done: number, of: number) => void,
): Promise<Ledger> {
  const [client] = sessions;
  const objectMap = await readObjectMap(client);
  const { snapshot, capturedAt, database, versionTable, counters, sampleAbove } = facts;
  return {
    format: FORMAT,
    capturedAt,
    lsn: snapshot.lsn,
    database,
    versionRows: await readVersionRows(client, versionTable),
    properties: await readDatabaseProperties(client, database.database),
    roles: await readRoles(client),
    contents: await readContents(sessions, { sampleAbove, progress }),
    counters,
    objectMapDigest: digestOf(withoutTable(objectMap, versionTable)),
    objectMap,
  };
}

export const serializeLedger = (ledger: Ledger): string => canonicalJson(ledger);

/** @throws Error when the text is no ledger */
export function parseLedger(text: string): Ledger {
  const value = JSON.parse(text) as Partial<Ledger> | null;
  if (value?.format !== FORMAT || value.contents === undefined || value.objectMap === undefined) {
    throw new Error(`not a ledger of format ${FORMAT}`);
  }
  return value as Ledger;
}

/** The ledger's name for Alembic's version table. */
export const versionTableName = ({ schema, table }: AlembicProfile['versionTable']): string =>
  qualifiedName(schema, table);

async function readVersionRows(client: Client, { schema, table }: AlembicProfile['versionTable']): Promise<string[]> {
  const { rows: found } = await client.query<{ exists: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v')) AS exists`,
    [schema, table],
  );
  if (found[0]?.exists !== true) return [];
  const { rows } = await client.query<{ version_num: string }>(
    `SELECT version_num FROM ${sqlName(schema, table)} ORDER BY version_num COLLATE "C"`,
  );
  return rows.map((row) => row.version_num);
}
