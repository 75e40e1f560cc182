import type { BackupEvidence, RestorePrediction } from '../contract/evidence/backup.ts';
import type { DrillRecord } from '../contract/evidence/drill.ts';
import type { ObjectStore } from './object-store.ts';

/**
 * A restore takes about this many times as long as the dump did: rows are written, indexes built, everything is read once
 * more to be compared. Measured in docs/decisions/0008; a drill tells it for the service itself.
 */
const TIMES_THE_DUMP = 4;

/**
 * Milliseconds that bringing a backup back will take: as the last drill that passed, in proportion to the size, else by the
 * time the dump took.
 *
 * @param drills folder of the service's drills, see `drillFolder`
 */
export async function predictRestore(
  store: ObjectStore,
  drills: string,
  backup: Pick<BackupEvidence, 'database' | 'milliseconds'>,
  signal: AbortSignal,
): Promise<RestorePrediction> {
  const last = await lastPassedDrill(store, drills, signal);
  if (last?.milliseconds === undefined || last.milliseconds === null || last.backup.databaseBytes <= 0) {
    return { from: 'dump', milliseconds: Math.round(backup.milliseconds * TIMES_THE_DUMP) };
  }
  // Half of the time of a small database is start-up: it does not shrink with the size.
  const scale = Math.max(1, backup.database.sizeBytes / last.backup.databaseBytes);
  return { from: 'drill', milliseconds: Math.round(last.milliseconds * scale) };
}

async function lastPassedDrill(
  store: ObjectStore,
  drills: string,
  signal: AbortSignal,
): Promise<DrillRecord | undefined> {
  const objects = [...(await store.list(`${drills}/`, signal))]
    .filter(({ key }) => key.endsWith('.json'))
    .sort((one, other) => (one.modifiedAt < other.modifiedAt ? 1 : -1));
  for (const { key } of objects) {
    const content = await store.get(key, signal);
    const record = content === undefined ? undefined : parseDrill(Buffer.from(content).toString('utf8'));
    if (record?.outcome === 'passed') return record;
  }
  return undefined;
}

/** What cannot be read predicts nothing: a prediction is no reason to fail. */
function parseDrill(text: string): DrillRecord | undefined {
  try {
    const value = JSON.parse(text) as Partial<DrillRecord> | null;
    return value?.format === 'migration-runbook/drill/1' && typeof value.backup?.databaseBytes === 'number'
      ? (value as DrillRecord)
      : undefined;
  } catch {
    return undefined;
  }
}
