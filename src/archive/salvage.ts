import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { DatabaseIdentity } from '../contract/evidence/production.ts';
import type { TableCost } from '../contract/evidence/restore.ts';
import type { StoredDocument } from '../contract/evidence/step.ts';
import type { AlembicProfile } from '../contract/profile.ts';
import { type ConnectionOptions, runTag, withConnection } from '../postgres/connection.ts';
import { inDatabase, parseConnectionUrl } from '../postgres/connection-url.ts';
import { type ComparableTable } from '../postgres/contents/comparable-tables.ts';
import { compareDatabases, type DatabaseDifference } from '../postgres/contents/database-difference.ts';
import { readIdentity } from '../postgres/identity.ts';
import { qualifiedName, sqlName } from '../postgres/identifier.ts';
import { largeObjectPagesSql } from '../postgres/contents/large-object-difference.ts';
import { type ComparedSessions, type DifferingBuckets, differingRows } from '../postgres/contents/row-difference.ts';
import { pinFormats } from '../postgres/contents/row-hash.ts';
import type { DifferingRow } from '../postgres/contents/sorted-merge.ts';
import type { PairInBoth, PairInOne } from '../postgres/contents/table-pairs.ts';
import type { ObjectStore } from './object-store.ts';
import { PendingUpload, type RowsArchiveKeys, rowsArchiveKeys, storeRows, type Transfer } from './rows-archive.ts';
import { salvageManifest, type SalvageFacts } from './salvage-manifest.ts';
import { type SalvageKind, SalvageSql, type SalvageTarget } from './salvage-sql.ts';
import { exportSnapshot } from './snapshot.ts';

export interface SalvageRequest {
  /** libpq URL of production's administrator, resolved; leads to the production database. */
  readonly url: string;
  /** The restored copy, on the same server. */
  readonly copy: string;
  readonly versionTable: AlembicProfile['versionTable'];
  readonly runId: string;
  readonly step: string;
  readonly store: ObjectStore;
  /** See `runFolder`. */
  readonly folder: string;
  /** Of this export. Another one must have another name: it may come after the swap, when its rows are gone from production. */
  readonly name: string;
  readonly recipients: readonly string[];
  readonly facts: SalvageFacts;
  readonly signal: AbortSignal;
  readonly progress: (progress: SalvageProgress) => void;
}

export interface SalvageProgress extends Transfer {
  readonly phase: 'compare' | 'export';
  readonly table: string;
  /** Tables. */
  readonly done: number;
  readonly of: number;
  /** Rows exported so far. */
  readonly rows: number;
}

export interface Salvage {
  /** Every table with differences; large objects under `large objects`. */
  readonly tables: readonly TableCost[];
  readonly unknown: readonly string[];
  /** See `SalvageEvidence`. */
  readonly lost: readonly string[];
  readonly archive: StoredDocument | null;
  readonly manifest: StoredDocument | null;
}

export const LARGE_OBJECTS = 'large objects';

/**
 * Compares production with the restored copy row by row and exports what only production has: the rows inserted and updated
 * there as they are now, with all of production's columns, and the keys of the rows deleted. One archive of plain SQL,
 * compressed, encrypted, streamed to the store, with a manifest beside it; nothing where nothing differs. Both databases are
 * only read, production in one snapshot. Running it again under the same name replaces what an earlier attempt stored.
 */
export async function salvageDifferences(request: SalvageRequest): Promise<Salvage> {
  const keys = salvageKeys(request);
  await request.store.abortUploads(keys.archive, request.signal);
  const administrator = parseConnectionUrl(request.url);
  const session: ConnectionOptions = {
    runId: request.runId,
    step: request.step,
    signal: request.signal,
    // Reading takes as long as it takes; the step's own time limit bounds it.
    statementTimeout: 0,
    idleTimeout: 0,
  };
  const upload = new PendingUpload();
  const work = withConnection(administrator, session, (production) =>
    withConnection(inDatabase(administrator, request.copy), session, async (copy) => {
      const sessions = { production, copy };
      for (const client of [production, copy]) {
        await pinFormats(client);
        await client.query(`SET work_mem = '32MB'`);
      }
      const { lsn } = await exportSnapshot(production, request.signal);
      const snapshotAt = new Date().toISOString();
      await copy.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      const difference = await compareDatabases(sessions, request.versionTable, (now) =>
        request.progress({ phase: 'compare', ...now, rows: 0, stored: 0 }),
      );
      if (isEmpty(difference)) {
        for (const key of Object.values(keys)) await request.store.delete(key, request.signal);
        return {
          tables: [],
          unknown: unknownOf(difference, request.facts),
          lost: lostOf(difference, request.facts),
          archive: null,
          manifest: null,
        };
      }
      const database = await readIdentity(production);
      return upload.of(exportDifference(request, sessions, difference, { database, snapshotAt, lsn }));
    }),
  );
  // A cancelled session is gone at once; the upload still has its parts to take back.
  return work.finally(() => upload.settled);
}

const salvageKeys = ({ folder, name }: SalvageRequest): RowsArchiveKeys => rowsArchiveKeys(folder, name);

