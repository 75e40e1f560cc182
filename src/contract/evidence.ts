/**
 * What every activity takes and what it returns as evidence. All of it goes into the workflow's history: small, flat where
 * possible, and without secrets. Big text is in the object store and named by `uri`. Times are ISO 8601 in UTC, durations
 * milliseconds, sizes bytes, digests lower-case hexadecimal SHA-256.
 */
import type { AlembicGraph } from './graph.ts';
import type { Action, Check, JsonValue, Measure, Outcome, OwnStep, Profile, Switch } from './profile.ts';
import type { DroppedObject } from './rehearsal.ts';
import type { MigrationRequest } from './request.ts';

/** Who this run is. `runId` is the first run id of the workflow, so that a reset names the same things. */
export interface RunFacts {
  readonly runId: string;
  readonly workflowId: string;
  readonly service: string;
  readonly releaseTag: string;
  readonly changeTicket: string;
  readonly requestedBy: string;
  /** Known once `preconditions.change-review` has resolved the tag. */
  readonly commit?: string;
  readonly windowStart?: string;
  readonly windowEnd?: string;
  readonly outcome?: Outcome;
}

/** Every activity gets at least this. */
export interface StepInput {
  readonly run: RunFacts;
  readonly profile: Profile;
}

/** A document in the object store. */
export interface StoredDocument {
  readonly uri: string;
  readonly sha256: string;
  readonly bytes: number;
}

// ---- preconditions ---------------------------------------------------------------------------------------------------

export interface AcceptRequestInput {
  readonly request: MigrationRequest;
  readonly workflowId: string;
  readonly runId: string;
  /** What the workflow found wrong by itself, so that one message names everything. */
  readonly findings: readonly string[];
}

export interface AcceptedRequest {
  readonly profile: Profile;
  readonly profileDigest: string;
  /** The last run of this service before this one. */
  readonly previousRun?: { readonly runId: string; readonly status: string };
}

export interface ChangeReview {
  readonly commit: string;
  readonly tag: string;
  readonly source: string;
  readonly reviewers: readonly string[];
  readonly checks: string;
}

/** System identifier plus name tell a database apart; OID and timeline are noted beside. */
export interface DatabaseIdentity {
  readonly systemIdentifier: string;
  readonly database: string;
  readonly oid: number;
  readonly timeline: number;
  readonly serverVersion: string;
  readonly serverMajor: number;
  readonly encoding: string;
  readonly sizeBytes: number;
}

export interface AccessEvidence {
  readonly production: DatabaseIdentity;
  readonly staging: DatabaseIdentity;
  /** The scratch server's maintenance database. */
  readonly scratch: DatabaseIdentity;
  readonly migratorRole: string;
  readonly rights: readonly string[];
  readonly tls: string;
  /** Room for a second copy: what was measured, or the profile's waiver. */
  readonly capacity: string;
  readonly bucket: string;
}

/** The run whose child workflow a lease is. */
export interface LeaseHolder {
  readonly workflowId: string;
  readonly runId: string;
  readonly since: string;
}

export interface MonitoringReadiness {
  readonly measures: readonly { readonly name: string; readonly value: number }[];
}

export interface ActionsInput extends StepInput {
  readonly actions: readonly Action[];
  readonly message: Announcement;
}

/** What is handed to announcers, tickets and notifiers, as JSON and as Markdown text. */
export interface Announcement {
  readonly kind:
    | 'window-announced'
    | 'backup-recorded'
    | 'gate-opened'
    | 'gate-reminder'
    | 'gate-escalation'
    | 'stakeholders-informed'
    | 'outcome-recorded'
    | 'retrospective-scheduled';
  readonly title: string;
  readonly text: string;
  readonly facts: { readonly [key: string]: JsonValue };
}

export interface ActionsEvidence {
  /** One entry for each configured action: its kind and what the other side said (a status, an exit code, a line count). */
  readonly delivered: readonly { readonly to: string; readonly answer: string }[];
}

// ---- switches (obligations) -------------------------------------------------------------------------------------------

