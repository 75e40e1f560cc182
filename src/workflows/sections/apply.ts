/** Section 5 of the document: applying the migration in production. */
import type { FenceHeld } from '../../contract/evidence/fence.ts';
import type { MeasuresEvidence } from '../../contract/evidence/measures.ts';
import type { ProductionState } from '../../contract/evidence/production.ts';
import { takeLease } from '../lease.ts';
import { engage, lowerFence, raiseFence } from '../obligations.ts';
import { stepRefused } from '../failure.ts';
import type { MigrationRun } from '../run.ts';
import { CHANGE, LOOK, TRIAL } from '../step-policies.ts';
import type { Reviewed } from '../plan.ts';
import { captureAndVerify } from './backup.ts';
import { ownSteps } from './own-steps.ts';
import { judgeWayBack, judgeWindow, withDeadline } from './window.ts';

/** What is known of production right before it is changed: recovery compares with this. */
export interface Before {
  readonly state: ProductionState;
  readonly baseline: MeasuresEvidence;
}

/** Everything up to the upgrade. */
export async function prepareProduction(run: MigrationRun, reviewed: Reviewed): Promise<Before> {
  judgeWindow(run, needsRefresh(run) ? 'backup to be taken' : 'backup taken');
  await refuseAnotherExecution(run);
  const baseline = await run.step('apply.window/baseline', 'Monitoring baseline', TRIAL, (activities) =>
    activities.captureMeasures(run.input()),
  );
  await engage(run, 'apply.freeze', ['freeze', 'jobs']);
  await raiseFence(run, 'apply.fence', 'migration');
  await checkReplication(run);
  const state = await inspectAgain(run, reviewed);
  if (needsRefresh(run)) await refreshBackup(run, state);
  await createRecoveryPoint(run);
  await checkReplication(run);
  await proveFenceHeld(run);
  // A backup may have taken its time: the window that was approved must still be open, and the rest fit into it.
  judgeWindow(run, 'backup taken');
  return { state, baseline };
}

/** A reset of the workflow copies the history, approvals included: an approval holds for the execution it was given to. */
async function refuseAnotherExecution(run: MigrationRun): Promise<void> {
  const { currentRunId } = await run.step(
    'apply.window/run',
    'This execution is the one that was approved',
    LOOK,
    (activities) => activities.identifyRun(),
  );
  if (currentRunId !== run.state.plan?.plan.runId) {
    throw stepRefused(
      'the workflow was reset after its approval: the approval is void here. See that what the earlier execution switched is put back, then start a new run',
    );
  }
}

const checkReplication = (run: MigrationRun) =>
  run.step('apply.replication', 'Named standbys are streaming and near', LOOK, (activities) =>
    activities.checkReplication(run.input()),
  );

/** Production must still be what the plan was made for. */
async function inspectAgain(run: MigrationRun, { tooling, rehearsed }: Reviewed): Promise<ProductionState> {
  const state = await run.step(
    'apply.refresh-backup/state',
    'Production is still what the plan was made for',
    LOOK,
    (activities) => activities.inspectProduction({ ...run.input(), expected: rehearsed.production.objectMap }),
  );
  const plan = run.state.plan?.plan;
  run.judge('apply.refresh-backup', 'Objects and revisions equal the plan’s; age of the backup', () => {
    const findings: string[] = [];
    const { systemIdentifier, database } = state.identity;
    // A secret may name another server by now, and a clone has the same objects.
    if (systemIdentifier !== plan?.production.systemIdentifier || database !== plan.production.database) {
      findings.push(
        `production is database ${database} of the server with system identifier ${systemIdentifier} now, the plan was made for ${plan?.production.database ?? 'none'} of ${plan?.production.systemIdentifier ?? 'none'}: see what the profile’s address leads to, then start a new run`,
      );
    }
    if (state.versionRows.join() !== tooling.graph.startRevisions.join()) {
      findings.push(
        `production stands at ${state.versionRows.join(', ') || 'no revision'}, the plan was made for ${tooling.graph.startRevisions.join(', ') || 'no revision'}`,
      );
    }
    if (state.objectMapDigest !== plan?.objectMapDigest) {
      const differences = state.differences ?? [];
      findings.push(
        `production’s objects have changed since the backup the plan was made with (drift): look at who changed them, then start a new run. ${differences.slice(0, 20).join('; ')}${differences.length > 20 ? ` and ${differences.length - 20} more` : ''}`,
        ...differences.slice(20),
      );
    }
    if (findings.length > 0) throw stepRefused(findings.join('; '), findings);
    return { age: backupAge(run), maximumAge: run.profile.backup.maximumAge, fence: run.profile.fence.kind };
  });
  return state;
}

