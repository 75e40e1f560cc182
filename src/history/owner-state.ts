import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import { type ExecutionView, executionView } from './execution.ts';

/** Is the run that owns something running? `forgotten`: the server does not know it, or no longer. */
export type OwnerState = 'running' | 'ended' | 'forgotten';

/** @param runId first run id: a reset goes on under another one, and is the same run */
export async function ownerState(
  client: Client,
  owner: { readonly workflowId: string; readonly runId: string },
): Promise<OwnerState> {
  const latest = await describe(client, owner.workflowId);
  if (latest?.status === 'RUNNING' && latest.firstRunId === owner.runId) return 'running';
  const own = await describe(client, owner.workflowId, owner.runId);
  if (own === undefined) return 'forgotten';
  return own.status === 'RUNNING' ? 'running' : 'ended';
}

/** Undefined where there is none, a run id that is none included. */
async function describe(client: Client, workflowId: string, runId?: string): Promise<ExecutionView | undefined> {
  if (runId !== undefined && !/^[0-9a-f-]{36}$/.test(runId)) return undefined;
  try {
    return executionView(await client.workflow.getHandle(workflowId, runId).describe());
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return undefined;
    throw error;
  }
}
