import type { Client } from 'pg';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { DatabaseIdentity } from '../contract/evidence/production.ts';
import type { Arrivals } from '../contract/evidence/rollback.ts';
import type { StoredDocument } from '../contract/evidence/step.ts';
import type { DroppedObject } from '../contract/evidence/rehearsal.ts';
import { runTag, withConnection } from '../postgres/connection.ts';
import type { TableCounters } from '../postgres/contents/write-counters.ts';
import { pinFormats } from '../postgres/contents/row-hash.ts';
import { sqlName } from '../postgres/identifier.ts';
import { readIdentity } from '../postgres/identity.ts';
import {
  type ArrivalsSource,
  arrived,
  type CountedArrivals,
  type CountLimits,
  countObjects,
} from './arrivals-count.ts';
import { changedInPlace } from './arrivals-unseen.ts';
import { COMPRESSION } from './compression.ts';
import { ENCRYPTION } from './encryption.ts';
import type { ObjectStore } from './object-store.ts';
import { PendingUpload, type RowsArchiveKeys, rowsArchiveKeys, storeRows, type Transfer } from './rows-archive.ts';
import { SalvageSql, type SalvageTable } from './salvage-sql.ts';

export interface ArrivalsRequest {
  /** libpq URL of production's administrator, resolved. */
  readonly url: string;
  /** What the downgrade drops, with what the migration itself had put there when it was rehearsed. */
  readonly dropped: readonly DroppedObject[];
  /** The server's counters when the upgrade had ended. Absent: nobody noted them. */
  readonly since?: TableCounters;
  readonly runId: string;
  readonly step: string;
  readonly store: ObjectStore;
  /** See `runFolder`. */
  readonly folder: string;
  /** Of this count. Another one must have another name: the rows of an earlier one may be gone by then. */
  readonly name: string;
  readonly recipients: readonly string[];
  readonly facts: { readonly service: string; readonly releaseTag: string; readonly changeTicket: string };
  /** @default 5 minutes a table, 5 s for a lock */
  readonly limits?: CountLimits;
  readonly signal: AbortSignal;
  readonly progress: (progress: ArrivalsProgress) => void;
}

export interface ArrivalsProgress extends Transfer {
  readonly phase: 'count' | 'export';
  readonly table: string;
  /** Tables. */
  readonly done: number;
  readonly of: number;
  /** Rows exported so far. */
  readonly rows: number;
}

/** What is in an archive, readable without the age identity: names and counts, no row of it. */
export interface ArrivalsManifest {
  readonly format: 'migration-runbook/arrivals/1';
  readonly service: string;
  readonly releaseTag: string;
  readonly changeTicket: string;
  readonly runId: string;
  readonly production: { readonly systemIdentifier: string; readonly database: string };
  /** ISO 8601: of one snapshot for all tables. */
  readonly snapshotAt: string;
  readonly archive: StoredDocument & { readonly compression: string; readonly encryption: string };
  /** Schema that loading the archive creates. */
  readonly schema: string;
  readonly objects: Arrivals['objects'];
  readonly unknown: readonly string[];
  readonly unseen: readonly string[];
  readonly exported: readonly SalvageTable<'held'>[];
  readonly load: readonly string[];
  readonly notes: readonly string[];
}

/** A person, or an automatic rollback, waits for it. */
export const LIMITS: CountLimits = { statement: 300_000, lock: 5_000 };
/** Objects in `Arrivals`. */
export const SHOWN = 200;

/**
 * Counts, in one snapshot, what is in the objects that the downgrade drops, and exports those in which there is more than
 * the migration put there: a table whole, of a column its values with the key of their rows. One archive of plain SQL,
 * compressed, encrypted, with a manifest beside it; nothing where nothing came. Production is only read, and what an
 * earlier count has stored is left.
 */
export async function countArrivals(request: ArrivalsRequest): Promise<Arrivals> {
  const { url, runId, step, signal, dropped, store } = request;
  if (dropped.length === 0) return { objects: [], total: 0, archive: null, unknown: [], unseen: [] };
  await store.abortUploads(arrivalsKeys(request).archive, signal);
  const upload = new PendingUpload();
  const session = { runId, step, signal, statementTimeout: 0, idleTimeout: 0 };
  const work = withConnection(url, session, async (client) => {
    await pinFormats(client);
    const { changed, unseen } = await changedInPlace(client, dropped, request.since);
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    const counted = await countObjects(
      client,
      dropped,
      request.limits ?? LIMITS,
      (now) => request.progress({ phase: 'count', ...now, rows: 0, stored: 0 }),
      changed,
    );
    const objects = counted.objects.toSorted((one, other) => arrived(other) - arrived(one)).slice(0, SHOWN);
    const total = counted.objects.reduce((sum, object) => sum + arrived(object), 0);
    const found = { objects, total, unknown: counted.unknown, unseen };
    if (counted.sources.length === 0) return { ...found, archive: null };
    const snapshotAt = new Date().toISOString();
    const database = await readIdentity(client);
    const archive = await upload.of(exportSources(client, request, { ...counted, unseen }, { database, snapshotAt }));
    return { ...found, archive };
  });
  // A cancelled session is gone at once; the upload still has its parts to take back.
  return work.finally(() => upload.settled);
}

