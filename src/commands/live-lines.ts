/** A followed run as lines: one for each thing that happened, and one on a terminal that is refreshed while a step runs. */
import { durationText, clockText, timeText } from '../report/quantity.ts';
import { shortened } from '../report/said-once.ts';
import { errorOf, STATUS_SYMBOLS } from '../report/timeline.ts';
import type { RunEvent } from '../history/follow.ts';
import type { ActivityView } from '../history/execution.ts';
import { oneLine } from './one-line.ts';
import type { Output } from './output.ts';
import { endText, progressText, since, waitingLines } from './run-texts.ts';
import { blockerLines, upgradeWords } from './upgrade-texts.ts';

/** Without a terminal a running step is told of at this distance. Milliseconds. */
const TELL_EVERY = 10_000;

export class LiveLines {
  private readonly output: Output;
  private readonly told = new Map<string, number>();
  /** Causes told in full: the trouble, the question and the verdict that come of one name it again. */
  private readonly causes: string[] = [];
  /** Who was named in a line of his own: that cannot wait. */
  private readonly blockers = new Set<string>();

  constructor(output: Output) {
    this.output = output;
  }

  show(event: RunEvent, now: number): void {
    const { output } = this;
    switch (event.kind) {
      case 'step-begun':
        this.told.set(event.step.id, now);
        break;
      case 'progress':
        this.progress(event, now);
        break;
      case 'step-ended': {
        const { id, summary, status, startedAt, endedAt } = event.step;
        const error = errorOf(event.step);
        const took = endedAt === undefined ? '' : durationText(Date.parse(endedAt) - Date.parse(startedAt));
        output.print(
          `${clockText(endedAt ?? startedAt)} ${STATUS_SYMBOLS[status]} ${id}  ${oneLine(summary)}  ${status === 'done' ? '' : `${status}, `}${took}${error === undefined ? '' : `: ${this.once(error)}`}`,
        );
        break;
      }
      case 'waiting': {
        const [what = '', ...commands] = waitingLines(event.waiting, event.status, now);
        output.print(`${this.clock(now)} … waits for ${this.once(what)}`);
        for (const command of commands) output.print(`             ${command}`);
        break;
      }
      case 'decision': {
        const { at, what, by, reason } = event.decision;
        output.print(
          `${clockText(at)} > ${what} by ${oneLine(by)}${reason === undefined ? '' : `: ${oneLine(reason)}`}`,
        );
        break;
      }
      case 'refusal': {
        const { at, message, by, why } = event.refusal;
        output.print(
          `${clockText(at)} > refused: ${message}${by === undefined ? '' : ` by ${oneLine(by)}`}: ${oneLine(why)}`,
        );
        break;
      }
      case 'trouble':
        output.print(`${this.clock(now)} ! ${this.once(event.text)}`);
        break;
      case 'silent':
        output.print(
          `${this.clock(now)} ? the workflow does not answer (${oneLine(event.why)}); a worker is needed: runbook worker`,
        );
        break;
      case 'ended': {
        const { closedAt, startedAt } = event.execution;
        const took =
          closedAt === undefined ? '' : ` after ${durationText(Date.parse(closedAt) - Date.parse(startedAt))}`;
        output.print(`${closedAt === undefined ? '' : timeText(closedAt)}${took}: ${this.once(endText(event.end))}`);
        if (event.end.kind === 'ended') {
          for (const item of event.end.summary?.openItems ?? []) output.print(`still open: ${oneLine(item)}`);
          if (event.end.summary?.report) output.print(`report: ${event.end.summary.report}`);
        }
      }
    }
  }

  private progress({ step, activity }: Extract<RunEvent, { kind: 'progress' }>, now: number): void {
    for (const { key, line } of blockerLines(activity?.heartbeat?.details)) {
      if (this.blockers.has(key)) continue;
      this.blockers.add(key);
      this.output.print(`${this.clock(now)} ! ${step.id}  ${line}`);
    }
    const line = `${this.clock(now)} ${STATUS_SYMBOLS.running} ${step.id}  ${oneLine(step.summary)}  ${since(step.startedAt, now)}${activityText(activity)}`;
    this.output.replace(line);
    if (this.output.isTerminal || now - (this.told.get(step.id) ?? now) < TELL_EVERY) return;
    this.told.set(step.id, now);
    this.output.print(line);
  }

  /** In one line, with what has been told in full above cut to its beginning. */
  private once(text: string): string {
    const line = oneLine(text);
    const told = shortened(line, this.causes, 'above');
    this.causes.push(line);
    return told;
  }

  private clock(now: number): string {
    return clockText(new Date(now).toISOString());
  }
}

function activityText(activity: ActivityView | undefined): string {
  if (!activity) return '';
  const progress = progressText(activity.heartbeat?.details);
  return [
    ...(activity.attempt > 1 ? [`attempt ${activity.attempt}`] : []),
    ...upgradeWords(activity.heartbeat?.details),
    ...(progress ? [progress] : []),
    ...(activity.lastFailure === undefined ? [] : [`last failure: ${oneLine(activity.lastFailure)}`]),
  ]
    .map((text) => `, ${text}`)
    .join('');
}
