/** Parts of a run in words, shared by `status`, `watch` and `start --wait`. */
import { approveCommands, messageCommands } from '../contract/commands.ts';
import { refusal } from '../contract/errors.ts';
import { DIGEST_PREFIX } from '../contract/plan.ts';
import type { RunStatus, Waiting } from '../contract/status.ts';
import type { ActivityView } from '../history/execution.ts';
import type { RunEnd } from '../history/run-end.ts';
import { durationText, sizeText, timeText } from '../report/quantity.ts';
import { says } from '../report/said-once.ts';
import { oneLine } from './one-line.ts';
import { toldByUpgrade, UPGRADE_PARTS, upgradeLines } from './upgrade-texts.ts';

export { oneLine } from './one-line.ts';

const DETAILS_LIMIT = 300;

/** What a step reports about itself, e.g. `phase dump, bytes 12.4 MB`. */
export function progressText(details: unknown): string {
  if (typeof details === 'string') return oneLine(details).slice(0, DETAILS_LIMIT);
  if (typeof details !== 'object' || details === null) return '';
  const told = toldByUpgrade(details);
  const toldElsewhere = new Set<string>(UPGRADE_PARTS.filter((part) => told[part] !== undefined));
  return oneLine(
    Object.entries(details)
      .filter(([name, value]) => !toldElsewhere.has(name) && value !== '')
      .map(([name, value]) => `${name} ${valueText(name, value)}`)
      .join(', '),
  ).slice(0, DETAILS_LIMIT);
}

function valueText(name: string, value: unknown): string {
  if (typeof value === 'number' && /bytes/i.test(name)) return sizeText(value);
  if (typeof value === 'number' && /milliseconds|elapsed/i.test(name)) return durationText(value);
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}

/** Attempt, worker, heartbeat and last failure of the activity behind a step. */
export function activityLines(activity: ActivityView, now: number): readonly string[] {
  const attempts = activity.maximumAttempts > 0 ? ` of ${activity.maximumAttempts}` : '';
  const heartbeat = activity.heartbeat;
  const progress = progressText(heartbeat?.details);
  return [
    `attempt ${activity.attempt}${attempts}, ${activity.state}${activity.worker === undefined ? '' : ` on ${activity.worker}`}`,
    ...(heartbeat ? [`heartbeat ${since(heartbeat.at, now)} ago${progress ? `: ${progress}` : ''}`] : []),
    ...upgradeLines(heartbeat?.details, now),
    ...(activity.lastFailure === undefined ? [] : [`last failure: ${oneLine(activity.lastFailure)}`]),
    ...(activity.nextAttemptAt === undefined ? [] : [`next attempt at ${timeText(activity.nextAttemptAt)}`]),
  ];
}

/** For whom a run waits, and the commands that answer it, ready to paste. */
export function waitingLines(
  waiting: Waiting,
  { service }: Pick<RunStatus, 'service'>,
  now: number,
): readonly string[] {
  const by = 'you@example.com';
  switch (waiting.for) {
    case 'approval': {
      const { planDigest, signatures, missing, approvedBy, until } = waiting;
      const given = approvedBy.length === 0 ? '' : ` (given by ${approvedBy.join(', ')})`;
      return [
        `${missing} ${signatures === 'required' ? 'signed ' : ''}approval(s)${given} of plan ${planDigest.slice(0, DIGEST_PREFIX)} until ${timeText(until)} (${left(until, now)})`,
        approveCommands(service, planDigest, signatures).runbook,
        messageCommands(service, 'reject', { by, reason: 'why' }).runbook,
      ];
    }
    case 'qa':
      return [
        `QA until ${timeText(waiting.until)} (${left(waiting.until, now)})`,
        messageCommands(service, 'approve', { by, gate: 'qa' }).runbook,
        messageCommands(service, 'reject', { by, reason: 'why', gate: 'qa' }).runbook,
      ];
    case 'window':
      return [`the change window to open at ${timeText(waiting.until)} (${left(waiting.until, now)})`];
    case 'recovery':
      return [
        `a person to decide: ${oneLine(waiting.why)}`,
        ...waiting.actions.map((action) => messageCommands(service, 'recover', { by, action, reason: 'why' }).runbook),
      ];
  }
}

export function endText(end: RunEnd): string {
  return end.kind === 'ended'
    ? `${end.outcome}: ${oneLine(end.verdict)}`
    : `ended without an outcome, ${oneLine(end.how)}`;
}

/** The end with its findings a line each, none said twice. */
export function endLines(end: RunEnd): readonly string[] {
  const text = endText(end);
  if (end.kind !== 'ended' || !end.summary) return [text];
  const findings = end.summary.findings.map(oneLine);
  const numbered = oneLine(refusal(findings).message);
  const isNumbered = findings.length > 1 && text.includes(numbered);
  return [
    isNumbered ? text.replace(numbered, () => `${findings.length} findings`) : text,
    ...findings.filter((finding) => isNumbered || !says(text, finding)).map((finding) => `finding: ${finding}`),
  ];
}

export const since = (iso: string, now: number): string => durationText(Math.max(0, now - Date.parse(iso)));

export const left = (iso: string, now: number): string => {
  const milliseconds = Date.parse(iso) - now;
  return milliseconds > 0 ? `in ${durationText(milliseconds)}` : `${durationText(-milliseconds)} ago`;
};
