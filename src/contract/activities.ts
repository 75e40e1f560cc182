/**
 * Every activity of the worker, by the section of the document it serves. The workflow calls them through this interface;
 * `src/activities/index.ts` implements it. Failures are `ApplicationFailure`s of the types in `errors.ts`.
 */
import type { ActionsEvidence, ActionsInput, OwnStepEvidence, OwnStepInput } from './evidence/actions.ts';
import type { ApprovalVerification, RunIdentity, VerifyApprovalInput } from './evidence/approval.ts';
import type { BackupEvidence, BackupVerification, CaptureBackupInput, VerifyBackupInput } from './evidence/backup.ts';
import type { ChecksEvidence, ChecksInput } from './evidence/checks.ts';
import type { SchemaValidation, ValidateSchemaInput } from './evidence/schema.ts';
import type { ArchivedReport } from './evidence/closeout.ts';
import type {
  DrillInput,
  DrillRecord,
  DrillRestore,
  PrepareDrillInput,
  PreparedDrill,
  RecordDrillInput,
} from './evidence/drill.ts';
import type {
  FlowsEvidence,
  SchemaDiffEvidence,
  SchemaDiffInput,
  StagingEvidence,
  StagingInput,
} from './evidence/dry-run.ts';
import type {
  FenceEvidence,
  FenceHeld,
  FenceHeldInput,
  RecoveryPointEvidence,
  RecoveryPointInput,
  ReleaseFenceInput,
} from './evidence/fence.ts';
import type { CompareMeasuresInput, MeasuresComparison, MeasuresEvidence } from './evidence/measures.ts';
import type {
  AcceptRequestInput,
  AcceptedRequest,
  AccessEvidence,
  ChangeReview,
  LeaseHolder,
  MonitoringReadiness,
} from './evidence/preconditions.ts';
import type { InspectInput, ProductionState, ReplicationEvidence } from './evidence/production.ts';
import type {
  DroppedRehearsal,
  Freshness,
  FreshnessInput,
  RehearsalInput,
  RehearsalRestore,
  RehearsalSwap,
  RehearsalTrial,
  RehearsalTrialInput,
} from './evidence/rehearsal.ts';
import type {
  RestoreEvidence,
  RestoreInput,
  SalvageEvidence,
  SwapEvidence,
  SwapInput,
  WayBackCost,
} from './evidence/restore.ts';
import type {
  Arrivals,
  ArrivalsInput,
  EvaluateInput,
  Evaluation,
  BackedUpRows,
  BackedUpRowsInput,
  RollbackEvidence,
  RollbackInput,
} from './evidence/rollback.ts';
import type { StepInput } from './evidence/step.ts';
import type { ReleaseSwitchInput, SwitchInput, SwitchState } from './evidence/switches.ts';
import type { GraphEvidence, GraphInput, ToolingEvidence } from './evidence/tooling.ts';
import type { UpgradeEvidence, UpgradeInput } from './evidence/upgrade.ts';
import type { MigrationPlan, SealedPlan } from './plan.ts';
import type { RunReport } from './report.ts';

export interface PreconditionActivities {
  /** Loads the profile; refuses with all findings in one message; looks for a terminated predecessor. */
  acceptRequest(input: AcceptRequestInput): Promise<AcceptedRequest>;
  reviewChange(input: StepInput): Promise<ChangeReview>;
  inspectAccess(input: StepInput): Promise<AccessEvidence>;
  /** Who holds a lease, asked of the server; null when nobody does. */
  readLease(input: { readonly leaseId: string }): Promise<LeaseHolder | null>;
  /** Every measure of the profile answers with a number. */
  verifyMonitoring(input: StepInput): Promise<MonitoringReadiness>;
}

/** Announcements, ticket entries, notices: one way for all of them. */
export interface AnnouncementActivities {
  performActions(input: ActionsInput): Promise<ActionsEvidence>;
}

/** The two halves of an obligation, and its state. `engage` and `release` confirm what they did. */
export interface SwitchActivities {
  readSwitch(input: SwitchInput): Promise<SwitchState>;
  engageSwitch(input: SwitchInput): Promise<SwitchState>;
  releaseSwitch(input: ReleaseSwitchInput): Promise<SwitchState>;
}

/** The fence: an obligation of its own, for it is proven by trying and by counters. */
export interface FenceActivities {
  readFence(input: StepInput): Promise<SwitchState>;
  engageFence(input: StepInput): Promise<FenceEvidence>;
  releaseFence(input: ReleaseFenceInput): Promise<SwitchState>;
  /** Have the tables' counters stood still since the fence went up? */
  proveFenceHeld(input: FenceHeldInput): Promise<FenceHeld>;
  createRecoveryPoint(input: RecoveryPointInput): Promise<RecoveryPointEvidence>;
}

