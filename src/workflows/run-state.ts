import type { BackupEvidence, BackupVerification } from '../contract/evidence/backup.ts';
import type { FenceEvidence } from '../contract/evidence/fence.ts';
import type { WayBackCost } from '../contract/evidence/restore.ts';
import type { Arrivals, RollbackEvidence } from '../contract/evidence/rollback.ts';
import type { RecoveryAction } from '../contract/messages.ts';
import type { Predictions, SealedPlan } from '../contract/plan.ts';
import { rollbackOffer } from '../contract/rehearsal-offer.ts';
import type { Rehearsal } from '../contract/evidence/rehearsal.ts';
import type { Outcome } from '../contract/profile.ts';
import type { MigrationRequest } from '../contract/request.ts';
import { EVIDENCE_KEPT } from './bounds.ts';
import type { DecisionRecord, Obligation, Refusal, RunStatus, Stage, StepRecord, Waiting } from '../contract/status.ts';

/** Why the forward path was left. */
export type Trouble =
  | { readonly kind: 'failure'; readonly step: string; readonly message: string; readonly findings: readonly string[] }
  | { readonly kind: 'abort'; readonly by: string; readonly reason: string; readonly cancelled: boolean }
  | { readonly kind: 'rejected'; readonly by: string; readonly reason: string }
  | { readonly kind: 'no-approval'; readonly message: string }
  | { readonly kind: 'deadline'; readonly message: string }
  | { readonly kind: 'lease-lost'; readonly message: string };

/**
 * Why the undo was not the one that was rehearsed: it began in the middle, it was begun and did not end (or was gone on with
 * where a part of a revision may have stayed), or somebody else did it.
 */
export type DoubtfulUndo = 'of-a-part' | 'interrupted' | 'by-others';

/**
 * Of an undo that was not the one that was rehearsed the rehearsal says nothing about rows. `not-comparable`: nobody can
 * tell, there is no backup from behind the fence. `accepted`: a person says they are right.
 */
export interface UndoDoubt {
  readonly undo: DoubtfulUndo;
  readonly rows: 'unproven' | 'other' | 'equal' | 'not-comparable' | 'accepted';
  readonly why: string;
}

/** The rollback of what is applied now. */
export type RollbackStanding =
  | { readonly kind: 'none' }
  /** It may have changed production, and has not told how it ended. */
  | { readonly kind: 'begun' }
  | { readonly kind: 'ended'; readonly left: Pick<RollbackEvidence, 'versionRows' | 'objectMapDigest'> };

/** Milliseconds allowed for stopping the upgrade until none of its sessions is left; `npm run proof -- abort` measures it. */
const STOPPING = 5000;
/** Looks at production before a way back is taken: what it is, and whether the fence has held. */
const LOOKS_BEFORE = 2;

const REFUSALS_KEPT = 20;
const NOTES_KEPT = 20;

/**
 * Everything a run knows about itself, without Temporal: the timeline, the stage, decisions, refusals, obligations. The
 * clock is handed in, so the workflow's own clock keeps it deterministic.
 */
export class RunState {
  stage: Stage = 'before-upgrade';
  waiting: Waiting | undefined;
  windowStart: string | undefined;
  windowEnd: string | undefined;
  /** Milliseconds since the epoch: until then the upgrade may run. From here on a way back would not end inside the window. */
  upgradeUntil: number | undefined;
  plan: SealedPlan | undefined;
  /** Milliseconds since the epoch: when approvals have been waited for long enough, over all openings of the gate. */
  approvalsUntil: number | undefined;
  /** How often the gate `production` was opened: approvals belong to one opening. */
  openings = 0;
  rehearsal: Rehearsal | undefined;
  /** The provider's snapshot stands ready, by the profile: people can be faster with it than a restore of the dump. */
  hasSnapshot = false;
  /** By the profile. */
  rollsBack = true;
  /** By the profile: rows can be compared with the backup after the rollback of a part. */
  isToBeFenced = false;
  /** Milliseconds that a look at production takes (`dry-run.rehearsal/production`). */
  look = 0;
  /** How often upgrade (before, at each boundary, after) and rollback (before, after each command, after) look at production beside what Alembic does. */
  looks = { upgrade: 2, rollback: 3 };
  trouble: Trouble | undefined;
  outcome: Outcome | undefined;
  keptAside: string | undefined;
  /** While it is up. */
  fence: FenceEvidence | undefined;
  /** What the fence that is up, or was up last, was raised for: one raised for a restore says nothing of the time before. */
  fenceFor: 'migration' | 'restore' = 'migration';
  /** Why it is not proven that nobody went round the fence while the migration ran; undefined where it is, or was not asked. */
  fenceDoubt: string | undefined;
  /** The latest backup was taken while the fence was up: by the order of the steps, for clocks differ. */
  isBackupBehindFence = false;
  /** What a restore would take back, as far as it is known. */
  wayBack: WayBackCost | undefined;
  /** URIs of the rows that restores took back, each exported before its swap. */
  readonly salvaged: string[] = [];
  /** What a rollback would drop beyond the migration's own; undefined where it was not, or could not be, counted. */
  arrivals: Arrivals | undefined;
  /** Milliseconds since the epoch, by the server's clock: before the latest backup was begun. Its own times are a worker's. */
  backupSince = 0;
  /** Of the latest backup. */
  verification: BackupVerification | undefined;
  intervened = false;
  /** Recoveries that failed, and a rollback whose rows are to be judged, in the whole run: after a failed restore nobody knows that nothing was changed. */
  readonly tried: ('rollback' | 'restore')[] = [];
  /** Kept over all that is tried after it, until another database is swapped in. */
  undoDoubt: UndoDoubt | undefined;
  rollback: RollbackStanding = { kind: 'none' };
  /** Production has been seen with revisions of the upgrade applied, and this run has not undone them since. */
  wasApplied = false;
  /** A swap of databases was begun and has not answered: it may have gone through. */
  isSwapUnanswered = false;
  /** Decisions `retry` and `continue`. */
  retries = 0;
  readonly backups: BackupEvidence[] = [];
  readonly timeline: StepRecord[] = [];
  readonly decisions: DecisionRecord[] = [];
  readonly obligations: Obligation[] = [];
  readonly openItems: string[] = [];
  refusalCount = 0;
  readonly lastRefusals: Refusal[] = [];

