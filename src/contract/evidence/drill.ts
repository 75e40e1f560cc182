/** Evidence of a drill. */
import type { Profile } from '../profile.ts';
import type { BackupManifest } from './backup.ts';
import type { DatabaseIdentity } from './production.ts';
import type { RestoreEvidence } from './restore.ts';
import type { RunFacts, StepInput } from './step.ts';

export interface PrepareDrillInput {
  readonly service: string;
  readonly requestedBy: string;
  readonly workflowId: string;
  readonly runId: string;
  /** URI of a backup; absent = the latest verified one. */
  readonly backup?: string;
  /** What the workflow found wrong by itself, so that one message names everything. */
  readonly findings: readonly string[];
}

export interface PreparedDrill {
  readonly profile: Profile;
  readonly run: RunFacts;
  readonly manifest: BackupManifest;
}

export interface DrillInput extends StepInput {
  readonly manifest: BackupManifest;
}

export interface DrillRestore {
  readonly database: string;
  readonly server: DatabaseIdentity;
  readonly restored: RestoreEvidence;
}

export interface RecordDrillInput extends DrillInput {
  readonly startedAt: string;
  readonly result:
    | { readonly kind: 'passed'; readonly restore: DrillRestore }
    | { readonly kind: 'failed'; readonly why: string };
}

/** A drill on record: what the next prediction of a restore goes by. */
export interface DrillRecord {
  readonly format: 'migration-runbook/drill/1';
  readonly service: string;
  readonly runId: string;
  readonly requestedBy: string;
  readonly startedAt: string;
  readonly endedAt: string;
  readonly backup: {
    readonly uri: string;
    readonly capturedAt: string;
    readonly databaseBytes: number;
    readonly dumpBytes: number;
  };
  readonly outcome: 'passed' | 'failed';
  readonly why: string | null;
  /** Restore and comparison, milliseconds; null where it failed. */
  readonly milliseconds: number | null;
  readonly restored: RestoreEvidence | null;
  /** URI of this record. */
  readonly uri: string;
}