async function refreshBackup(run: MigrationRun, state: ProductionState): Promise<void> {
  const fresh = await captureAndVerify(run, {
    capture: 'apply.refresh-backup/capture',
    record: 'apply.refresh-backup/record',
    verify: 'apply.refresh-backup/verify',
  });
  run.judge('apply.refresh-backup/compare', 'The fresh backup holds what the plan was made for', () => {
    if (
      fresh.objectMapDigest !== run.state.plan?.plan.objectMapDigest ||
      fresh.versionRows.join() !== state.versionRows.join()
    ) {
      throw stepRefused(
        'production changed while the backup was refreshed: look at what changed, then start a new run',
      );
    }
    return { uri: fresh.uri };
  });
}

async function createRecoveryPoint(run: MigrationRun): Promise<void> {
  const { restorePoint, snapshot } = run.profile.recoveryPoint;
  if (!restorePoint && snapshot === undefined) return;
  const step = run.state.nextStepId('apply.recovery-point');
  await run.step('apply.recovery-point', 'A way back that is faster than the dump', TRIAL, (activities) =>
    activities.createRecoveryPoint({ ...run.input(), step }),
  );
}

/** A fence holds well-behaved clients: that nobody went round it, the counters of the tables tell. */
async function proveFenceHeld(run: MigrationRun): Promise<void> {
  const { fence } = run.state;
  if (fence === undefined) return;
  const { held, written, unknown } = await run.step(
    'apply.fence/held',
    'Nobody wrote since the fence went up',
    LOOK,
    (activities) => activities.proveFenceHeld({ ...run.input(), fence }),
  );
  run.judge('apply.fence/verdict', 'The fence has held', () => {
    if (!held) {
      throw stepRefused(
        `${writersText(written, unknown)}. Find out who switches default_transaction_read_only off, or use the service’s maintenance mode`,
      );
    }
    return { since: fence.since };
  });
}

/** By the counters: who it was they do not tell. */
export const writersText = (written: FenceHeld['written'], unknown: FenceHeld['unknown']): string =>
  `somebody wrote behind the fence, or may have: ${[
    ...written
      .slice(0, 5)
      .map(({ table, inserted, updated, deleted }) => `${table} (+${inserted} ~${updated} -${deleted})`),
    ...unknown.slice(0, 5),
  ].join(', ')}`;

/** Only a backup taken behind the fence holds everything: then a restore loses nothing. */
const needsRefresh = ({ profile, state }: MigrationRun): boolean =>
  profile.fence.kind !== 'none' || backupAge({ state }) > profile.backup.maximumAge;

const backupAge = ({ state }: Pick<MigrationRun, 'state'>): number => Date.now() - state.backupSince;

/** The upgrade itself. The point of no return is its deadline, and an abort stops it: both are interruptions of the run. */
export async function upgrade(
  run: MigrationRun,
  { access, tooling, rehearsed }: Reviewed,
  before: Before,
): Promise<void> {
  if (!run.holdsLease) await takeLease(run, access.production);
  judgeWayBack(run, 'apply.upgrade/window', run.state.predictions.upgrade);
  await withDeadline(run, async () => {
    const { how } = await run.step(
      'apply.upgrade',
      `alembic upgrade ${tooling.graph.targetRevision}`,
      CHANGE,
      (activities) =>
        activities.upgradeProduction({
          ...run.input(),
          graph: tooling.graph,
          before: before.state,
          planRunId: run.state.plan?.plan.runId ?? '',
          footprint: rehearsed.rehearsal.trial.upgrade.document,
        }),
    );
    run.state.wasApplied = true;
    if (how !== 'already-applied') run.state.forgetChecks();
  });
}

/** Checks that only read, while the fence is up; then it is lifted, and checks that write follow, on what is not paused. */
export async function smoke(run: MigrationRun): Promise<void> {
  await once(run, 'apply.smoke', () =>
    run.step('apply.smoke', 'Smoke tests that only read', TRIAL, (activities) =>
      activities.runChecks({ ...run.input(), checks: run.profile.checks.smoke }),
    ),
  );
  // From the first write of a user on, no way back is without loss: there must be time to take it.
  if (run.state.fence !== undefined) judgeWayBack(run, 'apply.open/window', 0);
  await lowerFence(run, 'apply.open');
  await once(run, 'apply.smoke-writes', () =>
    run.step('apply.smoke-writes', 'Smoke tests that write', TRIAL, (activities) =>
      activities.runChecks({ ...run.input(), checks: run.profile.checks.smokeWrites }),
    ),
  );
  await ownSteps(run, 'apply');
}

/** After a decision to retry or continue, what has passed or was overruled is not asked again. */
export async function once(run: MigrationRun, id: string, work: () => Promise<unknown>): Promise<void> {
  if (!run.state.isSettled(id)) await work();
}
