/** What is asked of an approval beyond its text. */
import type { StepInput } from './step.ts';

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
