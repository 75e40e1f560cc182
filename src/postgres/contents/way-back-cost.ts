import type { BackupEvidence } from '../../contract/evidence/backup.ts';
import type { TableCost, WayBackCost } from '../../contract/evidence/restore.ts';

export interface CostSources {
  readonly basis: WayBackCost['basis'];
  readonly backup: Pick<BackupEvidence, 'capturedAt'>;
  readonly tables: readonly TableCost[];
  readonly unknown: readonly string[];
  /** ISO 8601; see `RestoreInput`. */
  readonly fencedSince?: string | undefined;
  readonly predictedMilliseconds: number;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** Entries a message to people and an evidence can hold. */
const LISTED = 50;

/** What a restore takes back, for people to decide by: the largest first, the rest counted. */
export function wayBackCost(sources: CostSources): WayBackCost {
  const tables = [...sources.tables].sort((one, other) => rowsOf(other) - rowsOf(one));
  const since = sources.backup.capturedAt;
  return {
    basis: sources.basis,
    since,
    backupAge: Math.max(0, sources.now - Date.parse(since)),
    tables: tables.slice(0, LISTED),
    furtherTables: Math.max(0, tables.length - LISTED),
    total: {
      inserted: sumOf(tables, 'inserted'),
      updated: sumOf(tables, 'updated'),
      deleted: sumOf(tables, 'deleted'),
    },
    unknown: bounded(sources.unknown),
    by: writtenBy(since, sources.fencedSince),
    predictedMilliseconds: sources.predictedMilliseconds,
  };
}

/** Whose the changes since the backup are. A fence that went up later leaves a time in which anybody could write. */
export const writtenBy = (capturedAt: string, fencedSince: string | undefined): WayBackCost['by'] =>
  fencedSince !== undefined && Date.parse(fencedSince) <= Date.parse(capturedAt) ? 'migration' : 'anybody';

const rowsOf = ({ inserted, updated, deleted }: TableCost): number => inserted + updated + deleted;

const sumOf = (tables: readonly TableCost[], kind: 'inserted' | 'updated' | 'deleted'): number =>
  tables.reduce((sum, table) => sum + table[kind], 0);

const bounded = (names: readonly string[]): readonly string[] =>
  names.length <= LISTED ? names : [...names.slice(0, LISTED), `and ${names.length - LISTED} more`];
