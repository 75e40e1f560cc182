import type { DatabaseState } from '../../alembic/reconcile.ts';
import type { StoredDocument } from '../../contract/evidence/step.ts';
import type { TableCounters } from '../../postgres/contents/write-counters.ts';
import type { RunStore } from '../run-store.ts';

/**
 * What the upgrade writes down in the object store before it goes on, so that whoever comes after a crash, on whatever
 * host, can tell a clean state between two revisions from a half-done one.
 */
export interface Boundary extends DatabaseState {
  /** The revision about to run. */
  readonly before: string;
  /** Kept where that revision commits in its middle: what it leaves when it is interrupted is compared with this. */
  readonly objectMap?: StoredDocument;
  /** Indexes that were invalid at this point: left so on purpose by the revisions before. */
  readonly invalidIndexes?: readonly string[];
  readonly at: string;
}

const FOLDER = 'apply';

/** A start of Alembic, and why it failed where whoever started it lived to say so. */
export interface UpgradeStart {
  readonly at: string;
  readonly failed?: string;
}

const STARTED = `${FOLDER}/started.json`;

/** This run has begun to change production: whatever it now finds between start and target may be its own doing. */
export async function recordStart(store: RunStore): Promise<UpgradeStart> {
  const start = { at: new Date().toISOString() };
  await store.record(STARTED, JSON.stringify(start));
  return start;
}

/** The next attempt finds what this start left, and its error takes the place of this one. @param why without secrets */
export async function recordFailure(store: RunStore, start: UpgradeStart, why: string): Promise<void> {
  await store.record(STARTED, JSON.stringify({ ...start, failed: why }));
}

export async function hasStarted({ store, folder }: RunStore, signal: AbortSignal): Promise<boolean> {
  return (await store.head(`${folder}/${STARTED}`, signal)) !== undefined;
}

/** The last start; undefined where there was none. */
export async function readStart({ store, folder }: RunStore, signal: AbortSignal): Promise<UpgradeStart | undefined> {
  const content = await store.get(`${folder}/${STARTED}`, signal);
  return content === undefined ? undefined : (JSON.parse(Buffer.from(content).toString('utf8')) as UpgradeStart);
}

export const boundaryMapName = (revision: string): string =>
  `${FOLDER}/objects-before-${encodeURIComponent(revision)}.json`;

export async function recordBoundary(store: RunStore, boundary: Boundary): Promise<void> {
  const name = `${FOLDER}/boundary-${encodeURIComponent(boundary.before)}.json`;
  await store.record(name, JSON.stringify(boundary));
}

export async function readBoundaries({ store, folder }: RunStore, signal: AbortSignal): Promise<readonly Boundary[]> {
  const objects = await store.list(`${folder}/${FOLDER}/boundary-`, signal);
  const boundaries = await Promise.all(
    objects.map(async ({ key }) => {
      const content = await store.get(key, signal);
      return content === undefined ? [] : [JSON.parse(Buffer.from(content).toString('utf8')) as Boundary];
    }),
  );
  return boundaries.flat().sort((one, other) => one.at.localeCompare(other.at));
}

const DROPS = `${FOLDER}/dropping-`;

/** Written down before the index is dropped: the attempt that does it may not live to tell. */
export const recordDrop =
  (store: RunStore, step: string) =>
  async (index: string): Promise<void> => {
    const content = JSON.stringify({ index, step, at: new Date().toISOString() });
    await store.record(`${DROPS}${encodeURIComponent(index)}.json`, content);
  };

/** Names of the indexes that attempts of this run, of whatever step, were about to drop. */
export async function readDrops({ store, folder }: RunStore, signal: AbortSignal): Promise<readonly string[]> {
  const prefix = `${folder}/${DROPS}`;
  return (await store.list(prefix, signal)).map(({ key }) =>
    decodeURIComponent(key.slice(prefix.length, -'.json'.length)),
  );
}

const COUNTERS = `${FOLDER}/counters-after.json`;

/** What the server had counted when the upgrade ended: what it counts beyond that, others wrote. */
export async function recordCounters(store: RunStore, counters: TableCounters): Promise<void> {
  await store.record(COUNTERS, JSON.stringify(counters));
}

/** Undefined where no upgrade of this run has ended well under the eyes of an attempt that lived to note it. */
export async function readRecordedCounters(
  { store, folder }: RunStore,
  signal: AbortSignal,
): Promise<TableCounters | undefined> {
  const content = await store.get(`${folder}/${COUNTERS}`, signal);
  return content === undefined ? undefined : (JSON.parse(Buffer.from(content).toString('utf8')) as TableCounters);
}