export interface SwitchInput extends StepInput {
  readonly switch: Switch;
}

/** `before` is registered by the workflow ahead of engaging. `detail` is the mechanism's own note, e.g. which queues which workers consumed. */
export interface SwitchState {
  readonly state: 'engaged' | 'released' | 'unknown';
  readonly detail: { readonly [key: string]: JsonValue };
}

export interface ReleaseSwitchInput extends SwitchInput {
  readonly before: SwitchState;
}

// ---- tooling ----------------------------------------------------------------------------------------------------------

export interface ToolingEvidence {
  readonly programs: Readonly<Record<string, string>>;
  readonly alembic: string;
  readonly sqlalchemy: string;
  readonly python: string;
  readonly secretsResolved: number;
}

export interface GraphInput extends StepInput {
  readonly targetRevision: string;
}

export interface GraphEvidence {
  /** Version rows of production, sorted. Empty: a database that is empty and unversioned. */
  readonly startRevisions: readonly string[];
  /** What was asked for, resolved, for people: `a1b2`, or `a1b2, c3d4` where there are several heads. */
  readonly targetRevision: string;
  /** Revisions that `alembic upgrade` is called with, one after the other: one a branch. */
  readonly targetRevisions: readonly string[];
  readonly path: AlembicGraph['revisions'];
  /** Alembic downgrade arguments, in order, that lead back to the start revisions; or why there are none. */
  readonly downgrade:
    | { readonly kind: 'planned'; readonly commands: readonly string[] }
    | { readonly kind: 'impossible'; readonly why: string };
  readonly risks: readonly string[];
  /** What cannot be known because the service's wrapper hides it, in words. */
  readonly unknown: readonly string[];
}

// ---- backup -----------------------------------------------------------------------------------------------------------

export interface CaptureBackupInput extends StepInput {
  /** Step id with its repetition, e.g. `backup.capture` or `apply.refresh-backup#2`: names the object, so a retry replaces it. */
  readonly step: string;
}

export interface BackupEvidence {
  readonly uri: string;
  readonly bucket: string;
  readonly key: string;
  /** Of the encrypted object. */
  readonly bytes: number;
  readonly sha256: string;
  /** Of the dump before encryption. */
  readonly dumpBytes: number;
  readonly dumpSha256: string;
  readonly capturedAt: string;
  readonly lsn: string;
  readonly database: DatabaseIdentity;
  readonly versionRows: readonly string[];
  readonly objectMapDigest: string;
  /** JSON: rows per table, sequences, object map. Beside the backup. */
  readonly ledger: StoredDocument;
  readonly tables: number;
  readonly rows: number;
  readonly pgDumpVersion: string;
  /** How the dump was packed before encryption: `zstd`. */
  readonly compression: string;
  readonly encryption: string;
  /** Tables of which only a sample of the rows was checksummed, because they are larger than the profile's `sampleAbove`. */
  readonly sampledTables: number;
  readonly largeObjects: number;
  /** From the snapshot to the object's completion. */
  readonly milliseconds: number;
  /** URI of the manifest: this evidence and whose it is, in plain JSON beside the object. Written last: an object without one is half made. */
  readonly manifest: string;
}

/** What stands beside a backup in the store, readable without the age identity. */
export interface BackupManifest {
  readonly format: 'migration-runbook/backup/1';
  readonly service: string;
  readonly releaseTag: string;
  readonly changeTicket: string;
  readonly runId: string;
  readonly step: string;
  readonly backup: BackupEvidence;
  /** The last verification that passed. */
  readonly verified?: { readonly at: string; readonly milliseconds: number; readonly by: string };
}

export interface VerifyBackupInput extends StepInput {
  readonly backup: BackupEvidence;
}

export interface BackupVerification {
  readonly uri: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly dumpSha256: string;
  /** Entries of the contents list (`pg_restore --list`). */
  readonly entries: number;
  /** Every table of the ledger has a data entry in the archive. */
  readonly tableData: number;
  /** Bytes of SQL that the full decode produced. */
  readonly decodedBytes: number;
  readonly milliseconds: number;
  /** What bringing this backup back will take, restore, comparison and swap together, and what that is predicted from. */
  readonly predictedRestore: RestorePrediction;
}

