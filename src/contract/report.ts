import type { BackupEvidence } from './evidence/backup.ts';
import type { WayBackCost } from './evidence/restore.ts';
import type { SealedPlan } from './plan.ts';
import type { Outcome } from './profile.ts';
import type { DecisionRecord, Obligation, Refusal, StepRecord } from './status.ts';

/**
 * Who sent a message, as the server recorded it beside what the sender claimed. Read from the workflow's history, for the
 * workflow itself cannot see it.
 */
export interface MessageSender {
  /** A message's name, `cancel`, or the name of a signal that nobody handles. */
  readonly name: string;
  readonly via: 'signal' | 'update' | 'cancel';
  /** `by` of the message, where one could be read. */
  readonly claimed?: string;
  /** What the client calls itself: proof of nothing, but a trace. */
  readonly identity: string;
  /** The caller the server authenticated, where it authenticates callers. */
  readonly principal?: string;
  readonly sentAt: string;
  /** When the workflow handled it, by its own clock: `at` of the decision or refusal that came of it. */
  readonly handledAt?: string;
}

/** The whole record of a run, archived before it ends. */
export interface RunReport {
  readonly format: 'migration-runbook/report/1';
  readonly service: string;
  readonly releaseTag: string;
  readonly commit: string | null;
  readonly changeTicket: string;
  readonly requestedBy: string;
  readonly workflowId: string;
  readonly runId: string;
  readonly startedAt: string;
  readonly endedAt: string;
  readonly outcome: Outcome;
  /** One sentence for the ticket: what happened to production, and how it is known. */
  readonly verdict: string;
  readonly trouble: string | null;
  readonly plan: SealedPlan | null;
  readonly backups: readonly BackupEvidence[];
  /** What a restore took back, or would have, as it was last known; null where nobody had to know. */
  readonly wayBack: WayBackCost | null;
  readonly timeline: readonly StepRecord[];
  readonly decisions: readonly DecisionRecord[];
  readonly obligations: readonly Obligation[];
  readonly refusals: { readonly count: number; readonly last: readonly Refusal[] };
  /** What is still to be done by people: obligations not put back, messages not delivered. */
  readonly openItems: readonly string[];
  /** A person had to intervene, so a retrospective is due. */
  readonly intervened: boolean;
  /** Added when the report is archived; absent where the history could not be read. */
  readonly senders?: readonly MessageSender[];
}

/** The workflow's result, or the details of the failure it ends with. At most 64 KB. */
export interface ReportSummary {
  readonly outcome: Outcome;
  readonly verdict: string;
  readonly service: string;
  readonly releaseTag: string;
  readonly changeTicket: string;
  readonly planDigest: string | null;
  readonly backup: string | null;
  readonly keptAside: string | null;
  readonly openItems: readonly string[];
  readonly findings: readonly string[];
  /** URI of the archived report; null when the run was refused before it knew where to archive. */
  readonly report: string | null;
}
