import { reconcile, type Reconciliation } from '../alembic/reconcile.ts';
import type { EvaluateInput, Reality } from '../contract/evidence.ts';
import { withConnection } from '../postgres/connection.ts';
import type { ConnectionTarget } from '../postgres/connection-url.ts';
import { dropIndexes } from '../postgres/catalog/leftover-indexes.ts';
import { compareMaps, describeChange } from '../postgres/catalog/object-map-change.ts';
import { type ProductionReading, readProductionState } from '../postgres/catalog/production-state.ts';
import type { RunStore } from './run-store.ts';
import { readStoredObjectMap } from './stored-text.ts';
import { type Boundary, hasStarted, readBoundaries } from './upgrade-record.ts';

export interface ReadingOptions {
  readonly administrator: ConnectionTarget;
  readonly migratorRole: string;
  readonly step: string;
  readonly signal: AbortSignal;
}

/** Reads production in one snapshot. */
export const readProduction = (
  { run, profile }: EvaluateInput,
  { administrator, migratorRole, step, signal }: ReadingOptions,
): Promise<ProductionReading> =>
  withConnection(administrator, { runId: run.runId, step, signal }, (client) =>
    readProductionState(client, { versionTable: profile.alembic.versionTable, migratorRole }),
  );

export interface SettledProduction {
  readonly reading: ProductionReading;
  readonly found: Reconciliation;
  /** Indexes that an interrupted revision had built, and that were dropped to come back to a clean state. */
  readonly droppedIndexes: readonly string[];
}

/**
 * What the upgrade has left, judged from the database and from what was written down between revisions. Where all that is
 * left of an interrupted revision are whole indexes, they are dropped: an index holds no data, and the server may well
 * finish a concurrent build whose client has died.
 */
export async function settleProduction(
  input: EvaluateInput,
  options: ReadingOptions,
  store: RunStore,
): Promise<SettledProduction> {
  const reading = await readProduction(input, options);
  const boundaries = await readBoundaries(store, options.signal);
  const begun = await hasStarted(store, options.signal);
  const found = judge(input, reading, boundaries, begun);
  const leftover = begun ? await leftoverIndexes(input, { reading, found }, boundaries, store, options.signal) : [];
  if (leftover.length === 0) return { reading, found, droppedIndexes: [] };
  const { dropped } = await withConnection(
    options.administrator,
    { runId: input.run.runId, step: options.step, signal: options.signal, statementTimeout: 180_000 },
    (client) => dropIndexes(client, leftover),
  );
  const after = await readProduction(input, options);
  return { reading: after, found: judge(input, after, boundaries, begun), droppedIndexes: dropped };
}

const judge = (
  { graph, before }: EvaluateInput,
  { state }: ProductionReading,
  boundaries: readonly Boundary[],
  begun: boolean,
): Reconciliation =>
  reconcile({
    start: { rows: before.versionRows, objectMapDigest: before.objectMapDigest },
    path: graph.path,
    current: { rows: state.versionRows, objectMapDigest: state.objectMapDigest },
    boundaries,
    begun,
  });

/** Names of the indexes, when nothing else differs from the state the interrupted revision began in. */
async function leftoverIndexes(
  { graph, before }: EvaluateInput,
  { reading, found }: Pick<SettledProduction, 'reading' | 'found'>,
  boundaries: readonly Boundary[],
  store: RunStore,
  signal: AbortSignal,
): Promise<readonly string[]> {
  if (found.kind !== 'partly-applied' || found.clean !== 'no') return [];
  // A revision in one transaction leaves no index behind: then it is somebody else's.
  const interrupted = graph.path.find(({ revision }) => revision === found.remaining[0]);
  if (interrupted === undefined || interrupted.outsideTransaction === 'nothing') return [];
  const rows = reading.state.versionRows.join();
  const clean =
    boundaries.findLast((boundary) => boundary.rows.join() === rows)?.objectMap ??
    (rows === before.versionRows.join() ? before.objectMap : undefined);
  if (clean === undefined) return [];
  const { added, removed, changed } = compareMaps(await readStoredObjectMap(store, clean, signal), reading.map);
  const onlyIndexes = removed.length === 0 && changed.length === 0 && added.every(({ kind }) => kind === 'index');
  return onlyIndexes ? added.map(({ name }) => name) : [];
}

/** How production's objects differ from those of before the upgrade, in words. */
export async function differencesFromBefore(
  { before }: EvaluateInput,
  { state, map }: ProductionReading,
  store: RunStore,
  signal: AbortSignal,
): Promise<readonly string[]> {
  if (state.objectMapDigest === before.objectMapDigest) return [];
  return describeChange(compareMaps(await readStoredObjectMap(store, before.objectMap, signal), map));
}

export function asReality(found: Reconciliation): Reality {
  if (found.kind !== 'partly-applied') return found;
  const { kind, revisions, clean, why } = found;
  return { kind, revisions, clean, why };
}
