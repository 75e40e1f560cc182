/**
 * The rehearsal: the upgrade and its undo, carried out on a scratch database restored from this run's own backup. Small
 * enough for the workflow's history; whole lists are archived and named by `uri`. Durations are milliseconds, sizes bytes.
 */
import type { BackupEvidence } from './backup.ts';
import type { ChecksEvidence } from './checks.ts';
import type { FlowsEvidence, SchemaChange } from './dry-run.ts';
import type { DatabaseIdentity } from './production.ts';
import type { RestoreEvidence } from './restore.ts';
import type { StepInput, StoredDocument } from './step.ts';
import type { GraphEvidence } from './tooling.ts';

/**
 * How a statement waits: `exclusive` takes locks that keep readers out (most DDL), `concurrent` builds or validates beside
 * the application (CONCURRENTLY, VALIDATE CONSTRAINT), `rows` reads or changes rows, `session` is everything else (SET, BEGIN).
 */
export const STATEMENT_CLASSES = ['exclusive', 'concurrent', 'rows', 'session'] as const;
export type StatementClass = (typeof STATEMENT_CLASSES)[number];

/** Time limits of the migration's statements, milliseconds; 0 = none. */
export interface StatementTimeouts {
  /** Waiting for a lock, every class but `concurrent`. */
  readonly lock: number;
  /** Waiting for a lock or for older transactions, class `concurrent`. */
  readonly concurrentLock: number;
  /** Running, every class but `concurrent`. */
  readonly statement: number;
  readonly concurrentStatement: number;
}

export interface StatementTime {
  /** Null: before the first revision, or after the last. */
  readonly revision: string | null;
  /** Literals of statements that touch rows are struck out; 300 characters at most. */
  readonly statement: string;
  readonly class: StatementClass;
  readonly milliseconds: number;
  /** As the driver tells it; null where it does not. */
  readonly rows: number | null;
}

/** A lock the migration held. `relation` is qualified and quoted as in the object map. */
export interface LockHeld {
  readonly relation: string;
  /** As in pg_locks: `AccessExclusiveLock`. */
  readonly mode: string;
  /** The longest time it was held. */
  readonly milliseconds: number;
  /** The first revision that took it. */
  readonly revision: string | null;
}

/** What an upgrade is seen to do, and how long it takes. */
export interface UpgradeFootprint {
  readonly milliseconds: number;
  readonly revisions: readonly {
    readonly revision: string;
    readonly milliseconds: number;
    readonly statements: number;
  }[];
  /** Longest first, 20 at most. */
  readonly slowest: readonly StatementTime[];
  /** Of relations that were there before, modes that keep somebody out (SHARE and stronger), longest first, 50 at most. */
  readonly locks: readonly LockHeld[];
  /** Relations whose files were written anew. */
  readonly rewrites: readonly { readonly relation: string; readonly bytes: number }[];
  readonly walBytes: number;
  readonly growthBytes: number;
  /** JSON: every statement and every lock (`ArchivedFootprint`). */
  readonly document: StoredDocument;
  /** Did our part load inside the service's Python? Without it there are no statements, and locks are sampled from outside. */
  readonly reporter: Reporter;
}

export type Reporter = { readonly kind: 'loaded' } | { readonly kind: 'absent'; readonly why: string };

/** What stands at `UpgradeFootprint.document`. */
export interface ArchivedFootprint {
  readonly format: 'migration-runbook/footprint/1';
  readonly statements: readonly StatementTime[];
  /** Every ordinary lock on a relation that was there before, whatever its mode. */
  readonly locks: readonly LockHeld[];
  /** `statements`: looked at after every statement. `sampled`: from outside, so short ones may be missing. */
  readonly locksBy: 'statements' | 'sampled';
  /** Tables that were there before and that the upgrade or the downgrade wrote, by their counters; `LARGE_OBJECTS` among them. */
  readonly writes?: readonly string[];
}

/** Values or rows that were there at the backup and are not after upgrade and downgrade. */
export interface LostValues {
  readonly table: string;
  /** Null: whole rows. */
  readonly column: string | null;
  readonly values: number;
}

/** What the undo by downgrade does to the data of the backup. */
export type RehearsalVerdict =
  | { readonly kind: 'lossless' }
  /** Objects are as before, or not (`objects`); rows or values are lost or changed. */
  | { readonly kind: 'lossy'; readonly lost: readonly LostValues[]; readonly objects: readonly string[] }
  /** The downgrade, or the upgrade after it, does not go through. `where`: a command, with its revision where it is known. */
  | { readonly kind: 'fails'; readonly where: string; readonly why: string }
  /** No row or value is lost, but something is left behind: objects, or rows that were not there. */
  | { readonly kind: 'leftovers'; readonly objects: readonly string[] }
  /** There is no downgrade to be tried. */
  | { readonly kind: 'impossible'; readonly why: string };

