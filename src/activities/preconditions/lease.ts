import { WorkflowNotFoundError } from '@temporalio/client';
import type { PreconditionActivities } from '../../contract/activities.ts';
import { runStep } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';

export const readLease =
  (deps: ActivityDependencies): PreconditionActivities['readLease'] =>
  ({ leaseId }) =>
    runStep(deps.secrets, async () => {
      try {
        const lease = await deps.client.workflow.getHandle(leaseId).describe();
        if (lease.status.name !== 'RUNNING' || !lease.raw.workflowExecutionInfo?.parentExecution) return null;
        const { workflowId, runId } = lease.raw.workflowExecutionInfo.parentExecution;
        return { workflowId: workflowId ?? '', runId: runId ?? '', since: lease.startTime.toISOString() };
      } catch (error) {
        if (error instanceof WorkflowNotFoundError) return null;
        throw error;
      }
    });
