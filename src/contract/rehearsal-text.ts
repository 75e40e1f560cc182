/** A rehearsal in words: the same in the plan, at gates, in reports and in `runbook status`. */
import type { Predictions } from './plan.ts';
import type { RehearsalVerdict } from './evidence/rehearsal.ts';

export function verdictText(verdict: RehearsalVerdict): string {
  switch (verdict.kind) {
    case 'lossless':
      return 'lossless, upgrade and downgrade left objects and data as they were';
    case 'lossy':
      return `lossy, the downgrade loses ${some(verdict.lost.map(({ table, column, values }) => (column === null ? `${values} row(s) of ${table}` : `${values} value(s) of ${table}.${column}`)))}`;
    case 'fails':
      return `the way back by downgrade fails (${verdict.where}): ${verdict.why}`;
    case 'leftovers':
      return `leftovers, the downgrade leaves ${some(verdict.objects)}`;
    case 'impossible':
      return `impossible, ${verdict.why}`;
  }
}

export function predictionText({ backup, upgrade, rollback, restore, from }: Predictions): string {
  const back = rollback === null ? '' : `rollback ${seconds(rollback)}, `;
  return `backup ${seconds(backup)}, upgrade ${seconds(upgrade)}, ${back}restore ${seconds(restore)} (by the ${from === 'rehearsal' ? 'rehearsal' : `last ${from}`})`;
}

const seconds = (milliseconds: number): string => `${Math.ceil(milliseconds / 1000)} s`;

const SHOWN = 10;
const some = (items: readonly string[]): string =>
  items.length > SHOWN ? `${items.slice(0, SHOWN).join(', ')} and ${items.length - SHOWN} more` : items.join(', ');
