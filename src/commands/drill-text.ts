/** A drill in words. Pure. */
import type { DrillPhase } from '../contract/drill.ts';
import type { DrillRecord } from '../contract/evidence/drill.ts';
import { type DrillEnd, type DrillView, phaseOfActivity } from '../history/drill-view.ts';
import { durationText, sizeText, timeText } from '../report/quantity.ts';
import { EXIT_CODES, type ExitCode } from './command-error.ts';
import { type ScheduleView, scheduleText } from './drill-schedule.ts';
import { oneLine } from './one-line.ts';
import { activityLines, progressText, since } from './run-texts.ts';

const PHASES: Readonly<Record<DrillPhase, string>> = {
  prepare: 'finding the backup',
  restore: 'restoring and comparing',
  drop: 'dropping the scratch database',
  record: 'recording the result',
  passed: 'passed',
  failed: 'failed',
  refused: 'refused',
  cancelled: 'cancelled',
};

const WIDTH = 11;

/** @param now milliseconds since the epoch */
export function drillText(view: DrillView | undefined, schedule: ScheduleView | undefined, now: number): string {
  const rows: (readonly [string, string])[] = [];
  if (view === undefined) rows.push(['drill', 'none is known to the server']);
  else rows.push(...viewRows(view, now));
  rows.push(['schedule', schedule === undefined ? 'none' : scheduleText(schedule)]);
  return rows.map(([name, text]) => `${name.padEnd(WIDTH)}${text}`).join('\n');
}

function viewRows(view: DrillView, now: number): (readonly [string, string])[] {
  const { execution, status, taskQueue, activity, end } = view;
  const rows: (readonly [string, string])[] = [];
  if (!end && taskQueue.workers.length === 0) {
    rows.push(['PROBLEM', `no worker polls the task queue ${taskQueue.name}: start one with runbook worker`]);
  }
  rows.push(['drill', `${execution.workflowId}, ${execution.runId}`], ['started', timeText(execution.startedAt)]);
  if (status.kind === 'answered') {
    rows.push(['by', status.value.requestedBy]);
    if (status.value.backup !== undefined) rows.push(['backup', status.value.backup]);
  }
  if (end) rows.push(...drillEndLines(end).map((text, index) => [index === 0 ? 'result' : '', text] as const));
  else {
    rows.push(['phase', phaseLine(view, now)]);
    if (activity) rows.push(...activityLines(activity, now).map((text) => ['', text] as const));
  }
  return rows;
}

/** What a running drill does now. */
export function phaseLine({ status, activity }: Pick<DrillView, 'status' | 'activity'>, now: number): string {
  if (status.kind === 'answered') {
    return `${PHASES[status.value.phase]} (for ${since(status.value.since, now)})`;
  }
  const phase = phaseOfActivity(activity);
  return phase === undefined ? `unknown: ${oneLine(status.why)}` : PHASES[phase];
}

/** As a line that is refreshed: the phase and what the step reports. */
export function liveLine(view: DrillView, now: number): string {
  const progress = progressText(view.activity?.heartbeat?.details);
  const attempt = view.activity && view.activity.attempt > 1 ? `, attempt ${view.activity.attempt}` : '';
  return `${phaseLine(view, now)}${attempt}${progress ? `: ${progress}` : ''}`;
}

export function drillEndLines(end: DrillEnd): readonly string[] {
  switch (end.kind) {
    case 'passed':
      return [`passed: ${recordText(end.record)}`, `record: ${end.record.uri}`];
    case 'failed':
      return [oneLine(end.message), ...(end.record ? [`record: ${end.record.uri}`] : ['not recorded'])];
    case 'refused':
      return [oneLine(end.message)];
    case 'cancelled':
      return ['cancelled; the scratch database is dropped'];
    case 'lost':
      return [`ended without a result, ${oneLine(end.how)}; see runbook sweep`];
  }
}

function recordText({ backup, milliseconds, restored }: DrillRecord): string {
  const took = milliseconds === null ? '' : ` in ${durationText(milliseconds)}`;
  const what = restored === null ? '' : `, ${restored.tables} tables, ${restored.rows} rows`;
  return `the backup of ${timeText(backup.capturedAt)} (database ${sizeText(backup.databaseBytes)}) came back as it was${took}${what}`;
}

export const drillExitCode = (end: DrillEnd): ExitCode => {
  switch (end.kind) {
    case 'passed':
      return EXIT_CODES.succeeded;
    case 'failed':
    case 'refused':
    case 'cancelled':
      return EXIT_CODES.refused;
    case 'lost':
      return EXIT_CODES.lost;
  }
};
