import type { Client } from 'pg';
import { reconcile, type Reconciliation } from '../../alembic/reconcile.ts';
import type { EvaluateInput, Reality } from '../../contract/evidence/rollback.ts';
import { withConnection } from '../../postgres/connection.ts';
import type { ConnectionTarget } from '../../postgres/connection-url.ts';
import { dropIndexes, dropPartitionedIndex, listInvalidIndexes } from '../../postgres/catalog/leftover-indexes.ts';
import type { ObjectMap } from '../../postgres/catalog/object-map.ts';
import { compareMaps, describeChange, type ObjectMapChange } from '../../postgres/catalog/object-map-change.ts';
import { type ProductionReading, readProductionState } from '../../postgres/catalog/production-state.ts';
import type { RunStore } from '../run-store.ts';
import { readStoredObjectMap } from '../stored-text.ts';
import { type Boundary, hasStarted, readBoundaries, recordDrop } from './upgrade-record.ts';

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
  /** Invalid indexes that an interrupted revision has left and that are still there, with the reason. */
  readonly invalidIndexes: readonly { readonly name: string; readonly why: string }[];
}

/**
 * What the upgrade has left, judged from the database and from what was written down between revisions. Where all that is
 * left of an interrupted revision are indexes, they are dropped: an index holds no data, and the server may well finish a
 * concurrent build whose client has died. With an invalid index that stays nothing is clean: `CREATE INDEX IF NOT EXISTS`
 * would take it for the index it wants.
 */
export async function settleProduction(
  input: EvaluateInput,
  options: ReadingOptions,
  store: RunStore,
): Promise<SettledProduction> {
  const boundaries = await readBoundaries(store, options.signal);
  const begun = await hasStarted(store, options.signal);
  const first = await readProduction(input, options);
  if (!begun) return { ...judged(input, first, boundaries, begun), droppedIndexes: [], invalidIndexes: [] };
  const invalid = await settleInvalidIndexes(input, options, first, boundaries, store);
  const reading = invalid.dropped.length === 0 ? first : await readProduction(input, options);
  const { found } = judged(input, reading, boundaries, begun);
  const whole = await leftoverIndexes(input, { reading, found }, boundaries, store, options.signal);
  const { dropped } =
    whole.length === 0
      ? { dropped: [] }
      : await onProduction(input, options, (client) => dropIndexes(client, whole, recordDrop(store, options.step)));
  const after =
    dropped.length === 0 ? { reading, found } : judged(input, await readProduction(input, options), boundaries, begun);
  return {
    reading: after.reading,
    found: invalid.left.length === 0 ? after.found : withInvalidIndexes(input, after.found, invalid.left),
    droppedIndexes: [...invalid.dropped, ...dropped],
    invalidIndexes: invalid.left,
  };
}

const onProduction = <T>(
  { run }: EvaluateInput,
  { administrator, step, signal }: ReadingOptions,
  work: (client: Client) => Promise<T>,
): Promise<T> => withConnection(administrator, { runId: run.runId, step, signal, statementTimeout: 180_000 }, work);

const judged = (
  { graph, before }: EvaluateInput,
  reading: ProductionReading,
  boundaries: readonly Boundary[],
  begun: boolean,
): Pick<SettledProduction, 'reading' | 'found'> => ({
  reading,
  found: reconcile({
    start: { rows: before.versionRows, objectMapDigest: before.objectMapDigest },
    path: graph.path,
    targets: graph.targetRevisions,
    current: { rows: reading.state.versionRows, objectMapDigest: reading.state.objectMapDigest },
    boundaries,
    begun,
  }),
});

/**
 * The guard has dropped what a concurrent build left. What remains could not be dropped, or belongs to a partitioned table:
 * such an index is invalid until every partition has one, and a revision may leave it so on purpose. At the rows of the start
 * no revision has been completed, so there it is the interrupted one's.
 */
