/** `runbook status` as text. Pure. */
import type { WayBackCost } from '../contract/evidence/restore.ts';
import type { MessageSender } from '../contract/report.ts';
import { takenBackText } from '../contract/way-back-text.ts';
import type { RunStatus, StepRecord } from '../contract/status.ts';
import type { ActivityView } from '../history/execution.ts';
import type { RunView } from '../history/run-view.ts';
import { clockText, durationText, timeText } from '../report/quantity.ts';
import { says } from '../report/said-once.ts';
import { recordedSender, senderText } from '../report/recorded-sender.ts';
import { oneLine } from './one-line.ts';
import { activityLines, endLines, left, since, waitingLines } from './run-texts.ts';

/** @param now milliseconds since the epoch */
export function statusText(view: RunView, now: number): string {
  const rows = [...problemRows(view, now), ...executionRows(view, now)];
  if (view.status.kind === 'answered') rows.push(...workflowRows(view.status.value, view, now));
  else rows.push(...silentRows(view, view.status.why, now));
  rows.push(...unknownSignalRows(view.unknownSignals));
  return rows.map(([name, text]) => `${name.padEnd(WIDTH)}${text}`).join('\n');
}

type Row = readonly [name: string, text: string];

const WIDTH = 13;

/** Nothing to say, no row. */
const row = (name: string, texts: readonly string[]): Row[] =>
  texts.map((text, index): Row => [index === 0 ? name : '', text]);

/** What keeps a run from going on comes first. */
function problemRows({ execution, taskQueue, workflowTaskFailure, end }: RunView, now: number): Row[] {
  if (end) return [];
  const rows: Row[] = [];
  if (taskQueue.workers.length === 0) {
    rows.push(['PROBLEM', `no worker polls the task queue ${taskQueue.name}: start one with runbook worker`]);
  }
  if (workflowTaskFailure) {
    const attempt = execution.workflowTaskAttempt === undefined ? '' : `, attempt ${execution.workflowTaskAttempt}`;
    rows.push([
      'PROBLEM',
      `workflow task failing since ${timeText(workflowTaskFailure.since)} (${since(workflowTaskFailure.since, now)}${attempt}): ${oneLine(workflowTaskFailure.message)}`,
    ]);
  }
  const paused = execution.activities.filter(({ state }) => state === 'paused');
  for (const { id } of paused)
    rows.push(['PROBLEM', `the step ${id} is paused by somebody: temporal activity unpause`]);
  return rows;
}

function executionRows({ execution, end }: RunView, now: number): Row[] {
  const { workflowId, runId, startedAt, closedAt } = execution;
  const took = (closedAt === undefined ? now : Date.parse(closedAt)) - Date.parse(startedAt);
  return [
    ['run', `${workflowId}, ${runId}`],
    [
      'started',
      `${timeText(startedAt)}, ${closedAt === undefined ? `${durationText(took)} ago` : `took ${durationText(took)}`}`,
    ],
    ...(end ? row('outcome', outcomeLines(end)) : []),
  ];
}

function outcomeLines(end: NonNullable<RunView['end']>): readonly string[] {
  if (end.kind === 'lost') return [...endLines(end), 'look at the database and at what the run had switched, by hand'];
  const { summary } = end;
  return [
    ...endLines(end),
    ...(summary?.openItems ?? []).map((item) => `still open: ${oneLine(item)}`),
    ...(summary?.report ? [`report: ${summary.report}`] : []),
  ];
}

function workflowRows(status: RunStatus, view: RunView, now: number): Row[] {
  const { service, releaseTag, changeTicket, requestedBy, step, waiting } = status;
  const rows: Row[] = [['change', `${service} ${releaseTag} for ${changeTicket}, requested by ${requestedBy}`]];
  if (!view.end) rows.push(['stage', status.stage]);
  if (step) rows.push(...stepRows(step, view.execution.activities, now));
  if (waiting) rows.push(...row('waits for', waitingLines(waiting, status, now)));
  if (!view.end) rows.push(...windowRows(status, now));
  if (status.planDigest !== undefined) rows.push(['plan', status.planDigest]);
  if (status.trouble !== undefined && !isSaidAlready(status.trouble, view, waiting)) {
    rows.push(['trouble', oneLine(status.trouble)]);
  }
  if (status.wayBack && !view.end) rows.push(...wayBackRows(status.wayBack));
  rows.push(...obligationRows(status), ...decisionRows(status, view.senders), ...refusalRows(status, view.senders));
  return rows;
}

/** The verdict of an end, and why a person is to decide, tell the trouble themselves. */
const isSaidAlready = (trouble: string, { end }: RunView, waiting: RunStatus['waiting']): boolean =>
  (end?.kind === 'ended' && says(oneLine(end.verdict), oneLine(trouble))) ||
  (waiting?.for === 'recovery' && says(oneLine(waiting.why), oneLine(trouble)));

