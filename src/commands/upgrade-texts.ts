/** What the upgrade tells in its heartbeat, in words: who stands in its way, what runs, how far an index is. */
import type { Blocker, UpgradeProgress } from '../contract/evidence/upgrade.ts';
import { durationText } from '../report/quantity.ts';
import { oneLine } from './one-line.ts';

/** As far as the details of a heartbeat are those of an upgrade; whoever wrote them may have been another version. */
type Told = Partial<
  Pick<UpgradeProgress, 'blockers' | 'statement' | 'statementSince' | 'index' | 'blind' | 'versionRows'>
>;

/** Parts that are told in lines of their own. */
export const UPGRADE_PARTS = ['blockers', 'statement', 'statementSince', 'index', 'blind', 'versionRows'] as const;

export function toldByUpgrade(details: unknown): Told {
  if (typeof details !== 'object' || details === null) return {};
  const { blockers, statement, statementSince, index, blind, versionRows } = details as Record<string, unknown>;
  return {
    ...(Array.isArray(blockers) && blockers.every(isBlocker) && { blockers }),
    ...(typeof statement === 'string' && { statement: oneLine(statement) }),
    ...(typeof statementSince === 'string' && { statementSince }),
    ...(typeof index === 'string' && { index: oneLine(index) }),
    ...(typeof blind === 'string' && { blind: oneLine(blind) }),
    ...(Array.isArray(versionRows) && { versionRows: versionRows.map((row) => oneLine(String(row))) }),
  };
}

function isBlocker(value: unknown): value is Blocker {
  if (typeof value !== 'object' || value === null) return false;
  const { pid, role, application, state, transactionAge, queryAge, waitedFor } = value as Record<string, unknown>;
  return (
    [pid, transactionAge, queryAge].every((number) => typeof number === 'number') &&
    [role, application, state, waitedFor].every((text) => typeof text === 'string')
  );
}

/** For `runbook status`, a line each; who stands in the way comes first. */
export function upgradeLines(details: unknown, now: number): readonly string[] {
  const { statement, statementSince, index, blind, versionRows } = toldByUpgrade(details);
  return [
    ...blockerLines(details).map(({ line }) => line),
    ...(blind === undefined ? [] : [`locks cannot be watched: ${blind}`]),
    ...(statement === undefined ? [] : [`statement${runningFor(statementSince, now)}: ${statement}`]),
    ...(index === undefined ? [] : [`index of ${index}`]),
    ...(versionRows === undefined ? [] : [`committed: ${versionRows.join(', ')}`]),
  ];
}

/** A line for each who stands in the way, and what tells it from the others. */
export const blockerLines = (details: unknown): readonly { readonly key: string; readonly line: string }[] =>
  (toldByUpgrade(details).blockers ?? []).map((blocker) => ({
    key: `${who(blocker)} ${blocker.waitedFor}`,
    line: `BLOCKED by ${blockerText(blocker)}`,
  }));

/** For `runbook watch`, in one line with all else. */
export function upgradeWords(details: unknown): readonly string[] {
  const { blockers = [], index } = toldByUpgrade(details);
  const [first] = blockers;
  const more = blockers.length > 1 ? ` and ${blockers.length - 1} more` : '';
  return [
    ...(first ? [`BLOCKED by ${who(first)}${more}: ${oneLine(first.waitedFor)} waits`] : []),
    ...(index === undefined ? [] : [`index of ${index}`]),
  ];
}

function blockerText(blocker: Blocker): string {
  const { state, transactionAge, queryAge, waitedFor } = blocker;
  const activity = state === 'active' ? 'its query runs for' : 'its last query ended';
  const ago = state === 'active' ? '' : ' ago';
  return oneLine(
    `${who(blocker)}, role "${blocker.role}", ${state}: ${waitedFor} waits; its transaction is open for ${durationText(transactionAge)}, ${activity} ${durationText(queryAge)}${ago}`,
  );
}

/** A prepared transaction has no process. */
const who = ({ pid, application }: Blocker): string =>
  oneLine(pid === 0 ? application : `pid ${pid} (${application === '' ? 'no application name' : application})`);

const runningFor = (since: string | undefined, now: number): string =>
  since === undefined || Number.isNaN(Date.parse(since))
    ? ''
    : ` for ${durationText(Math.max(0, now - Date.parse(since)))}`;
