import type { WayBackCost } from '../contract/evidence.ts';
import { durationText, timeText } from './quantity.ts';

/** What a restore takes back, in one sentence; the tables beside it. */
export const wayBackSentence = ({ basis, since, backupAge, total, by }: WayBackCost): string =>
  [
    `Against the backup of ${timeText(since)} (${durationText(backupAge)} old): `,
    basis === 'statistics' ? 'at most ' : '',
    `${total.inserted} inserted, ${total.updated} updated, ${total.deleted} deleted rows, `,
    basis === 'statistics' ? 'by the server’s counters' : 'compared row by row',
    by === 'migration'
      ? '; the fence was up, so all of it is the migration’s own.'
      : '; users’ writes may be among it.',
  ].join('');

/** Rows of table, inserted, updated, deleted; last what could not be judged. */
export const wayBackRows = ({ tables, furtherTables, unknown }: WayBackCost): readonly (readonly string[])[] => [
  ...tables.map(({ table, inserted, updated, deleted }) => [table, String(inserted), String(updated), String(deleted)]),
  ...(furtherTables > 0 ? [[`${furtherTables} more`, '', '', '']] : []),
  ...unknown.map((table) => [table, 'not known', 'not known', 'not known']),
];
