import { CancellationScope, ParentClosePolicy, sleep, startChild, workflowInfo } from '@temporalio/workflow';
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import type { DatabaseIdentity } from '../contract/evidence/production.ts';
import { databaseLease, leaseIdOf } from './database-lease.ts';
import type { Stage } from '../contract/status.ts';
import { stepRefused } from './failure.ts';
import type { MigrationRun } from './run.ts';
import { LOOK } from './step-policies.ts';

const STAGES_THAT_STOP: readonly Stage[] = ['before-upgrade', 'upgrade', 'validation'];

/** The lease of a run that has just ended is closed by the server a moment later. */
const ATTEMPTS = 5;

/**
 * Takes the lease of production. Two profiles of one database meet here, whatever their services are called.
 *
 * @throws ApplicationFailure `StepRefused` when another run holds it
 */
export async function takeLease(run: MigrationRun, production: DatabaseIdentity): Promise<void> {
  const leaseId = leaseIdOf(production.systemIdentifier, production.database);
  for (let attempt = 1; ; attempt += 1) {
    // Outlives an abort: the lease is held until everything has been put back.
    if (await CancellationScope.nonCancellable(() => started(run, leaseId, production.database))) return;
    const holder = await run.step(
      'preconditions.access/lease',
      'Who holds the lease of the database',
      LOOK,
      (activities) => activities.readLease({ leaseId }),
    );
    if (attempt === ATTEMPTS) {
      // Still there after a moment: it is no dying lease of the run before, but the one this run took before it was reset.
      if (holder?.workflowId === run.runFacts.workflowId) return;
      throw stepRefused(
        `another run works on the database ${production.database}: ${holder?.workflowId ?? 'unknown'} (run ${holder?.runId ?? 'unknown'}) holds the lease ${leaseId} since ${holder?.since ?? 'unknown'}; wait for its end`,
      );
    }
    await sleep('1 second');
  }
}

async function started(run: MigrationRun, leaseId: string, database: string): Promise<boolean> {
  try {
    const { workflowId, firstExecutionRunId: runId } = workflowInfo();
    const lease = await startChild(databaseLease, {
      workflowId: leaseId,
      args: [{ workflowId, runId, database }],
      parentClosePolicy: ParentClosePolicy.TERMINATE,
      staticSummary: `lease of ${database} for ${workflowId}`,
    });
    run.holdsLease = true;
    watch(run, lease.result(), leaseId);
    return true;
  } catch (error) {
    if (error instanceof WorkflowExecutionAlreadyStartedError) return false;
    throw error;
  }
}

/** A lease that ends before its run was ended by somebody's hand: go no further into production without it. */
function watch(run: MigrationRun, ended: Promise<void>, leaseId: string): void {
  const lost = (): void => {
    run.holdsLease = false;
    // While it undoes or closes out, a run goes on without: stopping would leave production as it is.
    if (!STAGES_THAT_STOP.includes(run.state.stage)) return;
    run.interrupt({ kind: 'lease-lost', message: `the lease ${leaseId} was ended by somebody` });
  };
  ended.then(lost, lost);
}
