/** What the rehearsal had predicted against what production took. Pure. */
import type { RunReport } from '../contract/report.ts';
import type { StepRecord } from '../contract/status.ts';
import { durationText } from './quantity.ts';

/** `upgrade 4 s predicted, 3.4 s measured; ...`; undefined where nothing that was predicted was done. */
export function measuredText({ plan, timeline }: RunReport): string | undefined {
  if (!plan) return undefined;
  const { upgrade, rollback, restore } = plan.plan.predictions;
  const parts = [
    part('upgrade', upgrade, timeline, ['apply.upgrade']),
    part('rollback', rollback, timeline, ['recovery.rollback']),
    part('restore', restore, timeline, ['recovery.restore', 'recovery.restore/swap']),
  ].filter((text) => text !== undefined);
  return parts.length === 0 ? undefined : parts.join('; ');
}

/** @param ids steps that together were predicted; of repetitions the last counts */
function part(
  what: string,
  predicted: number | null,
  timeline: readonly StepRecord[],
  ids: readonly string[],
): string | undefined {
  const steps = ids.flatMap((id) => timeline.findLast((step) => step.id.replace(/#\d+$/, '') === id) ?? []);
  const took = steps.reduce(
    (sum, { startedAt, endedAt }) => sum + (endedAt === undefined ? 0 : Date.parse(endedAt) - Date.parse(startedAt)),
    0,
  );
  if (steps.length === 0) return undefined;
  const end = steps.find(({ status }) => status !== 'done')?.status;
  return `${what} ${predicted === null ? 'not predicted' : `${durationText(predicted)} predicted`}, ${durationText(took)} measured${end === undefined ? '' : ` (${end})`}`;
}
