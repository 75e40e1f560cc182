/** Evidence of the fence and of recovery points. */
import type { TableCost } from './restore.ts';
import type { StepInput, StoredDocument } from './step.ts';
import type { SwitchState } from './switches.ts';

/** What the fence found, did, and was seen to do. */
export interface FenceEvidence {
  readonly state: SwitchState;
  /** Milliseconds since the epoch, ISO: from here on nobody but the migration writes. */
  readonly since: string;
  readonly endedSessions: number;
  /** How it was tried: a write as the service's role that was refused, or the check of the maintenance mode. */
  readonly tried: string;
  /** Rows written by all tables' counters at that moment: `proveFenceHeld` compares. */
  readonly counters: StoredDocument;
}

export interface ReleaseFenceInput extends StepInput {
  readonly before: SwitchState;
  /** `perhaps`: raising it was begun and did not end well. */
  readonly raised: 'surely' | 'perhaps';
}

export interface FenceHeldInput extends StepInput {
  readonly fence: FenceEvidence;
  /** Once the migration has begun: `ArchivedFootprint` of its rehearsal, whose `writes` are the migration's own. */
  readonly footprint?: StoredDocument;
}

/** Did anybody write since the fence went up? By the tables' counters. */
export interface FenceHeld {
  readonly held: boolean;
  /** Tables that the migration does not write. */
  readonly written: readonly TableCost[];
  /** What the counters cannot tell, in words: then the fence counts as not held. */
  readonly unknown: readonly string[];
  /** As they stand now: what a later proof may begin with, e.g. after the migration's own writes. */
  readonly counters: StoredDocument;
}

export interface RecoveryPointInput extends StepInput {
  readonly step: string;
}

export interface RecoveryPointEvidence {
  readonly takenAt: string;
  readonly restorePoint: { readonly name: string; readonly lsn: string } | null;
  /** Id as the provider's command printed it. */
  readonly snapshot: string | null;
}
