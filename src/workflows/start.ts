import { ApplicationFailure, workflowInfo } from '@temporalio/workflow';
import { quoted } from '../contract/commands.ts';
import { ENDING_ERRORS } from '../contract/errors.ts';
import type { ReportSummary } from '../contract/report.ts';
import { type MigrationRequest, TASK_QUEUE, WORKFLOW_TYPE, workflowIdOf } from '../contract/request.ts';

/**
 * What is wrong with the way this execution was started. Time-outs, retries and a cron would let the server end or repeat a
 * run without putting anything back.
 */
export function startFindings(request: MigrationRequest): readonly string[] {
  const info = workflowInfo();
  const findings: string[] = [];
  const wantedId = workflowIdOf(request.service);
  if (info.workflowId !== wantedId)
    findings.push(`the workflow id is ${info.workflowId.slice(0, 200)}, it must be ${wantedId}`);
  if (info.executionTimeoutMs !== undefined && info.executionTimeoutMs > 0) {
    findings.push('an execution timeout is set: the server would end the run without putting anything back');
  }
  if (info.runTimeoutMs !== undefined && info.runTimeoutMs > 0) {
    findings.push('a run timeout is set: the server would end the run without putting anything back');
  }
  if (info.retryPolicy !== undefined)
    findings.push('a retry policy is set: a migration is never started again by itself');
  if (info.cronSchedule) findings.push('a cron schedule is set: a migration is never started by a clock');
  if (findings.length > 0) findings.push(`start it with: ${startCommand(request)}`);
  return findings;
}

export const startCommand = (request: MigrationRequest): string =>
  `temporal workflow start --type ${WORKFLOW_TYPE} --task-queue ${TASK_QUEUE} --workflow-id ${workflowIdOf(request.service)} --input ${quoted(JSON.stringify(request))}`;

/** The end of a run that could not even be understood: aborted, nothing was touched. */
export function refuseRequest(args: readonly unknown[], findings: readonly string[]): ApplicationFailure {
  const given = typeof args[0] === 'object' && args[0] !== null ? (args[0] as Record<string, unknown>) : {};
  const text = (field: string): string => (typeof given[field] === 'string' ? given[field].slice(0, 200) : '');
  const verdict = `Refused, nothing was touched: ${findings.join('; ')}.`;
  const summary: ReportSummary = {
    outcome: 'aborted',
    verdict: verdict.slice(0, 4000),
    service: text('service'),
    releaseTag: text('releaseTag'),
    changeTicket: text('changeTicket'),
    planDigest: null,
    backup: null,
    keptAside: null,
    openItems: [],
    findings: findings.slice(0, 50).map((finding) => finding.slice(0, 1000)),
    report: null,
  };
  const example =
    'one JSON object like {"service":"whisper-transcriber","releaseTag":"v2.1.0","changeTicket":"CHG-1042","requestedBy":"dana@example.com"}';
  return ApplicationFailure.nonRetryable(
    `${verdict} Expected is ${example}`.slice(0, 4000),
    ENDING_ERRORS.aborted,
    summary,
  );
}
