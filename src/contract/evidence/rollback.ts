/** What recovery decides from, and evidence of a rollback. */
import type { BackupEvidence } from './backup.ts';
import type { ProductionState } from './production.ts';
import type { DroppedObject } from './rehearsal.ts';
import type { StepInput, StoredDocument } from './step.ts';
import type { GraphEvidence } from './tooling.ts';

export interface EvaluateInput extends StepInput {
  readonly graph: GraphEvidence;
  readonly before: ProductionState;
}

/** The real state of production after trouble: the closed set recovery decides from. */
export type Reality =
  | { readonly kind: 'unchanged' }
  | {
      readonly kind: 'partly-applied';
      readonly revisions: readonly string[];
      /** Are there leftovers beside the recorded revisions? */
      readonly clean: 'yes' | 'no' | 'unknown';
      readonly why: string;
    }
  | { readonly kind: 'fully-applied' }
  | { readonly kind: 'foreign'; readonly why: string };

export interface Evaluation {
  readonly reality: Reality;
  readonly versionRows: readonly string[];
  readonly objectMapDigest: string;
  readonly differences: readonly string[];
  /** What an upgrade that was stopped has left: invalid indexes and constraints not validated that were not there before. */
  readonly leftovers: readonly string[];
  /** By this run so far, attempts that did not live to tell included, but for those that are there again. */
  readonly droppedInvalidIndexes: readonly string[];
  readonly endedSessions: number;
}

/** Looks at what came into the objects that the downgrade drops. */
export interface ArrivalsInput extends EvaluateInput {
  readonly dropped: readonly DroppedObject[];
}

/** Rows and values that a rollback would drop and that the migration itself did not put there. */
export interface Arrivals {
  /**
   * Those with arrivals first, 200 at most. `found`: as `rows`, in production; what is more came since. Of a column whose
   * default is a constant only other values count as more: every new row has the default.
   */
  readonly objects: readonly (DroppedObject & { readonly found: number })[];
  /** Sum of what was found beyond what the migration put there. */
  readonly total: number;
  /** Encrypted archive that psql loads; null where nothing came. */
  readonly archive: StoredDocument | null;
  /** What could not be counted, in words. */
  readonly unknown: readonly string[];
  /**
   * What a count does not show, in words, by the server's counters since the upgrade ended: rows changed or deleted in place.
   * What of such tables and columns is dropped is exported too. Empty: by the counters there were none.
   */
  readonly unseen: readonly string[];
}

export interface RollbackInput extends EvaluateInput {
  /** Differences that the rehearsed downgrade left too, in words of the object map: expected, not a failure. */
  readonly expectedLeftovers: readonly string[];
  /** What the downgrade drops: nobody's rows may come into it unnoticed. */
  readonly dropped: readonly DroppedObject[];
  /**
   * `Arrivals.objects`: what was counted, exported and shown before the rollback was decided. What is not among it was not
   * counted. Null: behind a fence that has been up since before the upgrade, nothing can have come.
   */
  readonly arrivals: Arrivals['objects'] | null;
}

export interface RollbackEvidence {
  readonly commands: readonly string[];
  readonly versionRows: readonly string[];
  /** As it left production. */
  readonly objectMapDigest: string;
  readonly milliseconds: number;
  /** `equal`: production's object map is that of before the upgrade. `as-rehearsed`: but for what the rehearsal left too. */
  readonly objects: 'equal' | 'as-rehearsed';
  readonly differences: readonly string[];
  /** Tables whose columns stand in another order than before: a downgrade that adds a column again puts it last. 100 at most. */
  readonly reordered: readonly string[];
  /**
   * An earlier try had begun a downgrade and did not end it, this one went on from there, and a downgrade of the upgrade's
   * revisions may commit in its middle: a part of it may have been done twice, which objects do not show.
   */
  readonly resumed: boolean;
  /** What of the users' may have been dropped uncounted, and why nobody knows; null where nothing can have been. */
  readonly uncounted: string | null;
  readonly log: StoredDocument;
}

export interface BackedUpRowsInput extends StepInput {
  /** Taken behind the fence that is still up. */
  readonly backup: BackupEvidence;
}

/** `recovery.rollback/rows`: what production holds, against what the backup's ledger recorded, by count and checksum. */
export interface BackedUpRows {
  /** What differs, in words, 100 at most; empty: equal. Sequences that are further on do not count. */
  readonly findings: readonly string[];
  readonly tables: number;
  readonly rows: number;
  /** Of so many tables the ledger has a sample only, and that was compared. */
  readonly samples: number;
  readonly largeObjects: number;
  readonly milliseconds: number;
}
