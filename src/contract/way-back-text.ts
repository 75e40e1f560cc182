/** What a restore takes back, in one phrase: the same at the gate, in `runbook status` and in the report. */
import type { WayBackCost } from './evidence/restore.ts';

/** Never "nothing" and never "at most" where a table could not be judged; counted at a moment, which is told. */
export function takenBackText({ basis, since, backupAge, total, unknown, by }: WayBackCost): string {
  const { inserted, updated, deleted } = total;
  const isKnown = unknown.length === 0;
  const isBound = basis === 'statistics' && isKnown;
  const rows =
    inserted + updated + deleted === 0
      ? isKnown
        ? 'no row'
        : 'an unknown number of rows'
      : `${isBound ? 'at most ' : isKnown ? '' : 'at least '}${inserted} inserted, ${updated} updated, ${deleted} deleted rows`;
  const when = by === 'migration' ? '' : `,${asOf(since, backupAge)} growing while production is written`;
  const whose = by === 'migration' ? 'all of them the migration’s own (fence)' : 'users’ writes may be among them';
  const more = isKnown
    ? ''
    : `; not known for ${unknown.slice(0, 5).join(', ')}${unknown.length > 5 ? ` and ${unknown.length - 5} more` : ''}`;
  return `${rows} (${whose}${when})${more}`;
}

/** Of a moment that cannot be read nothing is said: this text is made inside the workflow, which an exception would stop. */
function asOf(since: string, backupAge: number): string {
  const at = Date.parse(since) + backupAge;
  return Number.isFinite(at) ? ` as of ${new Date(at).toISOString().slice(11, 19)} UTC and` : '';
}
