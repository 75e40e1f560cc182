import type { SchemaDiffEvidence } from './evidence.ts';
import type { AlembicRevision } from './graph.ts';

/**
 * What the approvers approve. Immutable; its canonical JSON (RFC 8785) is hashed to the plan digest. It binds what was
 * reviewed and dry-run and the backup *policy*; the backup of the moment is evidence beside it, so that a refreshed one
 * does not void an approval.
 */
export interface MigrationPlan {
  readonly format: 'migration-runbook/plan/1';
  /** The run id as an activity got it from the server: an approval cannot be replayed by a reset of the workflow. */
  readonly runId: string;
  readonly workflowId: string;
  readonly service: string;
  readonly releaseTag: string;
  readonly commit: string;
  readonly changeTicket: string;
  readonly requestedBy: string;
  readonly profileDigest: string;
  readonly production: { readonly systemIdentifier: string; readonly database: string };
  readonly startRevisions: readonly string[];
  readonly targetRevision: string;
  readonly revisions: readonly Pick<AlembicRevision, 'revision' | 'file' | 'sha256' | 'transactional' | 'downgrade'>[];
  /** Digest of production's object map before; it must still be this when the upgrade starts. */
  readonly objectMapDigest: string;
  readonly schemaChange: { readonly [key in 'added' | 'removed' | 'changed']: SchemaDiffEvidence[key] };
  readonly backupPolicy: {
    readonly bucket: string;
    readonly recipients: readonly string[];
    /** Milliseconds. */
    readonly maximumAge: number;
  };
  /** `none`: what is written after the backup can be lost. */
  readonly fence: 'none' | 'read-only' | 'maintenance';
  readonly recoveryPoint: { readonly restorePoint: boolean; readonly snapshot: boolean };
  /** How the room for a second copy is known: `measured`, or the profile's waiver in its own words. */
  readonly capacity: string;
  /** Milliseconds, rough until a drill was recorded. */
  readonly predictions: { readonly backup: number; readonly restore: number; readonly restoreFrom: 'drill' | 'dump' };
  readonly window: { readonly start: string | null; readonly end: string | null; readonly length: number };
  readonly recovery: {
    readonly rollback: 'ask' | 'automatic' | 'never';
    readonly downgrade: readonly string[] | null;
    readonly restore: 'by decision';
    /** What a restore loses, said before anybody approves. */
    readonly restoreLoses: string;
  };
  readonly checks: readonly string[];
  readonly approvals: { readonly required: number; readonly approvers: readonly string[] };
  readonly warnings: readonly string[];
  readonly tools: { readonly [program: string]: string };
}

export interface SealedPlan {
  readonly plan: MigrationPlan;
  /** 64 lower-case hexadecimal digits. */
  readonly digest: string;
  readonly uri: string;
}

/** At least this many leading digits of the digest make an approval. */
export const DIGEST_PREFIX = 12;

export const digestMatches = (digest: string, given: string): boolean =>
  given.length >= DIGEST_PREFIX && /^[0-9a-f]+$/.test(given) && digest.startsWith(given);
