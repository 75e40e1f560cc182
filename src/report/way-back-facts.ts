import type { WayBackCost } from '../contract/evidence/restore.ts';
import { takenBackText } from '../contract/way-back-text.ts';
import { durationText, timeText } from './quantity.ts';

/** What a restore takes back, in one sentence; the tables beside it. */
export const wayBackSentence = (cost: WayBackCost): string =>
  `Against the backup of ${timeText(cost.since)} (${durationText(cost.backupAge)} old), ${cost.basis === 'statistics' ? 'by the server’s counters' : 'compared row by row'}: ${takenBackText(cost)}.`;

/** Rows of table, inserted, updated, deleted; last what could not be judged. */
export const wayBackRows = ({ tables, furtherTables, unknown }: WayBackCost): readonly (readonly string[])[] => [
  ...tables.map(({ table, inserted, updated, deleted }) => [table, String(inserted), String(updated), String(deleted)]),
  ...(furtherTables > 0 ? [[`${furtherTables} more`, '', '', '']] : []),
  ...unknown.map((table) => [table, 'not known', 'not known', 'not known']),
];