async function settleInvalidIndexes(
  input: EvaluateInput,
  options: ReadingOptions,
  { state }: ProductionReading,
  boundaries: readonly Boundary[],
  store: RunStore,
): Promise<{ readonly dropped: readonly string[]; readonly left: SettledProduction['invalidIndexes'] }> {
  const { before, profile } = input;
  const rows = state.versionRows.join();
  const known = new Set([
    ...before.invalidIndexes,
    ...(boundaries.findLast((boundary) => boundary.rows.join() === rows)?.invalidIndexes ?? []),
  ]);
  if (state.invalidIndexes.every((name) => known.has(name))) return { dropped: [], left: [] };
  return onProduction(input, options, async (client) => {
    const dropped: string[] = [];
    const left: { name: string; why: string }[] = [];
    for (const { name, building, partitioned } of await listInvalidIndexes(client)) {
      if (known.has(name) || building) continue;
      const why = !partitioned
        ? 'it could not be dropped'
        : rows === before.versionRows.join()
          ? await dropPartitionedIndex(client, name, {
              before: namesOfIndexes(await readStoredObjectMap(store, before.objectMap, options.signal)),
              lockTimeout: profile.guard.lockTimeout,
              beforeDrop: recordDrop(store, options.step),
            })
          : 'it belongs to a partitioned table, and a revision that was completed may have left it so';
      if (why === undefined) dropped.push(name);
      else left.push({ name, why });
    }
    return { dropped, left };
  });
}

const namesOfIndexes = ({ objects }: ObjectMap): ReadonlySet<string> =>
  new Set(objects.filter(({ kind }) => kind === 'index').map(({ name }) => name));

function withInvalidIndexes(
  { graph }: EvaluateInput,
  found: Reconciliation,
  left: SettledProduction['invalidIndexes'],
): Reconciliation {
  if (found.kind === 'foreign' || found.kind === 'fully-applied') return found;
  const why = `left invalid: ${left.map((index) => `${index.name} (${index.why})`).join(', ')}`;
  const standing =
    found.kind === 'partly-applied' ? found : { revisions: [], remaining: graph.path.map(({ revision }) => revision) };
  return {
    kind: 'partly-applied',
    revisions: standing.revisions,
    remaining: standing.remaining,
    clean: 'no',
    why: found.kind === 'partly-applied' && found.clean === 'no' ? `${found.why}; ${why}` : why,
  };
}

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

export interface ComparedWithBefore {
  /** How production's objects differ from those of before the upgrade, in words. */
  readonly differences: readonly string[];
  /** Constraints, by name, that are not validated and were not there before or were validated then. */
  readonly notValidated: readonly string[];
}

export async function compareWithBefore(
  { before }: EvaluateInput,
  { state, map }: ProductionReading,
  store: RunStore,
  signal: AbortSignal,
): Promise<ComparedWithBefore> {
  if (state.objectMapDigest === before.objectMapDigest) return { differences: [], notValidated: [] };
  const change = compareMaps(await readStoredObjectMap(store, before.objectMap, signal), map);
  return { differences: describeChange(change), notValidated: notValidated(change) };
}

/** Those of tables are objects of their own; those of domains stand in the definition of the type. */
function notValidated({ added, changed }: ObjectMapChange): readonly string[] {
  const marked = (definition: string): boolean => definition.includes(' NOT VALID');
  return [
    ...added.filter(({ definition }) => marked(definition)),
    ...changed.filter(({ before, after }) => marked(after) && !marked(before)),
  ]
    .filter(({ kind }) => kind === 'constraint' || kind === 'type')
    .map(({ kind, name }) => `${kind} ${name} (${kind === 'type' ? 'with a constraint ' : ''}not validated)`);
}

export const differencesFromBefore = async (
  ...args: Parameters<typeof compareWithBefore>
): Promise<readonly string[]> => (await compareWithBefore(...args)).differences;

export function asReality(found: Reconciliation): Reality {
  if (found.kind !== 'partly-applied') return found;
  const { kind, revisions, clean, why } = found;
  return { kind, revisions, clean, why };
}
