import type { SchemaChange } from './evidence/dry-run.ts';
import type { AlembicRevision } from './graph.ts';
import type {
  DeployedTrial,
  LockHeld,
  Rehearsal,
  RehearsalVerdict,
  Reporter,
  StaticFinding,
} from './evidence/rehearsal.ts';

/**
 * What the approvers approve. Immutable; its canonical JSON (RFC 8785) is hashed to the plan digest. It binds what was
 * reviewed, dry-run and rehearsed, the backup of the rehearsal and the policy by which that is refreshed: a fresh backup of
 * unchanged objects does not void an approval.
 */
export interface MigrationPlan {
  readonly format: 'migration-runbook/plan/2';
  /** 1 for the first opening of the gate: an approval belongs to one opening. */
  readonly opening: number;
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
  /** As the rehearsal on production's own backup showed it: staging may have been another database, or upgraded already. */
  readonly schemaChange: SchemaChange;
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
  readonly rehearsal: PlannedRehearsal;
  readonly predictions: Predictions;
  readonly guard: {
    readonly lockTimeout: number;
    readonly concurrentLockTimeout: number;
    readonly statementTimeout: number;
    readonly tries: number;
    readonly endBlockersAfter: 'never' | number;
    /** Who keeps the time-outs: our part inside the service's Python, or the role's settings and a watchdog from outside. */
    readonly keptBy: string;
  };
  readonly findings: readonly StaticFinding[];
  readonly window: { readonly start: string | null; readonly end: string | null; readonly length: number };
  readonly recovery: {
    /** What is offered first, and why. */
    readonly offered: 'rollback' | 'restore';
    readonly why: string;
    readonly rollback: 'ask' | 'automatic' | 'never';
    readonly downgrade: readonly string[] | null;
    /** What the rehearsed downgrade lost or left, said before anybody approves. */
    readonly rollbackLoses: readonly string[];
    readonly restore: 'by decision' | 'automatic';
    /** Bound of an automatic restore: rows of the users' that it may take back. */
    readonly restoreBound: { readonly rowsLost: 0 } | null;
    /** What a restore loses, said before anybody approves. */
    readonly restoreLoses: string;
  };
  readonly checks: readonly string[];
  /** What the monitoring is judged by: after may not exceed before * ratio + absolute. Absent where a run was begun before it was told. */
  readonly thresholds?: readonly { readonly name: string; readonly ratio: number; readonly absolute: number }[];
  readonly approvals: {
    readonly required: number;
    readonly approvers: readonly string[];
    readonly signatures: 'optional' | 'required';
    /** Names of those whose signatures can be verified. */
    readonly signers: readonly string[];
  };
  readonly warnings: readonly string[];
  /** Versions by which it was verified, dumped, rehearsed; looked at again when the window opens. */
  readonly tools: { readonly [program: string]: string };
}

/** Milliseconds. */
export interface Predictions {
  readonly backup: number;
  readonly upgrade: number;
  /** Null: no rollback is offered. */
  readonly rollback: number | null;
  /** Restore, comparison and swap. */
  readonly restore: number;
  /**
   * What must fit into the window after the upgrade: stopping it, finding out what production is, and the longest way back that
   * is offered, behind a fence with the comparison of rows after it; the rollback alone where it comes first and a snapshot stands behind it.
   */
  readonly recovery: number;
  readonly from: 'rehearsal' | 'drill' | 'dump';
}

/** The rehearsal, as the plan binds it. */
export interface PlannedRehearsal extends Pick<Rehearsal, 'backup' | 'databaseBytes' | 'expiresAt'> {
  readonly at: string;
  readonly verdict: RehearsalVerdict;
  readonly upgradeMilliseconds: number;
  readonly downgradeMilliseconds: number | null;
  readonly restoreMilliseconds: number;
  readonly swapMilliseconds: number;
  readonly locks: readonly LockHeld[];
  readonly rewrites: readonly { readonly relation: string; readonly bytes: number }[];
  readonly walBytes: number;
  readonly growthBytes: number;
  readonly reporter: Reporter;
  readonly deployed: DeployedTrial['kind'];
  readonly deployedRelease: string | null;
  /** Digest of the object map after the upgrade: production must come to the same. */
  readonly mapAfter: string;
  readonly unknown: readonly string[];
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
