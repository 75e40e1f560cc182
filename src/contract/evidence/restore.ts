/** Evidence of a restore beside production, and of the swap. */
import type { BackupEvidence } from './backup.ts';
import type { ProductionState } from './production.ts';
import type { StepInput, StoredDocument } from './step.ts';

export interface RestoreInput extends StepInput {
  readonly backup: BackupEvidence;
  readonly before: ProductionState;
  /** Only the migration could write since then; absent where the fence is not up, or the backup is older than it. */
  readonly fencedSince?: string;
}

export interface TableCost {
  readonly table: string;
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
}

/** What a restore of the backup would take back. */
export interface WayBackCost {
  /**
   * `statistics`: estimated from the server's counters, an upper bound (aborted writes count). `comparison`: exact, the
   * restored copy against production, row by row.
   */
  readonly basis: 'statistics' | 'comparison';
  /** When the backup was taken, ISO. */
  readonly since: string;
  /** Milliseconds. */
  readonly backupAge: number;
  /** Tables with changes, largest first, 50 at most; `furtherTables` counts the rest. */
  readonly tables: readonly TableCost[];
  readonly furtherTables: number;
  readonly total: { readonly inserted: number; readonly updated: number; readonly deleted: number };
  /** Tables that could not be judged, e.g. because the migration dropped or rebuilt them. */
  readonly unknown: readonly string[];
  /** `migration`: the fence was up since before the backup, so all of it is the migration's own. `anybody`: users' writes may be among it. */
  readonly by: 'migration' | 'anybody';
  readonly predictedMilliseconds: number;
}

/** The rows a swap would leave behind, exported before it. */
export interface SalvageEvidence {
  readonly cost: WayBackCost;
  /**
   * Tables, and columns of tables, that the backup has and production has no more, where users could write after the backup:
   * what they wrote there before the migration dropped it can be neither exported nor found in the database kept aside.
   */
  readonly lost: readonly string[];
  /** Encrypted archive that psql loads (after age and zstd), and its manifest; null where nothing differs. */
  readonly archive: StoredDocument | null;
  readonly manifest: StoredDocument | null;
}

export interface RestoreEvidence {
  readonly freshDatabase: string;
  readonly tables: number;
  readonly rows: number;
  readonly sequences: number;
  readonly milliseconds: number;
  /** Tables whose rows were compared by checksum, by a sample of the rows, and large objects compared. */
  readonly compared: { readonly checksums: number; readonly samples: number; readonly largeObjects: number };
  /** Differences in how the same thing is written (column order, derived names, re-deparsed expressions). */
  readonly cosmetic: readonly string[];
  readonly timings: { readonly data: number; readonly indexes: number; readonly compare: number };
}

export interface SwapInput extends RestoreInput {
  readonly restored: RestoreEvidence;
}

export interface SwapEvidence {
  readonly database: string;
  readonly keptAside: string;
  readonly endedSessions: number;
  /** Milliseconds during which nobody could connect. */
  readonly shutOut: number;
  /** Sessions on standbys that were still reading the old database. */
  readonly standbySessions: number;
  /** When `runbook sweep` offers to drop the database kept aside, ISO. */
  readonly quarantineUntil: string;
  readonly versionRows: readonly string[];
  /**
   * What could not be finished after the names had changed, e.g. sessions on a standby that does not answer: the swap stands,
   * a person has to see to these.
   */
  readonly openItems: readonly string[];
}