export interface ToolingActivities {
  verifyTooling(input: StepInput): Promise<ToolingEvidence>;
  readMigrationGraph(input: GraphInput): Promise<GraphEvidence>;
}

export interface BackupActivities {
  captureBackup(input: CaptureBackupInput): Promise<BackupEvidence>;
  verifyBackup(input: VerifyBackupInput): Promise<BackupVerification>;
}

export interface DryRunActivities {
  migrateStaging(input: StagingInput): Promise<StagingEvidence>;
  exerciseApplication(input: StepInput): Promise<FlowsEvidence>;
  diffSchema(input: SchemaDiffInput): Promise<SchemaDiffEvidence>;
}

/** Of `dry-run.rehearsal`. Every part makes its databases anew when it is repeated. */
export interface RehearsalActivities {
  restoreForRehearsal(input: RehearsalInput): Promise<RehearsalRestore>;
  rehearseMigration(input: RehearsalTrialInput): Promise<RehearsalTrial>;
  rehearseSwap(input: RehearsalTrialInput): Promise<RehearsalSwap>;
  /** Whatever the rehearsals of this run have left on the scratch server. */
  dropRehearsal(input: StepInput): Promise<DroppedRehearsal>;
  /** Commit of the tag, size of production, age: does the rehearsal still hold? */
  checkFreshness(input: FreshnessInput): Promise<Freshness>;
}

export interface PlanActivities {
  /** Canonical JSON (RFC 8785), digest, archived copy. */
  sealPlan(input: StepInput & { readonly plan: MigrationPlan }): Promise<SealedPlan>;
  /** The run id the server knows this run by now. */
  identifyRun(): Promise<RunIdentity>;
  /** An approval's SSH signature over the plan digest, against the profile's signers. */
  verifyApproval(input: VerifyApprovalInput): Promise<ApprovalVerification>;
}

export interface ApplyActivities {
  captureMeasures(input: StepInput): Promise<MeasuresEvidence>;
  checkReplication(input: StepInput): Promise<ReplicationEvidence>;
  inspectProduction(input: InspectInput): Promise<ProductionState>;
  upgradeProduction(input: UpgradeInput): Promise<UpgradeEvidence>;
  runChecks(input: ChecksInput): Promise<ChecksEvidence>;
}

export interface ValidationActivities {
  compareMeasures(input: CompareMeasuresInput): Promise<MeasuresComparison>;
  validateSchema(input: ValidateSchemaInput): Promise<SchemaValidation>;
}

export interface RecoveryActivities {
  /** Ends the migration's sessions, drops indexes the upgrade left invalid, then reads what production really is. */
  evaluateProduction(input: EvaluateInput): Promise<Evaluation>;
  /** Counts, and exports, what came into objects that the downgrade drops. */
  countArrivals(input: ArrivalsInput): Promise<Arrivals>;
  rollBackProduction(input: RollbackInput): Promise<RollbackEvidence>;
  /** Behind the fence, after a rollback of a part of what was rehearsed: are rows and large objects those of the backup? */
  compareRowsWithBackup(input: BackedUpRowsInput): Promise<BackedUpRows>;
  /** What a restore would take back, estimated; for the gate `recovery`. */
  estimateWayBack(input: RestoreInput): Promise<WayBackCost>;
  restoreFreshDatabase(input: RestoreInput): Promise<RestoreEvidence>;
  /** Compares the restored copy with production row by row and exports what only production has. */
  salvageRows(input: SwapInput): Promise<SalvageEvidence>;
  swapDatabases(input: SwapInput): Promise<SwapEvidence>;
}

export interface CloseoutActivities {
  /** The report as JSON, Markdown and HTML. */
  archiveReport(input: StepInput & { readonly report: RunReport }): Promise<ArchivedReport>;
  runOwnStep(input: OwnStepInput): Promise<OwnStepEvidence>;
}

/** Of the workflow `restoreDrill`. */
export interface DrillActivities {
  prepareDrill(input: PrepareDrillInput): Promise<PreparedDrill>;
  /** Restores the backup on the scratch server and compares it with its ledger. */
  restoreOnScratch(input: DrillInput): Promise<DrillRestore>;
  dropScratchDatabase(input: DrillInput): Promise<{ readonly dropped: readonly string[] }>;
  recordDrill(input: RecordDrillInput): Promise<DrillRecord>;
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