/** An object that the planned downgrade drops, and how many rows (of a column: values) the migration itself put into it. */
export interface DroppedObject {
  /** Qualified and quoted as in the object map. */
  readonly table: string;
  /** Null: the whole table. */
  readonly column: string | null;
  /** Rows of the table, or values of the column that are not null, on the upgraded copy. */
  readonly rows: number;
  /** Of a column whose default is a constant: values that are neither null nor the default. */
  readonly beyondDefault?: number;
}

/** The release now deployed on the upgraded copy: it will run there in production for a while. */
export type DeployedTrial =
  | { readonly kind: 'passed'; readonly release: string; readonly commit: string; readonly flows: FlowsEvidence }
  | { readonly kind: 'failed'; readonly release: string; readonly why: string }
  | { readonly kind: 'not-tried'; readonly why: string };

// ---- steps -----------------------------------------------------------------------------------------------------------

export interface RehearsalInput extends StepInput {
  /** Step id with its repetition, e.g. `dry-run.rehearsal#2`: names what is archived. */
  readonly step: string;
  readonly graph: GraphEvidence;
  readonly backup: BackupEvidence;
}

/** `dry-run.rehearsal/restore`: the backup on the scratch server, equal to its ledger. It stays as it is: trials use copies. */
export interface RehearsalRestore {
  readonly database: string;
  readonly server: DatabaseIdentity;
  readonly restored: RestoreEvidence;
  /** What could have reached out (foreign servers, subscriptions) and was cut off, in words. */
  readonly neutralized: readonly string[];
  /** What was left out of the copy for that, and what could still reach out, in words for the plan. */
  readonly unknown: readonly string[];
}

export interface RehearsalTrialInput extends RehearsalInput {
  readonly restore: RehearsalRestore;
}

/** What a trial comes to, whatever is archived of it. */
export interface TrialFindings {
  readonly smoke: ChecksEvidence['checks'];
  readonly deployed: DeployedTrial;
  /** Those that ran, the one that failed included, and their time; null where there was none to be tried. */
  readonly downgrade: { readonly commands: readonly string[]; readonly milliseconds: number } | null;
  readonly verdict: RehearsalVerdict;
  /** The upgrade after the downgrade; null where the downgrade did not go through. */
  readonly again: { readonly milliseconds: number } | null;
  readonly dropped: readonly DroppedObject[];
  /**
   * Revisions that were seen to commit in their middle although their source keeps to one transaction, as where env.py commits
   * every statement. Absent where a run was begun before it was looked at.
   */
  readonly commits?: readonly string[];
  /** What could not be known or was not tried, in words for the plan. */
  readonly unknown: readonly string[];
}

/** The login that the migration had on the copy, and the role of production that it acted as. */
export interface ImitatedLogin {
  readonly login: string;
  readonly role: string;
  /** In which ways it could not be what it imitates, in words. */
  readonly differences: readonly string[];
}

/** `dry-run.rehearsal/trial`: upgrade, smoke SQL, deployed release, downgrade, comparison, upgrade again, on copies. */
export interface RehearsalTrial extends TrialFindings {
  readonly at: string;
  readonly upgrade: UpgradeFootprint;
  /** Object maps of the copy before and after the upgrade: production must change in the same way. */
  readonly mapBefore: StoredDocument;
  readonly mapAfter: StoredDocument;
  /** What lies between the two, in production's names. */
  readonly schemaChange: SchemaChange;
  readonly imitated: ImitatedLogin;
  readonly findings: readonly StaticFinding[];
  readonly log: StoredDocument;
}

/** `dry-run.rehearsal/swap`: the restored copy swapped in for the upgraded one. */
export interface RehearsalSwap {
  /** Nobody could connect for this long. */
  readonly shutOut: number;
  readonly milliseconds: number;
}

export interface DroppedRehearsal {
  readonly dropped: readonly string[];
}

/** A rehearsal as a whole: what the plan is made from. */
export interface Rehearsal {
  readonly restore: RehearsalRestore;
  readonly trial: RehearsalTrial;
  readonly swap: RehearsalSwap;
  /** URI, digest and LSN of the backup it was made with. */
  readonly backup: { readonly uri: string; readonly sha256: string; readonly lsn: string; readonly capturedAt: string };
  /** Of the database when it was backed up. */
  readonly databaseBytes: number;
  /** ISO, by the clock of the Temporal server: by age. It also expires by a new commit and by growth of production. */
  readonly expiresAt: string;
}

/** Is what was rehearsed still what would be done? Its age is judged by the workflow, whose clock is the server's. */
export interface FreshnessInput extends StepInput {
  readonly commit: string;
  readonly rehearsed: Pick<Rehearsal, 'databaseBytes'>;
}

export interface Freshness {
  /** Why the rehearsal does not hold any more, in words; empty = it holds. */
  readonly expired: readonly string[];
  readonly commit: string;
  readonly databaseBytes: number;
}

// ---- static findings -------------------------------------------------------------------------------------------------

/** What a linter says about one statement: advice, unless the profile refuses its rule. */
export interface StaticFinding {
  readonly rule: string;
  readonly revision: string | null;
  readonly statement: string;
  readonly message: string;
  readonly level: 'advice' | 'refused';
}
