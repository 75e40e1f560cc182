import { TerminatedFailure, TimeoutFailure, WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { OUTCOMES, type Outcome } from '../contract/profile.ts';
import type { ReportSummary } from '../contract/report.ts';
import type { ExecutionView } from './execution.ts';

/** How a run ended. */
export type RunEnd =
  | {
      readonly kind: 'ended';
      readonly outcome: Outcome;
      readonly verdict: string;
      /** Absent for a cancelled run: such an end carries no details. */
      readonly summary?: ReportSummary;
    }
  /** The server or a hand ended it: nothing was put back, nothing was proven. */
  | { readonly kind: 'lost'; readonly how: string };

/** @param handle of a closed run, with its run id */
export async function readEnd(handle: WorkflowHandle, { outcome, status }: ExecutionView): Promise<RunEnd> {
  try {
    const summary: unknown = await handle.result();
    if (isSummary(summary)) return ended(summary);
    return { kind: 'lost', how: 'completed without a report' };
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    const { cause } = error;
    if (cause instanceof ApplicationFailure) {
      const summary: unknown = cause.details?.[0];
      return isSummary(summary) ? ended(summary) : { kind: 'lost', how: `failed: ${cause.message}` };
    }
    if (cause instanceof CancelledFailure && outcome !== undefined) {
      return { kind: 'ended', outcome, verdict: `Cancelled: ${CANCELLED[outcome] ?? outcome}.` };
    }
    if (cause instanceof TerminatedFailure) return { kind: 'lost', how: `terminated: ${cause.message}` };
    if (cause instanceof TimeoutFailure) return { kind: 'lost', how: 'timed out on the server' };
    return { kind: 'lost', how: `${status.toLowerCase()}: ${cause?.message ?? error.message}` };
  }
}

const CANCELLED: Partial<Record<Outcome, string>> = {
  aborted: 'production is unchanged',
  'rolled-back': 'production was rolled back by the planned downgrade',
};

const ended = (summary: ReportSummary): RunEnd => ({
  kind: 'ended',
  outcome: summary.outcome,
  verdict: summary.verdict,
  summary,
});

const isSummary = (value: unknown): value is ReportSummary =>
  typeof value === 'object' &&
  value !== null &&
  'outcome' in value &&
  (OUTCOMES as readonly unknown[]).includes(value.outcome);