export interface RestorePrediction {
  readonly milliseconds: number;
  /** `drill`: from the last recorded drill, scaled by size. `dump`: from the time the dump took, a rough factor. */
  readonly from: 'drill' | 'dump';
}

// ---- dry run ----------------------------------------------------------------------------------------------------------

export interface StagingInput extends StepInput {
  readonly graph: GraphEvidence;
  readonly production: DatabaseIdentity;
}

export interface StagingEvidence {
  readonly before: readonly string[];
  readonly after: readonly string[];
  readonly tests: string;
  readonly log: StoredDocument;
  readonly upgradeMilliseconds: number;
  /** Object maps and schema dumps around the upgrade, for the diff and for `validation.schema`. */
  readonly mapBefore: StoredDocument;
  readonly mapAfter: StoredDocument;
  readonly schemaBefore: StoredDocument;
  readonly schemaAfter: StoredDocument;
  /** Staging already stood at the target, so the dry run tried nothing: said in the plan. */
  readonly nothingToDo: boolean;
}

export interface FlowsEvidence {
  readonly bootMilliseconds: number;
  readonly flows: readonly { readonly name: string; readonly requests: number; readonly milliseconds: number }[];
}

export interface SchemaDiffInput extends StepInput {
  readonly staging: StagingEvidence;
}

export interface SchemaDiffEvidence {
  readonly diff: StoredDocument;
  readonly added: readonly string[];
  readonly removed: readonly string[];
  readonly changed: readonly string[];
}

// ---- plan -------------------------------------------------------------------------------------------------------------

/** The run id as the server tells it to an activity: a workflow reset has another one, whatever the history says. */
export interface RunIdentity {
  readonly currentRunId: string;
}

export interface VerifyApprovalInput extends StepInput {
  readonly by: string;
  /** The whole digest of the plan at the gate: what the signature must be over. */
  readonly planDigest: string;
  /** Armored SSH signature, namespace `migration-runbook`. */
  readonly signature: string;
}

export type ApprovalVerification =
  | { readonly valid: true; readonly key: string }
  | { readonly valid: false; readonly why: string };

// ---- apply ------------------------------------------------------------------------------------------------------------

export interface MeasuresEvidence {
  readonly takenAt: string;
  readonly values: readonly { readonly name: string; readonly value: number; readonly samples: readonly number[] }[];
}

export interface ReplicationEvidence {
  readonly standbys: readonly {
    readonly name: string;
    readonly state: string;
    readonly lagBytes: number;
    readonly lagMilliseconds: number;
  }[];
}

export interface InspectInput extends StepInput {
  /** The object map production is expected to have: where its digest differs, `differences` says how. */
  readonly expected?: StoredDocument;
}

/** What production is, read in one snapshot. `objectMapDigest` counts valid indexes only; invalid ones are listed. */
export interface ProductionState {
  readonly identity: DatabaseIdentity;
  readonly versionRows: readonly string[];
  readonly versioned: 'versioned' | 'unversioned-empty' | 'unversioned-full';
  readonly objectMapDigest: string;
  readonly objectMap: StoredDocument;
  readonly invalidIndexes: readonly string[];
  /** How it differs from the map that was expected, 100 at most. */
  readonly differences?: readonly string[];
  readonly migratorSessions: number;
  /** Time-outs that the migrator's role carries itself, e.g. `lock_timeout=3s`: they hold where our part cannot be loaded. */
  readonly migratorSettings: readonly string[];
  readonly otherSessions: readonly { readonly role: string; readonly application: string; readonly count: number }[];
}

// ---- fence and recovery points ----------------------------------------------------------------------------------------

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
}

