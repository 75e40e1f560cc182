/**
 * Every activity of the worker, by the section of the document it serves. The workflow calls them through this interface;
 * `src/activities/index.ts` implements it. Failures are `ApplicationFailure`s of the types in `errors.ts`.
 */
import type * as E from './evidence.ts';
import type { MigrationPlan, SealedPlan } from './plan.ts';
import type * as R from './rehearsal.ts';
import type { RunReport } from './report.ts';

export interface PreconditionActivities {
  /** Loads the profile; refuses with all findings in one message; looks for a terminated predecessor. */
  acceptRequest(input: E.AcceptRequestInput): Promise<E.AcceptedRequest>;
  reviewChange(input: E.StepInput): Promise<E.ChangeReview>;
  inspectAccess(input: E.StepInput): Promise<E.AccessEvidence>;
  /** Who holds a lease, asked of the server; null when nobody does. */
  readLease(input: { readonly leaseId: string }): Promise<E.LeaseHolder | null>;
  /** Every measure of the profile answers with a number. */
  verifyMonitoring(input: E.StepInput): Promise<E.MonitoringReadiness>;
}

/** Announcements, ticket entries, notices: one way for all of them. */
export interface AnnouncementActivities {
  performActions(input: E.ActionsInput): Promise<E.ActionsEvidence>;
}

/** The two halves of an obligation, and its state. `engage` and `release` confirm what they did. */
export interface SwitchActivities {
  readSwitch(input: E.SwitchInput): Promise<E.SwitchState>;
  engageSwitch(input: E.SwitchInput): Promise<E.SwitchState>;
  releaseSwitch(input: E.ReleaseSwitchInput): Promise<E.SwitchState>;
}

/** The fence: an obligation of its own, for it is proven by trying and by counters. */
export interface FenceActivities {
  readFence(input: E.StepInput): Promise<E.SwitchState>;
  engageFence(input: E.StepInput): Promise<E.FenceEvidence>;
  releaseFence(input: E.ReleaseFenceInput): Promise<E.SwitchState>;
  /** Have the tables' counters stood still since the fence went up? */
  proveFenceHeld(input: E.FenceHeldInput): Promise<E.FenceHeld>;
  createRecoveryPoint(input: E.RecoveryPointInput): Promise<E.RecoveryPointEvidence>;
}

export interface ToolingActivities {
  verifyTooling(input: E.StepInput): Promise<E.ToolingEvidence>;
  readMigrationGraph(input: E.GraphInput): Promise<E.GraphEvidence>;
}

export interface BackupActivities {
  captureBackup(input: E.CaptureBackupInput): Promise<E.BackupEvidence>;
  verifyBackup(input: E.VerifyBackupInput): Promise<E.BackupVerification>;
}

export interface DryRunActivities {
  migrateStaging(input: E.StagingInput): Promise<E.StagingEvidence>;
  exerciseApplication(input: E.StepInput): Promise<E.FlowsEvidence>;
  diffSchema(input: E.SchemaDiffInput): Promise<E.SchemaDiffEvidence>;
}

/** Of `dry-run.rehearsal`. Every part makes its databases anew when it is repeated. */
export interface RehearsalActivities {
  restoreForRehearsal(input: R.RehearsalInput): Promise<R.RehearsalRestore>;
  rehearseMigration(input: R.RehearsalTrialInput): Promise<R.RehearsalTrial>;
  rehearseSwap(input: R.RehearsalTrialInput): Promise<R.RehearsalSwap>;
  /** Whatever the rehearsals of this run have left on the scratch server. */
  dropRehearsal(input: E.StepInput): Promise<R.DroppedRehearsal>;
  /** Commit of the tag, size of production, age: does the rehearsal still hold? */
  checkFreshness(input: R.FreshnessInput): Promise<R.Freshness>;
}

export interface PlanActivities {
  /** Canonical JSON (RFC 8785), digest, archived copy. */
  sealPlan(input: E.StepInput & { readonly plan: MigrationPlan }): Promise<SealedPlan>;
  /** The run id the server knows this run by now. */
  identifyRun(): Promise<E.RunIdentity>;
  /** An approval's SSH signature over the plan digest, against the profile's signers. */
  verifyApproval(input: E.VerifyApprovalInput): Promise<E.ApprovalVerification>;
}

export interface ApplyActivities {
  captureMeasures(input: E.StepInput): Promise<E.MeasuresEvidence>;
  checkReplication(input: E.StepInput): Promise<E.ReplicationEvidence>;
  inspectProduction(input: E.InspectInput): Promise<E.ProductionState>;
  upgradeProduction(input: E.UpgradeInput): Promise<E.UpgradeEvidence>;
  runChecks(input: E.ChecksInput): Promise<E.ChecksEvidence>;
}

export interface ValidationActivities {
  compareMeasures(input: E.CompareMeasuresInput): Promise<E.MeasuresComparison>;
  validateSchema(input: E.ValidateSchemaInput): Promise<E.SchemaValidation>;
}

export interface RecoveryActivities {
  /** Ends the migration's sessions, drops indexes the upgrade left invalid, then reads what production really is. */
  evaluateProduction(input: E.EvaluateInput): Promise<E.Evaluation>;
  /** Counts, and exports, what came into objects that the downgrade drops. */
  countArrivals(input: E.ArrivalsInput): Promise<E.Arrivals>;
  rollBackProduction(input: E.RollbackInput): Promise<E.RollbackEvidence>;
  /** What a restore would take back, estimated; for the gate `recovery`. */
  estimateWayBack(input: E.RestoreInput): Promise<E.WayBackCost>;
  restoreFreshDatabase(input: E.RestoreInput): Promise<E.RestoreEvidence>;
  /** Compares the restored copy with production row by row and exports what only production has. */
  salvageRows(input: E.SwapInput): Promise<E.SalvageEvidence>;
  swapDatabases(input: E.SwapInput): Promise<E.SwapEvidence>;
}

export interface CloseoutActivities {
  /** The report as JSON, Markdown and HTML. */
  archiveReport(input: E.StepInput & { readonly report: RunReport }): Promise<E.ArchivedReport>;
  runOwnStep(input: E.OwnStepInput): Promise<E.OwnStepEvidence>;
}

/** Of the workflow `restoreDrill`. */
export interface DrillActivities {
  prepareDrill(input: E.PrepareDrillInput): Promise<E.PreparedDrill>;
  /** Restores the backup on the scratch server and compares it with its ledger. */
  restoreOnScratch(input: E.DrillInput): Promise<E.DrillRestore>;
  dropScratchDatabase(input: E.DrillInput): Promise<{ readonly dropped: readonly string[] }>;
  recordDrill(input: E.RecordDrillInput): Promise<E.DrillRecord>;
}

export interface MigrationActivities
  extends PreconditionActivities,
    AnnouncementActivities,
    SwitchActivities,
    FenceActivities,
    ToolingActivities,
    BackupActivities,
    DryRunActivities,
    RehearsalActivities,
    PlanActivities,
    ApplyActivities,
    ValidationActivities,
    RecoveryActivities,
    CloseoutActivities,
    DrillActivities {}