export const arrivalsKeys = ({ folder, name }: Pick<ArrivalsRequest, 'folder' | 'name'>): RowsArchiveKeys =>
  rowsArchiveKeys(folder, name);

type SeenArrivals = CountedArrivals & Pick<Arrivals, 'unseen'>;

interface SnapshotFacts {
  readonly database: DatabaseIdentity;
  readonly snapshotAt: string;
}

async function exportSources(
  client: Client,
  request: ArrivalsRequest,
  counted: SeenArrivals,
  snapshot: SnapshotFacts,
): Promise<StoredDocument> {
  const { store, recipients, signal } = request;
  const keys = arrivalsKeys(request);
  const schema = `arrivals_${runTag(request.runId)}`;
  const sql = new SalvageSql<'held'>(schema);
  const { archive } = await storeRows({
    store,
    keys,
    recipients,
    sizeBytes: snapshot.database.sizeBytes,
    signal,
    text: (transfer) =>
      archiveText(client, counted.sources, sql, {
        about: [
          `What database ${JSON.stringify(snapshot.database.database)} held at ${snapshot.snapshotAt} in objects that a downgrade drops.`,
          `See ${store.uri(keys.manifest)} for what is in here and how to load it.`,
        ],
        progress: (now) => request.progress({ phase: 'export', ...now, ...transfer() }),
      }),
    manifest: (archive) => manifestOf(request, counted, snapshot, { archive, schema, exported: sql.tables }),
  });
  return archive;
}

interface Telling {
  readonly about: readonly string[];
  readonly progress: (now: Pick<ArrivalsProgress, 'table' | 'done' | 'of' | 'rows'>) => void;
}

async function* archiveText(
  client: Client,
  sources: readonly ArrivalsSource[],
  sql: SalvageSql<'held'>,
  { about, progress }: Telling,
): AsyncGenerator<Buffer, void, undefined> {
  yield sql.begin(about);
  for (const [done, source] of sources.entries()) {
    const { table, relation, rows } = source;
    const label = source.column === null ? table : `${table}.${source.column}`;
    const columns = columnsOf(source);
    const target = sql.table({
      source: label,
      name: nameOf(source),
      kind: 'held',
      columns: relation.columns.filter(({ name }) => columns.includes(name)),
    });
    const list = relation.columns.filter(({ name }) => columns.includes(name)).map(({ name }) => sqlName(name));
    const select = `SELECT ${list.join(', ')} FROM ${sqlName(relation.schema, relation.name)} WHERE ${source.condition}`;
    for await (const piece of target.copy(client, select)) {
      yield piece;
      progress({ table: label, done, of: sources.length, rows: sql.tables.reduce((sum, one) => sum + one.rows, 0) });
    }
    const exported = sql.tables.at(-1)?.rows;
    // Both come from one snapshot.
    if (exported !== rows) {
      throw new StepError(
        STEP_ERRORS.unavailable,
        `of ${label} ${rows} rows were counted and ${exported ?? 0} exported: nothing was stored`,
      );
    }
  }
  yield sql.end();
}

/** All of them, or the key and the column; where rows have no key, all. */
function columnsOf({ relation, column }: ArrivalsSource): readonly string[] {
  const all = relation.columns.map(({ name }) => name);
  const [key] = relation.keys;
  return column === null || key === undefined ? all : [...key, column];
}

/** The table's own name where it is in the schema `public`. */
const nameOf = ({ relation: { schema, name }, column }: ArrivalsSource): string =>
  [...(schema === 'public' ? [] : [schema]), name, ...(column === null ? [] : [column])].join('.');

function manifestOf(
  { facts, runId }: ArrivalsRequest,
  { objects, unknown, unseen }: SeenArrivals,
  { database: { systemIdentifier, database }, snapshotAt }: SnapshotFacts,
  { archive, ...exported }: Pick<ArrivalsManifest, 'schema' | 'exported'> & { readonly archive: StoredDocument },
): ArrivalsManifest {
  const file = archive.uri.slice(archive.uri.lastIndexOf('/') + 1);
  return {
    format: 'migration-runbook/arrivals/1',
    ...facts,
    runId,
    production: { systemIdentifier, database },
    snapshotAt,
    archive: { ...archive, compression: COMPRESSION, encryption: ENCRYPTION },
    ...exported,
    objects,
    unknown,
    unseen,
    load: [
      `fetch ${archive.uri} as ${file} and compare its SHA-256`,
      `age --decrypt --identity KEY_FILE ${file} | zstd --decompress | psql --no-psqlrc --set=ON_ERROR_STOP=1 --dbname=DATABASE`,
    ],
    notes: [
      'A table NAME__held holds all rows of the table NAME, those that the migration itself put there included; NAME.COLUMN__held holds the values of one column with the key of their rows, or the whole rows where the table has no key.',
      'Rows of a column are those whose value is not null and, where its default is a constant, not the default.',
      'Columns whose type is the service\'s own or an extension\'s are text; "was" names the type.',
      'Counted is how many there are, not which: a row that was deleted makes up for one that came, and a value that was changed counts where it was null or the default before. Tables in which rows were changed or deleted since the upgrade, by the counters of the server, are in here too; what such a row was before is not.',
    ],
  };
}
