import { reconcile, type Reconciliation } from '../alembic/reconcile.ts';
import type { EvaluateInput, Reality } from '../contract/evidence.ts';
import { withConnection } from '../postgres/connection.ts';
import type { ConnectionTarget } from '../postgres/connection-url.ts';
import { compareMaps, describeChange } from '../postgres/object-map-change.ts';
import { type ProductionReading, readProductionState } from '../postgres/production-state.ts';
import type { RunStore } from './run-store.ts';
import { readStoredObjectMap } from './stored-text.ts';
import { readBoundaries } from './upgrade-record.ts';

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

/** What the upgrade has left, judged from the database and from what was written down between revisions. */
export async function judgeProduction(
  input: EvaluateInput,
  reading: ProductionReading,
  store: RunStore,
  signal: AbortSignal,
): Promise<Reconciliation> {
  return reconcile({
    start: { rows: input.before.versionRows, objectMapDigest: input.before.objectMapDigest },
    path: input.graph.path,
    current: { rows: reading.state.versionRows, objectMapDigest: reading.state.objectMapDigest },
    boundaries: await readBoundaries(store, signal),
  });
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
