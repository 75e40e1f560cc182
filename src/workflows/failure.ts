import { ApplicationFailure, isCancellation, TemporalFailure } from '@temporalio/workflow';
import { STEP_ERRORS } from '../contract/errors.ts';
import type { Trouble } from './run-state.ts';

/** Thrown inside `forward` by a gate that ends the way forward. */
export class StoppedAtGate extends Error {
  readonly trouble: Trouble;

  constructor(trouble: Trouble) {
    super(trouble.kind);
    this.name = 'StoppedAtGate';
    this.trouble = trouble;
  }
}

/** Fails the current step by the workflow's own judgement. */
export const stepRefused = (message: string, findings: readonly string[] = [message]): ApplicationFailure =>
  ApplicationFailure.nonRetryable(message, STEP_ERRORS.refused, { findings });

function innermost(error: unknown): unknown {
  let current: unknown = error;
  while (current instanceof TemporalFailure && current.cause !== undefined) current = current.cause;
  return current;
}

/** The activity has proven that nothing of production was changed: it gives `untouched` as details. */
export function isUntouched(error: unknown): boolean {
  const current = innermost(error);
  const [details] = current instanceof ApplicationFailure ? (current.details ?? []) : [];
  return (details as { untouched?: unknown } | undefined)?.untouched === true;
}

export function isRefusal(error: unknown): boolean {
  const current = innermost(error);
  return current instanceof ApplicationFailure && current.type === STEP_ERRORS.refused;
}

/** The innermost message that says something, and the findings an activity gave as details. */
export function failureText(error: unknown): { readonly message: string; readonly findings: readonly string[] } {
  const current = innermost(error);
  if (current instanceof ApplicationFailure) {
    const [details] = current.details ?? [];
    const findings = (details as { findings?: unknown } | undefined)?.findings;
    return { message: current.message, findings: Array.isArray(findings) ? findings.map(String) : [] };
  }
  if (isCancellation(error)) return { message: 'stopped', findings: [] };
  return { message: current instanceof Error ? current.message : String(current), findings: [] };
}