  private readonly request: MigrationRequest;
  private readonly now: () => Date;
  private checksFrom = 0;
  private notes = 0;
  private furtherNotes: DecisionRecord | undefined;

  constructor(request: MigrationRequest, now: () => Date) {
    this.request = request;
    this.now = now;
  }

  /** A repetition of a step gets `#2`, `#3`: ids are unique within a run. */
  nextStepId(id: string): string {
    const times = this.timeline.filter((step) => step.id === id || step.id.startsWith(`${id}#`)).length;
    return times === 0 ? id : `${id}#${times + 1}`;
  }

  beginStep(id: string, summary: string): void {
    this.timeline.push({ id, summary, startedAt: this.time(), status: 'running' });
  }

  endStep(id: string, end: Pick<StepRecord, 'status' | 'evidence' | 'error'>): void {
    const index = this.timeline.findIndex((step) => step.id === id);
    const step = this.timeline[index];
    if (step) this.timeline[index] = { ...step, ...end, endedAt: this.time() };
    this.boundEvidence(id);
  }

  /** A step that is done again and again, by decisions of people, keeps the evidence of its last repetitions. */
  private boundEvidence(id: string): void {
    const [base = id] = id.split('#');
    const ended = this.timeline.flatMap((step, index) =>
      (step.id === base || step.id.startsWith(`${base}#`)) && step.endedAt !== undefined ? [index] : [],
    );
    const cut = ended.at(-EVIDENCE_KEPT - 1);
    const step = cut === undefined ? undefined : this.timeline[cut];
    if (cut === undefined || step?.evidence === undefined) return;
    this.timeline[cut] = {
      ...step,
      evidence: { leftOut: 'one of many repetitions: the history of the workflow has it' },
    };
  }

  /** From here on checks count anew: production has been changed again. */
  forgetChecks(): void {
    this.checksFrom = this.timeline.length;
  }

  /** Did this step, or a repetition of it, end well since production was last changed, or was it overruled by a person? */
  isSettled(id: string): boolean {
    return this.timeline
      .slice(this.checksFrom)
      .some(
        (step) =>
          (step.id === id || step.id.startsWith(`${id}#`)) && (step.status === 'done' || step.status === 'overruled'),
      );
  }

  /** A person has said of the last time this step was done that its failure is a false alarm. */
  isOverruled(id: string): boolean {
    return this.timeline.findLast((step) => step.id === id || step.id.startsWith(`${id}#`))?.status === 'overruled';
  }

  /** A person said the last failure of this step is a false alarm. */
  overrule(id: string): void {
    const index = this.timeline.findLastIndex((step) => step.id === id || step.id.startsWith(`${id}#`));
    const step = this.timeline[index];
    if (step) this.timeline[index] = { ...step, status: 'overruled' };
  }

  decide(decision: Omit<DecisionRecord, 'at'>): void {
    this.decisions.push({ at: this.time(), ...decision });
  }

  /**
   * A message that decides nothing any more. Anybody may send any number, and what is kept of a run travels as one payload of 2 MB
   * at most, over which the server ends the run: the first ones are kept, the others counted.
   */
  note(decision: Omit<DecisionRecord, 'at'>): void {
    this.notes += 1;
    if (this.notes <= NOTES_KEPT) return this.decide(decision);
    if (this.furtherNotes) this.decisions.splice(this.decisions.indexOf(this.furtherNotes), 1);
    const further = this.notes - NOTES_KEPT;
    this.furtherNotes = {
      at: this.time(),
      by: decision.by,
      what: `${decision.what}, the last of ${further} more like it`,
    };
    this.decisions.push(this.furtherNotes);
  }

