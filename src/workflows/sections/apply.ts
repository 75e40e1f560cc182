/** Section 5 of the document: applying the migration in production. */
import { CancellationScope, isCancellation, sleep } from '@temporalio/workflow';
import type { MeasuresEvidence, ProductionState } from '../../contract/evidence.ts';
import { takeLease } from '../lease.ts';
import { engage, lowerFence, raiseFence } from '../obligations.ts';
import { stepRefused } from '../failure.ts';
import type { MigrationRun } from '../run.ts';
import { CHANGE, LOOK, TRIAL } from '../step-policies.ts';
import type { Reviewed } from './approval.ts';
import { captureAndVerify } from './backup.ts';
import { ownSteps } from './own-steps.ts';

/** What is known of production right before it is changed: recovery compares with this. */
export interface Before {
  readonly state: ProductionState;
  readonly baseline: MeasuresEvidence;
}

/** Everything up to the point of no return. */
export async function prepareProduction(run: MigrationRun, reviewed: Reviewed): Promise<Before> {
  await awaitWindow(run, reviewed);
  await refuseAnotherExecution(run);
  const baseline = await run.step('apply.window/baseline', 'Monitoring baseline', TRIAL, (activities) =>
    activities.captureMeasures(run.input()),
  );
  await engage(run, 'apply.freeze', ['freeze', 'jobs']);
  await raiseFence(run, 'apply.fence');
  await checkReplication(run);
  const state = await inspectAgain(run, reviewed);
  if (needsRefresh(run)) await refreshBackup(run, state);
  await createRecoveryPoint(run);
  await checkReplication(run);
  await proveFenceHeld(run);
  // A backup may have taken its time: the window that was approved must still be open, and the rest fit into it.
  judgeWindow(run, reviewed, 'backup taken');
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

async function awaitWindow(run: MigrationRun, reviewed: Reviewed): Promise<void> {
  const opens = run.state.windowStart === undefined ? Date.now() : Date.parse(run.state.windowStart);
  if (opens > Date.now()) {
    run.wait({ for: 'window', until: new Date(opens).toISOString() });
    await sleep(opens - Date.now());
    run.wait(undefined);
  }
  judgeWindow(run, reviewed, 'backup to be taken');
}

/**
 * Does what is left to do fit into what is left of the window, the way back included? A restore by the dump has to fit
 * unless something faster stands ready.
 */
function judgeWindow(run: MigrationRun, { dryRun }: Reviewed, backup: 'backup to be taken' | 'backup taken'): void {
  run.judge('apply.window', 'The change window is open, and the rest fits', () => {
    const now = Date.now();
    const end = run.state.windowEnd === undefined ? now + run.profile.window.length : Date.parse(run.state.windowEnd);
    run.state.windowStart ??= new Date(now).toISOString();
    run.state.windowEnd ??= new Date(end).toISOString();
    run.learn({ windowStart: run.state.windowStart, windowEnd: run.state.windowEnd });
    const left = end - now;
    const { upgradeMilliseconds: upgradeOnStaging } = dryRun.staging;
    const { restorePoint, snapshot } = run.profile.recoveryPoint;
    const isFaster = restorePoint || snapshot !== undefined;
    const { backup: dump, restore } = run.state.predictions;
    const dumpAgain = backup === 'backup to be taken' && needsRefresh(run) ? dump : 0;
    const wayBack = dumpAgain + (isFaster ? 0 : restore);
    const findings = [
      ...(left <= upgradeOnStaging
        ? [`the upgrade took ${upgradeOnStaging} ms on staging and ${Math.max(0, left)} ms of the window are left`]
        : []),
      ...(left <= wayBack
        ? [
            `backup and restore are predicted to take ${dumpAgain + restore} ms and ${Math.max(0, left)} ms of the window are left, and the profile has no faster way back (recoveryPoint)`,
          ]
        : []),
    ];
    if (findings.length > 0) throw stepRefused(`${findings.join('; ')}: ask for a longer window`, findings);
    return {
      windowStart: run.state.windowStart,
      windowEnd: run.state.windowEnd,
      upgradeOnStaging,
      predictedBackup: dumpAgain,
      predictedRestore: restore,
    };
  });
}

const checkReplication = (run: MigrationRun) =>
  run.step('apply.replication', 'Named standbys are streaming and near', LOOK, (activities) =>
    activities.checkReplication(run.input()),
  );

/** Production must still be what the plan was made for. */
async function inspectAgain(run: MigrationRun, { tooling }: Reviewed): Promise<ProductionState> {
  const state = await run.step(
    'apply.refresh-backup/state',
    'Production is still what the plan was made for',
    LOOK,
    (activities) => activities.inspectProduction(run.input()),
  );
  const plan = run.state.plan?.plan;
  run.judge('apply.refresh-backup', 'Objects and revisions equal the plan’s; age of the backup', () => {
    const findings: string[] = [];
    if (state.versionRows.join() !== tooling.graph.startRevisions.join()) {
      findings.push(
        `production stands at ${state.versionRows.join(', ') || 'no revision'}, the plan was made for ${tooling.graph.startRevisions.join(', ') || 'no revision'}`,
      );
    }
    if (state.objectMapDigest !== plan?.objectMapDigest) {
      findings.push(
        'production’s objects have changed since the backup the plan was made with (drift): look at what changed, then start a new run',
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
      const tables = written
        .slice(0, 5)
        .map(({ table, inserted, updated, deleted }) => `${table} (+${inserted} ~${updated} -${deleted})`);
      throw stepRefused(
        `somebody wrote behind the fence, or may have: ${[...tables, ...unknown.slice(0, 5)].join(', ')}. Find out who switches default_transaction_read_only off, or use the service’s maintenance mode`,
      );
    }
    return { since: fence.since };
  });
}

/** Only a backup taken behind the fence holds everything: then a restore loses nothing. */
const needsRefresh = ({ profile, state }: MigrationRun): boolean =>
  profile.fence.kind !== 'none' || backupAge({ state }) > profile.backup.maximumAge;

const backupAge = ({ state }: Pick<MigrationRun, 'state'>): number =>
  Date.now() - Date.parse(state.latestBackup?.capturedAt ?? '1970-01-01');

/** The upgrade itself. The window's end is its deadline, and an abort stops it: both are interruptions of the run. */
export async function upgrade(
  run: MigrationRun,
  { access, tooling }: Reviewed,
  before: Before,
  deadlineAt: number,
): Promise<void> {
  if (!run.holdsLease) await takeLease(run, access.production);
  const deadline = new CancellationScope();
  deadline
    .run(() => interruptAt(run, deadlineAt))
    .catch((error: unknown) => {
      if (!isCancellation(error)) throw error;
    });
  try {
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
        }),
    );
    if (how !== 'already-applied') run.state.forgetChecks();
  } finally {
    deadline.cancel();
  }
}

async function interruptAt(run: MigrationRun, deadlineAt: number): Promise<void> {
  await sleep(Math.max(1, deadlineAt - Date.now()));
  run.interrupt({
    kind: 'deadline',
    message: `the change window ended (${new Date().toISOString()}) before the upgrade did`,
  });
}

/** Checks that only read, while the fence is up; then it is lifted, and checks that write follow, on what is not paused. */
export async function smoke(run: MigrationRun): Promise<void> {
  await once(run, 'apply.smoke', () =>
    run.step('apply.smoke', 'Smoke tests that only read', TRIAL, (activities) =>
      activities.runChecks({ ...run.input(), checks: run.profile.checks.smoke }),
    ),
  );
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
