import {
  type ActivityOptions,
  CancellationScope,
  proxyActivities,
  setCurrentDetails,
  TemporalFailure,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import type { MigrationActivities } from '../contract/activities.ts';
import type { ApprovalVerification, VerifyApprovalInput } from '../contract/evidence/approval.ts';
import type { AcceptedRequest } from '../contract/evidence/preconditions.ts';
import type { RunFacts, StepInput } from '../contract/evidence/step.ts';
import type { Message } from '../contract/messages.ts';
import type { Profile } from '../contract/profile.ts';
import type { MigrationRequest } from '../contract/request.ts';
import { SEARCH_ATTRIBUTES } from '../contract/search-attributes.ts';
import type { Stage, Waiting } from '../contract/status.ts';
import { historyTrouble, SIGNATURES_LOOKED_AT } from './bounds.ts';
import { detailsMarkdown } from './details.ts';
import { failureText, StoppedAtGate, stepRefused } from './failure.ts';
import { type OpenGate, type Ruling, rule } from './message-policy.ts';
import { RunState, type Trouble } from './run-state.ts';
import { LOOK } from './step-policies.ts';

/** A step the profile does not set a limit for keeps its class's. */
type StepCall<T> = (activities: MigrationActivities) => Promise<T>;

/**
 * One run: its state, tied to Temporal. Sections call `step`; message handlers call `receive`; the main function calls
 * `forward` for everything that an abort may stop.
 */
export class MigrationRun {
  readonly request: MigrationRequest;
  readonly state: RunState;
  /** Kept by `takeLease`: false once somebody has ended the lease. */
  holdsLease = false;
  private accepted: AcceptedRequest | undefined;
  private facts: RunFacts;
  private openGate: OpenGate | undefined;
  private rulings: Ruling[] = [];
  private interruption: Trouble | undefined;
  private scope: CancellationScope | undefined;
  private failedStep = 'workflow';
  /** Signatures under verification, or found not to count. */
  private doubtfulSignatures = 0;
  private publishedStage = '';

  constructor(request: MigrationRequest) {
    const info = workflowInfo();
    this.request = request;
    this.state = new RunState(request, () => new Date());
    this.facts = {
      runId: info.firstExecutionRunId,
      workflowId: info.workflowId,
      service: request.service,
      releaseTag: request.releaseTag,
      changeTicket: request.changeTicket,
      requestedBy: request.requestedBy,
    };
  }

  get profile(): Profile {
    if (!this.accepted) throw stepRefused('the profile is not loaded yet');
    return this.accepted.profile;
  }

  get profileDigest(): string {
    return this.accepted?.profileDigest ?? '';
  }

  get isAccepted(): boolean {
    return this.accepted !== undefined;
  }

  accept(accepted: AcceptedRequest): void {
    this.accepted = accepted;
    this.state.hasSnapshot = accepted.profile.recoveryPoint.snapshot !== undefined;
    this.state.rollsBack = accepted.profile.recovery.rollback !== 'never';
    this.state.isToBeFenced = accepted.profile.fence.kind !== 'none';
  }

  /** Facts that later steps need in their placeholders: the commit, the window, the outcome. */
  learn(facts: Partial<RunFacts>): void {
    this.facts = { ...this.facts, ...facts };
  }

  get runFacts(): RunFacts {
    return this.facts;
  }

  input(): StepInput {
    return { run: this.facts, profile: this.profile };
  }

  /**
   * Runs one recorded step as an activity of the same id.
   *
   * @param id dotted step id of the design, with `/part` where a step has several
   * @param summary shown beside the event in the UI, 200 bytes at most
   */
  async step<T>(id: string, summary: string, policy: ActivityOptions, call: StepCall<T>): Promise<T> {
    const stepId = this.state.nextStepId(id);
    this.state.beginStep(stepId, summary);
    this.publish();
    const limits = this.accepted?.profile.timeouts ?? {};
    const limit = limits[id] ?? limits[id.split('/')[0] ?? id];
    const activities = proxyActivities<MigrationActivities>({
      ...policy,
      // The limit of a step is one for all its attempts: a step that is too slow is not started again.
      ...(limit !== undefined && { startToCloseTimeout: limit, scheduleToCloseTimeout: limit }),
      activityId: stepId,
      summary: summary.slice(0, 180),
    });
    try {
      const evidence = await call(activities);
      this.state.endStep(stepId, { status: 'done', evidence });
      return evidence;
    } catch (error) {
      this.failedStep = stepId;
      this.state.endStep(stepId, {
        status: this.interruption ? 'stopped' : 'failed',
        error: failureText(error).message,
      });
      throw error;
    } finally {
      this.publish();
    }
  }

  /** A step that the workflow can judge by itself: recorded like the others, without an activity. */
  judge<T>(id: string, summary: string, decide: () => T): T {
    const stepId = this.state.nextStepId(id);
    this.state.beginStep(stepId, summary);
    try {
      const evidence = decide();
      this.state.endStep(stepId, { status: 'done', evidence });
      return evidence;
    } catch (error) {
      this.failedStep = stepId;
      this.state.endStep(stepId, { status: 'failed', error: failureText(error).message });
      throw error;
    }
  }

  /**
   * Runs work that an abort, a cancel, the deadline or the loss of the lease may stop.
   *
   * @returns why it was left, or undefined when it went through
   */
  async forward(work: () => Promise<void>): Promise<Trouble | undefined> {
    if (this.interruption) return this.takeInterruption();
    const scope = new CancellationScope();
    this.scope = scope;
    let trouble: Trouble | undefined;
    try {
      await scope.run(work);
      trouble = this.takeInterruption();
    } catch (error) {
      trouble = this.takeInterruption() ?? this.troubleOf(error);
    } finally {
      this.scope = undefined;
    }
    // Whatever was waited for when the way was left is waited for no longer.
    if (trouble) this.close();
    this.publish();
    return trouble;
  }

  /** The first interruption counts; it stops what `forward` is running, and nobody decides at a gate that is being left. */
  interrupt(trouble: Trouble): void {
    this.interruption ??= trouble;
    if (this.scope === undefined) return;
    this.openGate = undefined;
    this.scope.cancel();
  }

  /** Asked with each message. Once production is being changed, ending it well comes first. */
  stopIfHistoryIsFull(): void {
    if (this.state.stage !== 'before-upgrade' || this.interruption) return;
    const message = historyTrouble(workflowInfo());
    if (message !== undefined) this.interrupt({ kind: 'failure', step: 'workflow', message, findings: [] });
  }

  /** Something stops the work of `forward` at this moment. Outside of it nothing is stopped any more. */
  get isStopping(): boolean {
    return this.scope !== undefined && this.interruption !== undefined;
  }

  private takeInterruption(): Trouble | undefined {
    const interruption = this.interruption;
    this.interruption = undefined;
    return interruption;
  }

  /** What a failed step means for the run. A programming error is no trouble of the run: it must reach Temporal and wait for a fix. */
  troubleOf(error: unknown): Trouble {
    if (error instanceof StoppedAtGate) return error.trouble;
    if (!(error instanceof TemporalFailure)) throw error;
    return { kind: 'failure', step: this.failedStep, ...failureText(error) };
  }

  enter(stage: Stage): void {
    this.state.stage = stage;
    this.publish();
  }

  /** Opens a gate: from now on messages are judged by it, and rulings queue up for `nextRuling`. */
  open(gate: OpenGate, waiting: Waiting): void {
    this.openGate = gate;
    this.state.waiting = waiting;
    this.rulings = [];
    this.publish();
  }

  /** Waiting without a gate, e.g. for the window. */
  wait(waiting: Waiting | undefined): void {
    this.state.waiting = waiting;
    this.publish();
  }

  close(): void {
    this.openGate = undefined;
    this.wait(undefined);
  }

  get hasRuling(): boolean {
    return this.rulings.length > 0;
  }

  nextRuling(): Ruling | undefined {
    return this.rulings.shift();
  }

  /**
   * As `receive`, for messages that have to be looked at from outside first: a signature is verified before the approval
   * counts, and the gate is asked again after it, for it may have closed or opened anew meanwhile.
   */
  async receiveSigned(message: Extract<Message, { name: 'approve' }>): Promise<Ruling> {
    const gate = this.openGate;
    const { signature } = message;
    if (gate?.gate !== 'production' || signature === undefined) return this.receive(message);
    if (rule(this.state.stage, gate, message).kind === 'refused') return this.receive(message);
    if (this.doubtfulSignatures >= SIGNATURES_LOOKED_AT) {
      return this.refused(
        message.by,
        `${SIGNATURES_LOOKED_AT} signatures of this run are being looked at or did not count: no further one is; find out who sends them, abort, and start a new run`,
      );
    }
    this.doubtfulSignatures += 1;
    const verification = await this.verify({ by: message.by, planDigest: gate.planDigest, signature });
    if (!verification.valid) return this.refused(message.by, `the signature does not count: ${verification.why}`);
    this.doubtfulSignatures -= 1;
    return this.receive({ ...message, planDigest: gate.planDigest }, verification.key);
  }

  private refused(by: string, why: string): Ruling {
    this.refuse('approve', why, by);
    this.publish();
    return { kind: 'refused', by, why };
  }

  private async verify(signed: Omit<VerifyApprovalInput, keyof StepInput>): Promise<ApprovalVerification> {
    const stepId = this.state.nextStepId('gate.production/signature');
    this.state.beginStep(stepId, `Signature of ${signed.by}`.slice(0, 180));
    try {
      // A message is answered whatever becomes of the run meanwhile.
      const verification = await CancellationScope.nonCancellable(() =>
        proxyActivities<MigrationActivities>({ ...LOOK, activityId: stepId }).verifyApproval({
          ...this.input(),
          ...signed,
        }),
      );
      this.state.endStep(stepId, { status: 'done', evidence: verification });
      return verification;
    } catch (error) {
      if (!(error instanceof TemporalFailure)) throw error;
      const { message } = failureText(error);
      this.state.endStep(stepId, { status: 'failed', error: message });
      return { valid: false, why: `it could not be verified: ${message}` };
    }
  }

  /** Judges a well-formed message and records it. Never throws: the caller decides how the sender learns of a refusal. */
  receive(message: Message, key?: string): Ruling {
    if (this.openGate?.until !== undefined && Date.now() > this.openGate.until) this.openGate = undefined;
    const ruling = rule(this.state.stage, this.openGate, message);
    switch (ruling.kind) {
      case 'approved':
        this.state.decide({
          by: ruling.by,
          what: 'approve',
          gate: ruling.gate,
          ...(ruling.comment && { reason: ruling.comment }),
          ...(key !== undefined && { key }),
        });
        this.rulings.push(ruling);
        this.countApproval(ruling.by);
        if (this.openGate?.gate !== 'production' || this.openGate.approvedBy.length >= this.openGate.required) {
          this.openGate = undefined;
        }
        break;
      case 'rejected':
        this.state.decide({ by: ruling.by, what: 'reject', gate: ruling.gate, reason: ruling.reason });
        this.rulings.push(ruling);
        // The deciding message closes the gate at once: what comes later meets none, however long the run takes to act.
        this.openGate = undefined;
        break;
      case 'recover':
        this.state.decide({
          by: ruling.by,
          what: `recover: ${ruling.action}`,
          gate: 'recovery',
          reason: ruling.reason,
        });
        this.rulings.push(ruling);
        this.openGate = undefined;
        break;
      case 'abort':
        if (this.interruption) this.state.note({ by: ruling.by, what: 'abort (the run stops already)' });
        else this.state.decide({ by: ruling.by, what: 'abort', reason: ruling.reason });
        if (this.state.stage !== 'before-upgrade') this.state.intervened = true;
        this.interrupt({ kind: 'abort', by: ruling.by, reason: ruling.reason, cancelled: false });
        break;
      case 'noted':
        this.state.note({ by: ruling.by, what: `${message.name} (recorded, not acted on: ${ruling.why})` });
        break;
      case 'refused':
        this.refuse(message.name, ruling.why, ruling.by);
        break;
    }
    this.publish();
    return ruling;
  }

  /** A cancel of the workflow, from the UI or a command line: an abort whose sender only the server knows. */
  receiveCancel(): void {
    const reason = 'the workflow was cancelled';
    const ruling = rule(this.state.stage, this.openGate, {
      name: 'abort',
      by: 'whoever cancelled the workflow',
      reason,
    });
    if (ruling.kind === 'abort') {
      this.state.decide({ by: ruling.by, what: 'cancel' });
      if (this.state.stage !== 'before-upgrade') this.state.intervened = true;
      this.interrupt({ kind: 'abort', by: ruling.by, reason, cancelled: true });
    } else {
      this.state.decide({
        by: ruling.by,
        what: 'cancel (recorded, not acted on: the run is undoing or closing out already)',
      });
    }
    this.publish();
  }

  /** Counts a refusal and keeps the last ones for `status`. */
  refuse(message: string, why: string, by?: string): void {
    this.state.refuse(message, why, by);
  }

  private countApproval(by: string): void {
    if (this.openGate?.gate !== 'production') return;
    const approvedBy = [...this.openGate.approvedBy, by];
    this.openGate = { ...this.openGate, approvedBy };
    if (this.state.waiting?.for === 'approval') {
      this.state.waiting = { ...this.state.waiting, approvedBy, missing: this.openGate.required - approvedBy.length };
    }
  }

  /** Mirrors the essentials where people look: the UI's details and the stage as a search attribute. */
  publish(): void {
    const status = this.state.status();
    setCurrentDetails(detailsMarkdown(status));
    const stage = status.waiting ? WAITING_STAGES[status.waiting.for] : status.stage;
    if (stage === this.publishedStage) return;
    this.publishedStage = stage;
    upsertSearchAttributes([{ key: SEARCH_ATTRIBUTES.stage, value: stage }]);
  }
}

/** What the search attribute says while a run waits: an alert tells "undoing" from "waits for a person" by it. */
const WAITING_STAGES: Record<Waiting['for'], string> = {
  approval: 'gate-production',
  qa: 'gate-qa',
  recovery: 'gate-recovery',
  window: 'window',
};