function windowRows({ windowEnd, pointOfNoReturn }: RunStatus, now: number): Row[] {
  return row('window', [
    ...(windowEnd === undefined ? [] : [`ends ${timeText(windowEnd)} (${left(windowEnd, now)})`]),
    ...(pointOfNoReturn === undefined
      ? []
      : [
          `point of no return ${timeText(pointOfNoReturn)} (${left(pointOfNoReturn, now)}): an upgrade that still runs is stopped then, so that the way back ends inside the window`,
        ]),
  ]);
}

function stepRows(
  step: Pick<StepRecord, 'id' | 'summary'> & { readonly since: string },
  activities: readonly ActivityView[],
  now: number,
): Row[] {
  const activity = activities.find(({ id }) => id === step.id);
  return row('step', [
    `${step.id}: ${oneLine(step.summary)} (for ${since(step.since, now)})`,
    ...(activity ? activityLines(activity, now) : []),
  ]);
}

const TABLES_SHOWN = 10;

function wayBackRows(cost: WayBackCost): Row[] {
  const { tables, furtherTables, unknown } = cost;
  const shown = tables.slice(0, TABLES_SHOWN);
  const more = tables.length - shown.length + furtherTables;
  return row('restore', [
    `takes back ${oneLine(takenBackText(cost))}`,
    ...shown.map(({ table, inserted, updated, deleted }) => `${oneLine(table)}: +${inserted} ~${updated} -${deleted}`),
    ...(more > 0 ? [`and ${more} more table(s)`] : []),
    ...(unknown.length > 5 ? [`not known for: ${oneLine(unknown.slice(0, TABLES_SHOWN).join(', '))}`] : []),
  ]);
}

const obligationRows = ({ obligations }: RunStatus): Row[] =>
  obligations.length === 0
    ? []
    : row(
        'obligations',
        obligations.map(
          ({ name, kind, status, note }) =>
            `${status === 'open' ? 'OPEN' : status}: ${kind} ${name}${note === undefined ? '' : ` (${oneLine(note)})`}`,
        ),
      );

const decisionRows = ({ decisions }: RunStatus, senders: readonly MessageSender[]): Row[] =>
  decisions.length === 0
    ? []
    : row(
        'decisions',
        decisions.map((decision) => {
          const sender = recordedSender(decision, senders);
          const reason = decision.reason === undefined ? '' : `: ${oneLine(decision.reason)}`;
          return `${clockText(decision.at)} ${decision.what} by ${oneLine(decision.by)}${sentBy(sender)}${reason}`;
        }),
      );

function refusalRows({ refusals: { count, last } }: RunStatus, senders: readonly MessageSender[]): Row[] {
  if (count === 0) return [];
  const shown = last.slice(-5);
  return row('refused', [
    `${count} message(s)${count > shown.length ? `, the last ${shown.length}` : ''}:`,
    ...shown.map((refusal) => {
      const by = refusal.by === undefined ? '' : ` by ${oneLine(refusal.by)}`;
      return `${clockText(refusal.at)} ${refusal.message}${by}${sentBy(recordedSender(refusal, senders))}: ${oneLine(refusal.why)}`;
    }),
  ]);
}

const sentBy = (sender: MessageSender | undefined): string =>
  sender === undefined ? '' : ` [sent by ${oneLine(senderText(sender))}]`;

/** The workflow does not answer: what the server knows by itself. */
function silentRows({ execution, end }: RunView, why: string, now: number): Row[] {
  const rows: Row[] = [];
  if (!end) {
    rows.push([
      'unanswered',
      `the workflow could not be asked: ${oneLine(why)}; what follows is what the server knows`,
    ]);
  }
  if (execution.stage !== undefined && !end) rows.push(['stage', execution.stage]);
  for (const activity of execution.activities)
    rows.push(...row('step', [activity.id, ...activityLines(activity, now)]));
  return rows;
}

function unknownSignalRows(signals: readonly MessageSender[]): Row[] {
  if (signals.length === 0) return [];
  const byName = new Map<string, MessageSender[]>();
  for (const signal of signals) byName.set(signal.name, [...(byName.get(signal.name) ?? []), signal]);
  return row('unknown', [
    `${signals.length} signal(s) that nobody handles; known are approve, reject, abort, recover:`,
    ...[...byName].slice(0, 5).map(([name, sent]) => {
      const last = sent.at(-1)!;
      return `"${oneLine(name).slice(0, 60)}", ${sent.length} time(s), last ${timeText(last.sentAt)} by ${oneLine(senderText(last))}`;
    }),
  ]);
}