const isEmpty = ({ changed, alone, largeObjects }: DatabaseDifference): boolean =>
  changed.length + alone.length + largeObjects.length === 0;

/** What nobody but the migration can have written needs no warning. */
const unknownOf = ({ unknown, added }: DatabaseDifference, { by }: SalvageFacts): readonly string[] => [
  ...unknown,
  ...(by === 'migration'
    ? []
    : added.map(({ table, columns }) => `${table} (what was written to new ${named(columns)})`)),
];

/** Entries an open item can hold. */
const LOST_LISTED = 20;

/** What users wrote after the backup into that which the migration then dropped. */
function lostOf({ gone }: DatabaseDifference, { by }: SalvageFacts): readonly string[] {
  if (by === 'migration') return [];
  const all = gone.map(({ table, columns }) => (columns.length === 0 ? table : `${table} (${named(columns)})`));
  return all.length <= LOST_LISTED
    ? all
    : [...all.slice(0, LOST_LISTED), `and ${all.length - LOST_LISTED} more tables`];
}

const named = (columns: readonly string[]): string =>
  `${columns.length === 1 ? 'column' : 'columns'} ${columns.map((name) => qualifiedName(name)).join(', ')}`;

interface SnapshotFacts {
  readonly database: DatabaseIdentity;
  readonly snapshotAt: string;
  readonly lsn: string;
}

async function exportDifference(
  request: SalvageRequest,
  sessions: ComparedSessions,
  difference: DatabaseDifference,
  snapshot: SnapshotFacts,
): Promise<Salvage> {
  const { store, recipients, signal } = request;
  const keys = salvageKeys(request);
  const schema = `salvage_${runTag(request.runId)}`;
  const sql = new SalvageSql(schema);
  const tables: TableCost[] = [];
  const { archive, manifest } = await storeRows({
    store,
    keys,
    recipients,
    sizeBytes: snapshot.database.sizeBytes,
    signal,
    text: (transfer) =>
      salvageText(sessions, difference, sql, tables, {
        about: [
          `Rows that database ${JSON.stringify(snapshot.database.database)} held at ${snapshot.snapshotAt} (${snapshot.lsn}) and the backup of ${request.facts.backup.capturedAt} does not.`,
          `See ${store.uri(keys.manifest)} for what is in here and how to load it.`,
        ],
        progress: (now) => request.progress({ phase: 'export', ...now, ...transfer() }),
      }),
    manifest: (archive) =>
      salvageManifest({
        facts: request.facts,
        runId: request.runId,
        copy: request.copy,
        schema,
        snapshot,
        difference,
        tables,
        exported: sql.tables,
        archive,
      }),
  });
  return {
    tables,
    unknown: unknownOf(difference, request.facts),
    lost: lostOf(difference, request.facts),
    archive,
    manifest,
  };
}

interface Telling {
  readonly about: readonly string[];
  readonly progress: (now: Pick<SalvageProgress, 'table' | 'done' | 'of' | 'rows'>) => void;
}

/** The archive's text. Fills in the cost of each table as it goes. */
async function* salvageText(
  sessions: ComparedSessions,
  { changed, alone, largeObjects }: DatabaseDifference,
  sql: SalvageSql,
  costs: TableCost[],
  { about, progress }: Telling,
): AsyncGenerator<Buffer, void, undefined> {
  const of = changed.length + alone.length + Math.min(1, largeObjects.length);
  const telling = async function* (table: string, cost: CountedCost, pieces: AsyncIterable<Buffer>) {
    const before = costs.reduce((sum, { inserted, updated, deleted }) => sum + inserted + updated + deleted, 0);
    const tell = () =>
      progress({ table, done: costs.length, of, rows: before + cost.inserted + cost.updated + cost.deleted });
    tell();
    for await (const piece of pieces) {
      yield piece;
      tell();
    }
    requireExported(table, cost, sql);
    // Hashes of a whole bucket may differ where no row does: one of the same text, written otherwise.
    if (cost.inserted + cost.updated + cost.deleted > 0) costs.push({ ...cost });
  };
  yield sql.begin(about);
  for (const { pair, rows } of alone) {
    const cost = noCost(pair.table);
    yield* telling(pair.table, cost, wholeTable(sessions, pair, rows, sql, cost));
  }
  for (const { pair, differing } of changed) {
    const cost = noCost(pair.table);
    yield* telling(pair.table, cost, changedRows(sessions, pair, differing, sql, cost));
  }
  if (largeObjects.length > 0) {
    const cost = noCost(LARGE_OBJECTS);
    yield* telling(LARGE_OBJECTS, cost, changedLargeObjects(sessions, largeObjects, sql, cost));
  }
  yield sql.end();
}

/** What the comparison found and what was exported come from different statements: they must agree. */
function requireExported(table: string, cost: TableCost, { tables }: SalvageSql): void {
  for (const { source, kind, rows } of tables) {
    if (source !== table || source === LARGE_OBJECTS || rows === cost[kind]) continue;
    throw new StepError(
      STEP_ERRORS.unavailable,
      `of table ${table} ${cost[kind]} rows ${kind} were found and ${rows} exported: nothing was stored`,
    );
  }
}