/** Did anybody write since the fence went up? By the tables' counters. */
export interface FenceHeld {
  readonly held: boolean;
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

export interface UpgradeInput extends StepInput {
  /** The run id the approved plan was made for. */
  readonly planRunId: string;
  readonly graph: GraphEvidence;
  readonly before: ProductionState;
  /** What the rehearsal was seen to lock (`ArchivedFootprint`). */
  readonly footprint: StoredDocument;
}

export interface UpgradeEvidence {
  readonly revisions: readonly string[];
  readonly milliseconds: number;
  /** `already-applied`: an earlier attempt had finished before its reply was lost. */
  readonly how: 'upgraded' | 'resumed' | 'already-applied';
  readonly droppedInvalidIndexes: readonly string[];
  readonly endedSessions: number;
  /** How often Alembic was started: more than once where a lock could not be had in time. */
  readonly tries: number;
  /** Who stood in the way, by try. */
  readonly blockers: readonly string[];
  readonly log?: StoredDocument;
}

/** A session that the migration waits for, as shown in heartbeats and `runbook status`. */
export interface Blocker {
  readonly pid: number;
  readonly role: string;
  readonly application: string;
  readonly state: string;
  /** Milliseconds since its transaction began. */
  readonly transactionAge: number;
  /** Milliseconds since its query began, or ended when it is idle. */
  readonly queryAge: number;
  /** What the migration waits for: `AccessExclusiveLock on public.jobs`. */
  readonly waitedFor: string;
}

/** What `apply.upgrade` tells in its heartbeat. */
export interface UpgradeProgress {
  readonly phase: string;
  readonly target: string;
  /** The revision that runs, where the service's command lets us see it. */
  readonly revision: string;
  /** Alembic's last line. */
  readonly line: string;
  /** Version rows as they are committed. */
  readonly versionRows?: readonly string[];
  /** The statement that runs, literals struck out, and since when (ISO). */
  readonly statement?: string;
  readonly statementSince?: string;
  /** Who stands in the way now, 10 at most. */
  readonly blockers?: readonly Blocker[];
  /** The index that is being built: `public.jobs 45 %, building index`. */
  readonly index?: string;
  readonly try?: number;
  /** Why locks cannot be watched at the moment. */
  readonly blind?: string;
}

export interface ChecksInput extends StepInput {
  readonly checks: readonly Check[];
}

export interface ChecksEvidence {
  readonly checks: readonly { readonly name: string; readonly milliseconds: number; readonly answer: string }[];
}

// ---- validation -------------------------------------------------------------------------------------------------------

export interface CompareMeasuresInput extends StepInput {
  readonly measures: readonly Measure[];
  readonly baseline: MeasuresEvidence;
}

export interface MeasuresComparison {
  readonly values: readonly {
    readonly name: string;
    readonly before: number;
    readonly after: number;
    readonly limit: number;
    readonly verdict: 'within' | 'exceeded';
  }[];
}

export interface ValidateSchemaInput extends StepInput {
  readonly before: ProductionState;
  /** Object maps of the rehearsal: production must have changed as the copy did. */
  readonly rehearsed: { readonly mapBefore: StoredDocument; readonly mapAfter: StoredDocument };
  readonly targetRevisions: readonly string[];
}

export interface SchemaValidation {
  readonly expected: readonly string[];
  /** Objects whose change in production equals their change in the rehearsal. */
  readonly changes: number;
  readonly versionRows: readonly string[];
}

// ---- recovery ---------------------------------------------------------------------------------------------------------

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
  readonly milliseconds: number;
  /** `equal`: production's object map is that of before the upgrade. `as-rehearsed`: but for what the rehearsal left too. */
  readonly objects: 'equal' | 'as-rehearsed';
  readonly differences: readonly string[];
  /** What of the users' may have been dropped uncounted, and why nobody knows; null where nothing can have been. */
  readonly uncounted: string | null;
  readonly log: StoredDocument;
}

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

// ---- drill ------------------------------------------------------------------------------------------------------------

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

// ---- own steps, closeout ----------------------------------------------------------------------------------------------

export interface OwnStepInput extends StepInput {
  readonly step: OwnStep;
}

export interface OwnStepEvidence {
  readonly answer: string;
}

export interface ArchivedReport {
  readonly json: StoredDocument;
  readonly markdown: StoredDocument;
  readonly html: StoredDocument;
}
