import type { RecoveryActivities } from '../../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import type { RestoreInput, SalvageEvidence, SwapInput, WayBackCost } from '../../contract/evidence/restore.ts';
import { drillFolder } from '../../archive/backup-names.ts';
import { versionTableName } from '../../archive/ledger.ts';
import { predictRestore } from '../../archive/restore-prediction.ts';
import { salvageDifferences } from '../../archive/salvage.ts';
import { fetchLedger } from '../../archive/stored-backup.ts';
import { captureObjectMap, type DatabaseObject, type ObjectMap } from '../../postgres/catalog/object-map.ts';
import { withConnection } from '../../postgres/connection.ts';
import { refuseForeignBackup } from '../../postgres/identity.ts';
import { wayBackCost, writtenBy } from '../../postgres/contents/way-back-cost.ts';
import { counterDelta, readCounters } from '../../postgres/contents/write-counters.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { withMigrationLock } from '../migration-lock.ts';
import { rowsArchiveName, type RunStore, withRunStore } from '../run-store.ts';

type Needed = Pick<ActivityDependencies, 'secrets'>;

const COST = 'recovery.cost';
const SALVAGE = 'recovery.salvage';

export function createWayBackActivities(
  dependencies: Needed,
): Pick<RecoveryActivities, 'estimateWayBack' | 'salvageRows'> {
  const { secrets } = dependencies;
  return {
    estimateWayBack: (input) =>
      runStep(secrets, (tools) =>
        withRunStore(secrets, input, tools.signal, (store) =>
          withinPatience(tools.signal, (signal) => estimate(dependencies, input, { ...tools, signal }, store)),
        ),
      ),

    salvageRows: (input) =>
      runStep(secrets, (tools) =>
        withRunStore(secrets, input, tools.signal, (store) =>
          withMigrationLock(dependencies, input, SALVAGE, tools.signal, (url, signal) =>
            salvage(input, { ...tools, signal }, store, url),
          ),
        ),
      ),
  };
}

/** A person waits for the answer: what takes longer is not worth waiting for. Milliseconds. */
const PATIENCE = 10_000;

async function withinPatience<T>(cancelled: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const patience = AbortSignal.timeout(PATIENCE);
  try {
    return await work(AbortSignal.any([cancelled, patience]));
  } catch (error) {
    if (!patience.aborted || cancelled.aborted) throw error;
    throw new StepError(
      STEP_ERRORS.unavailable,
      `what a restore would take back could not be found out within ${PATIENCE / 1000} s: production or the store is slow to answer`,
    );
  }
}

/**
 * By the counters taken with the backup and those of now. They count aborted writes as well, so what they say is at most
 * what was written; what a session has not reported yet, up to some seconds of writes, is not in them.
 */
async function estimate(
  { secrets }: Needed,
  { run, profile, backup, fencedSince }: RestoreInput,
  { signal, progress }: StepTools,
  { store }: RunStore,
): Promise<WayBackCost> {
  progress({ phase: 'reading the ledger' });
  const identity = await secrets.resolve(profile.backup.identity, profile, signal);
  const url = await secrets.resolve(profile.databases.production.administrator, profile, signal);
  const [ledger, { counters, map }, prediction] = await Promise.all([
    fetchLedger(store, backup, identity, signal),
    withConnection(url, { runId: run.runId, step: COST, signal }, async (client) => {
      await refuseForeignBackup(client, backup.database);
      return { counters: await readCounters(client), map: await captureObjectMap(client) };
    }),
    predictRestore(store, drillFolder(profile.backup, run.service), backup, signal),
  ]);
  const { written, unknown } = counterDelta(ledger.counters, counters);
  const versionTable = versionTableName(profile.alembic.versionTable);
  return wayBackCost({
    basis: 'statistics',
    backup,
    tables: written.filter(({ table }) => table !== versionTable),
    unknown: [
      ...unknown.filter((table) => table !== versionTable),
      ...(writtenBy(backup.capturedAt, fencedSince) === 'migration'
        ? []
        : goneColumns(ledger.objectMap, map).map(
            (column) => `${column} (what was written there since, before the migration dropped it)`,
          )),
    ],
    fencedSince,
    predictedMilliseconds: prediction.milliseconds,
    now: Date.now(),
  });
}

/** Columns of tables that are still there. A generated one held nothing of its own. */
function goneColumns(before: ObjectMap, now: ObjectMap): readonly string[] {
  const names = (kind: DatabaseObject['kind'], { objects }: ObjectMap): ReadonlySet<string> =>
    new Set(objects.filter((object) => object.kind === kind).map(({ name }) => name));
  const [tables, columns] = [names('table', now), names('column', now)];
  return before.objects
    .filter(({ kind, name }) => kind === 'column' && !columns.has(name))
    .map(({ name }) => name)
    .filter((name) => [...tables].some((table) => name.startsWith(`${table}.`)));
}

async function salvage(
  { run, profile, backup, fencedSince, restored }: SwapInput,
  { signal, progress }: StepTools,
  { store, folder }: RunStore,
  url: string,
): Promise<SalvageEvidence> {
  const { service, releaseTag, changeTicket } = run;
  const { uri, capturedAt } = backup;
  const found = await salvageDifferences({
    url,
    copy: restored.freshDatabase,
    versionTable: profile.alembic.versionTable,
    runId: run.runId,
    step: SALVAGE,
    store,
    folder,
    name: rowsArchiveName('salvage'),
    recipients: profile.backup.recipients,
    facts: {
      service,
      releaseTag,
      changeTicket,
      backup: { uri, capturedAt },
      by: writtenBy(capturedAt, fencedSince),
    },
    signal,
    progress: (now) => progress({ ...now }),
  });
  return {
    cost: wayBackCost({
      basis: 'comparison',
      backup,
      tables: found.tables,
      unknown: found.unknown,
      fencedSince,
      // No prediction any more: this is how long it took.
      predictedMilliseconds: restored.milliseconds,
      now: Date.now(),
    }),
    lost: found.lost,
    archive: found.archive,
    manifest: found.manifest,
  };
}
