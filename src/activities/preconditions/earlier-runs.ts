/**
 * Runs of the same workflow id before this one. One that was terminated or timed out by the server could put nothing back:
 * nobody starts over it before a person has looked after what it left.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from '@temporalio/client';

export interface EarlierRun {
  readonly runId: string;
  /** The server's word: `COMPLETED`, `FAILED`, `TERMINATED`, `TIMED_OUT`, `CANCELED` ... */
  readonly status: string;
}

const LISTED = 100;
const VISIBLE_WITHIN = 8_000;

/**
 * Newest first. The list is the server's visibility store, which lags behind: it counts once this run itself is in it, and
 * each status is asked of the run itself.
 *
 * @param ownRunId of the execution that asks
 */
export async function listEarlierRuns(
  client: Client,
  workflowId: string,
  ownRunId: string | undefined,
  signal: AbortSignal,
): Promise<EarlierRun[]> {
  const deadline = performance.now() + VISIBLE_WITHIN;
  let runs = await listRuns(client, workflowId);
  while (ownRunId !== undefined && !runs.some(({ runId }) => runId === ownRunId) && performance.now() < deadline) {
    await delay(200, undefined, { signal });
    runs = await listRuns(client, workflowId);
  }
  const earlier: EarlierRun[] = [];
  for (const { runId, status } of runs) {
    if (runId === ownRunId) continue;
    earlier.push({ runId, status: status === 'RUNNING' ? await currentStatus(client, workflowId, runId) : status });
  }
  return earlier;
}

/**
 * Findings: the newest run that ended without closing out and that neither this request nor that of a later run names as
 * looked after; and a `reconciledRun` that names no such run. Whoever has looked after a run has looked after what was
 * there before it. A workflow reset terminates a run too: what that had switched after the event it was reset to, the
 * execution that went on took for what it found.
 */
export async function unreconciledRuns(
  client: Client,
  workflowId: string,
  earlier: readonly EarlierRun[],
  reconciledRun: string | undefined,
): Promise<string[]> {
  const isBroken = ({ status }: EarlierRun): boolean => status === 'TERMINATED' || status === 'TIMED_OUT';
  const findings: string[] = [];
  if (reconciledRun !== undefined && !earlier.some((run) => run.runId === reconciledRun && isBroken(run))) {
    findings.push(`"reconciledRun" names ${reconciledRun}, which is no terminated or timed-out run of ${workflowId}`);
  }
  if (!earlier.some(isBroken)) return findings;
  const settled = new Set([reconciledRun]);
  // Newest first: a run can only have been settled by the requests of those that came after it.
  for (const run of earlier) {
    if (settled.has(run.runId)) break;
    if (isBroken(run)) {
      const how = run.status === 'TERMINATED' ? 'terminated' : 'timed out';
      findings.push(
        `the earlier run ${run.runId} was ${how} and could put nothing back: look after its switches, sessions and the database, then start again with "reconciledRun": "${run.runId}"`,
      );
      break;
    }
    settled.add(await reconciledBy(client, workflowId, run.runId));
  }
  return findings;
}

async function listRuns(client: Client, workflowId: string): Promise<EarlierRun[]> {
  const runs: (EarlierRun & { readonly startTime: number })[] = [];
  for await (const { runId, status, startTime } of client.workflow.list({
    query: `WorkflowId = '${workflowId.replaceAll("'", "''")}'`,
    pageSize: LISTED,
  })) {
    runs.push({ runId, status: status.name, startTime: startTime.getTime() });
    if (runs.length >= LISTED) break;
  }
  return runs.toSorted((one, other) => other.startTime - one.startTime).map(({ runId, status }) => ({ runId, status }));
}

const currentStatus = async (client: Client, workflowId: string, runId: string): Promise<string> =>
  (await client.workflow.getHandle(workflowId, runId).describe()).status.name;

/** The `reconciledRun` of a run's own request: the first event of its history holds it. */
async function reconciledBy(client: Client, workflowId: string, runId: string): Promise<string | undefined> {
  const { history } = await client.workflowService.getWorkflowExecutionHistory({
    namespace: client.options.namespace,
    execution: { workflowId, runId },
    maximumPageSize: 1,
  });
  const payload = history?.events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads?.[0];
  try {
    const request: unknown = JSON.parse(Buffer.from(payload?.data ?? []).toString('utf8'));
    const named = (request as { readonly reconciledRun?: unknown } | null)?.reconciledRun;
    return typeof named === 'string' ? named : undefined;
  } catch {
    return undefined;
  }
}