type CountedCost = { -readonly [Key in keyof TableCost]: TableCost[Key] };

const noCost = (table: string): CountedCost => ({ table, inserted: 0, updated: 0, deleted: 0 });

/** A new table is exported whole. Of one that the migration dropped the copy holds all there was: it is only counted. */
async function* wholeTable(
  sessions: ComparedSessions,
  { presence, table, present }: PairInOne,
  rows: number,
  sql: SalvageSql,
  cost: CountedCost,
): AsyncGenerator<Buffer, void, undefined> {
  cost[presence === 'production' ? 'inserted' : 'deleted'] = rows;
  if (presence === 'copy' || present.columns.length === 0) return;
  const target = sql.table({
    source: table,
    name: archiveName(present),
    kind: 'inserted',
    columns: present.columns,
  });
  yield* target.copy(
    sessions.production,
    `SELECT ${columnList(present)} FROM ONLY ${sqlName(present.schema, present.name)}`,
  );
}

/** Rows whose places are sent to the server in one statement. */
const ROWS_AT_ONCE = 2000;

async function* changedRows(
  sessions: ComparedSessions,
  pair: PairInBoth,
  differing: DifferingBuckets,
  sql: SalvageSql,
  cost: CountedCost,
): AsyncGenerator<Buffer, void, undefined> {
  const outlets = outletsOf(sessions, pair, sql);
  for await (const { kind, place } of differingRows(sessions, pair, differing)) {
    cost[kind] += 1;
    const outlet = outlets[kind];
    outlet.places.push(place);
    if (outlet.places.length >= ROWS_AT_ONCE) yield* drain(outlet);
  }
  for (const outlet of Object.values(outlets)) yield* drain(outlet);
}

interface Outlet {
  readonly target: SalvageTarget;
  readonly client: ComparedSessions['production'];
  readonly select: string;
  places: string[];
}

type Outlets = { readonly [Kind in SalvageKind]: Outlet };

function outletsOf(sessions: ComparedSessions, pair: PairInBoth, sql: SalvageSql): Outlets {
  const { table: source, production, copy, key } = pair;
  const name = archiveName(production);
  const keyColumns = key?.map((column) => copy.columns.find((found) => found.name === column)!) ?? copy.columns;
  const outlet = (kind: SalvageKind, table: ComparableTable, client: Outlet['client']): Outlet => ({
    target: sql.table({ source, name, kind, columns: table.columns }),
    client,
    select: `SELECT ${columnList(table)} FROM ONLY ${sqlName(table.schema, table.name)}`,
    places: [],
  });
  return {
    inserted: outlet('inserted', production, sessions.production),
    updated: outlet('updated', production, sessions.production),
    deleted: outlet('deleted', { ...copy, columns: keyColumns }, sessions.copy),
  };
}

/** By physical place, which is good while the snapshot is held: no second search by key, whatever its type. */
async function* drain(outlet: Outlet): AsyncGenerator<Buffer, void, undefined> {
  if (outlet.places.length === 0) return;
  const places = outlet.places.map((place) => `"${place}"`).join(',');
  outlet.places = [];
  yield* outlet.target.copy(outlet.client, `${outlet.select} WHERE ctid = ANY ('{${places}}'::tid[])`);
}

const columnList = ({ columns }: ComparableTable): string => columns.map(({ name }) => sqlName(name)).join(', ');

/** The table's own name where it is in the schema `public`. */
const archiveName = ({ schema, name }: ComparableTable): string => (schema === 'public' ? name : `${schema}.${name}`);

const OBJECTS_AT_ONCE = 100;

const PAGE_COLUMNS = [
  { name: 'oid', type: 'oid', builtIn: true, generated: false, storedAs: 'oid' },
  { name: 'page', type: 'integer', builtIn: true, generated: false, storedAs: 'int4' },
  { name: 'data', type: 'bytea', builtIn: true, generated: false, storedAs: 'bytea' },
] as const;

async function* changedLargeObjects(
  { production, copy }: ComparedSessions,
  differing: readonly DifferingRow[],
  sql: SalvageSql,
  cost: CountedCost,
): AsyncGenerator<Buffer, void, undefined> {
  for (const kind of ['inserted', 'updated', 'deleted'] as const) {
    const oids = differing.filter((row) => row.kind === kind).map(({ place }) => place);
    const columns = kind === 'deleted' ? PAGE_COLUMNS.slice(0, 1) : PAGE_COLUMNS;
    const target = sql.table({ source: LARGE_OBJECTS, name: 'large_objects', kind, columns });
    for (let start = 0; start < oids.length; start += OBJECTS_AT_ONCE) {
      const some = oids.slice(start, start + OBJECTS_AT_ONCE);
      yield* kind === 'deleted'
        ? target.copy(copy, `SELECT unnest('{${some.join(',')}}'::oid[])`)
        : target.copy(production, largeObjectPagesSql(some));
      cost[kind] += some.length;
    }
  }
}