  /** Steps whose failure a person has called a false alarm, and that have not been done again since. */
  get overruled(): readonly string[] {
    const ids = this.timeline.map(({ id }) => id.replace(/#\d+$/, ''));
    return [...new Set(ids)].filter((id) => this.isOverruled(id));
  }

  refuse(message: string, why: string, by?: string): void {
    this.refusalCount += 1;
    this.lastRefusals.push({ at: this.time(), message, why, ...(by !== undefined && { by }) });
    if (this.lastRefusals.length > REFUSALS_KEPT) this.lastRefusals.shift();
  }

  setObligation(obligation: Omit<Obligation, 'since'>): void {
    const index = this.obligations.findIndex((known) => known.name === obligation.name);
    const since = this.obligations[index]?.since ?? this.time();
    if (index < 0) this.obligations.push({ ...obligation, since });
    else this.obligations[index] = { ...obligation, since };
  }

  /** Obligations the run still owes, newest first: the order in which they are put back. */
  owed(): readonly Obligation[] {
    return this.obligations
      .filter(({ status }) => status === 'engaging' || status === 'engaged' || status === 'open')
      .reverse();
  }

  /** The fence, where it has been up since before the upgrade and nobody is known to have gone round it: only the migration has written. */
  get provenFence(): FenceEvidence | undefined {
    return this.fenceDoubt === undefined && this.fenceFor === 'migration' ? this.fence : undefined;
  }

  get latestBackup(): BackupEvidence | undefined {
    return this.backups.at(-1);
  }

  get pointOfNoReturn(): string | undefined {
    return this.upgradeUntil === undefined ? undefined : new Date(this.upgradeUntil).toISOString();
  }

  /** Milliseconds, from what this run has done already: the backup, and the rehearsal on it. Zero before. */
  get predictions(): Predictions {
    const backup = (this.latestBackup?.milliseconds ?? 0) + (this.verification?.milliseconds ?? 0);
    const { rehearsal } = this;
    if (rehearsal === undefined) {
      const { milliseconds: restore, from } = this.verification?.predictedRestore ?? { milliseconds: 0, from: 'dump' };
      return { backup, upgrade: 0, rollback: null, restore, recovery: restore, from };
    }
    const { trial, restore: restored, swap } = rehearsal;
    const offer = rollbackOffer(trial.verdict).rollback;
    const { downgrade } = trial;
    const isOffered = this.rollsBack && offer !== 'not-offered' && downgrade !== null;
    const rollback = isOffered ? downgrade.milliseconds + this.looks.rollback * this.look : null;
    const upgrade = trial.upgrade.milliseconds + this.looks.upgrade * this.look;
    const restore = restored.restored.milliseconds + swap.milliseconds;
    // The run itself knows the downgrade and the dump only. Where the downgrade comes first, the snapshot stands behind it.
    const isRestoreBehind = this.hasSnapshot && rollback !== null && offer === 'as-profile';
    const compared = rollback === null || !this.isToBeFenced ? rollback : rollback + restored.restored.timings.compare;
    const wayBack = isRestoreBehind ? (compared ?? 0) : Math.max(compared ?? 0, restore);
    const recovery = STOPPING + LOOKS_BEFORE * this.look + wayBack;
    return { backup, upgrade, rollback, restore, recovery, from: 'rehearsal' };
  }

  get recoveryActions(): readonly RecoveryAction[] {
    return this.waiting?.for === 'recovery' ? this.waiting.actions : [];
  }

  status(): RunStatus {
    const running = this.timeline.findLast((step) => step.status === 'running');
    const { service, releaseTag, changeTicket, requestedBy } = this.request;
    return {
      service,
      releaseTag,
      changeTicket,
      requestedBy,
      stage: this.stage,
      ...(running && { step: { id: running.id, summary: running.summary, since: running.startedAt } }),
      ...(this.waiting && { waiting: this.waiting }),
      ...(this.windowEnd !== undefined && { windowEnd: this.windowEnd }),
      ...(this.pointOfNoReturn !== undefined && { pointOfNoReturn: this.pointOfNoReturn }),
      ...(this.plan && { planDigest: this.plan.digest }),
      obligations: [...this.obligations],
      openObligations: this.owed().length,
      decisions: [...this.decisions],
      refusals: { count: this.refusalCount, last: [...this.lastRefusals] },
      actions: this.recoveryActions,
      ...(this.trouble && { trouble: troubleText(this.trouble) }),
      ...(this.wayBack && { wayBack: this.wayBack }),
      ...(this.outcome && { outcome: this.outcome }),
    };
  }

  private time(): string {
    return this.now().toISOString();
  }
}

export function troubleText(trouble: Trouble): string {
  switch (trouble.kind) {
    case 'failure':
      return `${trouble.step} failed: ${trouble.message}`;
    case 'abort':
      return trouble.cancelled ? `cancelled: ${trouble.reason}` : `aborted by ${trouble.by}: ${trouble.reason}`;
    case 'rejected':
      return `rejected by ${trouble.by}: ${trouble.reason}`;
    case 'no-approval':
    case 'deadline':
    case 'lease-lost':
      return trouble.message;
  }
}
