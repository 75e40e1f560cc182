import type { BackupEvidence } from '../contract/evidence/backup.ts';

/** What of a backup can be compared after a restore. */
export const rowsText = ({ rows, tables, sampledTables, largeObjects }: BackupEvidence): string =>
  [
    `${rows} in ${tables} tables, each with a checksum`,
    ...(sampledTables > 0 ? [`(${sampledTables} by a sample)`] : []),
    ...(largeObjects > 0 ? [`and ${largeObjects} large objects`] : []),
  ].join(' ');
