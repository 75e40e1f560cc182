import { versionTableName } from '../../archive/ledger.ts';
import { fetchLedger } from '../../archive/stored-backup.ts';
import type { RecoveryActivities } from '../../contract/activities.ts';
import type { BackedUpRows, BackedUpRowsInput } from '../../contract/evidence/rollback.ts';
import { withConnection, withSessions } from '../../postgres/connection.ts';
import { compareContents, type DatabaseContents, readContents } from '../../postgres/contents/contents.ts';
import { sequencesBehind } from '../../postgres/contents/sequences.ts';
import { refuseForeignBackup } from '../../postgres/identity.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { withMigrationLock } from '../migration-lock.ts';
import { type RunStore, withRunStore } from '../run-store.ts';

const STEP = 'recovery.rollback/rows';

/** Entries that the history holds. */
const FINDINGS = 100;

/**
 * Compares production's rows and large objects with the ledger of a backup that was taken behind the fence. Nobody writes, so
 * each session may read in a snapshot of its own.
 */
export const compareRowsWithBackup =
  (deps: Pick<ActivityDependencies, 'secrets'>): RecoveryActivities['compareRowsWithBackup'] =>
  (input) =>
    runStep(deps.secrets, (tools) =>
      withRunStore(deps.secrets, input, tools.signal, (store) =>
        withMigrationLock(deps, input, STEP, tools.signal, (url, signal) =>
          compareRows(deps, input, { ...tools, signal }, store, url),
        ),
      ),
    );

async function compareRows(
  { secrets }: Pick<ActivityDependencies, 'secrets'>,
  { run, profile, backup }: BackedUpRowsInput,
  { signal, progress }: StepTools,
  { store }: RunStore,
  url: string,
): Promise<BackedUpRows> {
  progress({ phase: 'reading the ledger' });
  const identity = await secrets.resolve(profile.backup.identity, profile, signal);
  const { contents: recorded } = await fetchLedger(store, backup, identity, signal);
  const began = performance.now();
  const session = { runId: run.runId, step: STEP, signal, statementTimeout: 0 };
  const behind = await withConnection(url, session, async (client) => {
    await refuseForeignBackup(client, backup.database);
    return sequencesBehind(recorded.sequences, client);
  });
  const found = await withSessions(url, session, profile.restore.jobs, (sessions) =>
    readContents(sessions, {
      sampleAbove: Number.POSITIVE_INFINITY,
      like: recorded,
      progress: (table, done, of) => progress({ phase: 'compare', table, share: done / of }),
    }),
  );
  // Its rows are those of before already; a table that the upgrade made may be left by the downgrade.
  const leaveOut = versionTableName(profile.alembic.versionTable);
  const findings = [...compareContents(without(leaveOut, recorded), without(leaveOut, found)), ...behind];
  return {
    findings: findings.slice(0, FINDINGS),
    tables: found.tables.length,
    rows: found.tables.reduce((sum, { rows }) => sum + rows, 0),
    samples: found.tables.filter(({ sample }) => sample.kind === 'one-in').length,
    largeObjects: found.largeObjects.count,
    milliseconds: Math.round(performance.now() - began),
  };
}

const without = (name: string, { tables, ...contents }: DatabaseContents): DatabaseContents => ({
  ...contents,
  tables: tables.filter(({ table }) => table !== name),
});
