import { Context } from '@temporalio/activity';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { NON_RETRYABLE, STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { JsonValue } from '../contract/profile.ts';
import type { SecretVault } from '../profile/secret-vault.ts';

/** What a running step tells about itself: small, flat, without secrets. Shown by `runbook status` and the UI. */
export type Progress = { readonly [key: string]: JsonValue };

export interface StepTools {
  /** Aborted when the step is cancelled, timed out, or the worker shuts down. */
  readonly signal: AbortSignal;
  /** Replaces the heartbeat's details; sent by the timer, so it may be called as often as one likes. */
  readonly progress: (details: Progress) => void;
  /** 1 for the first attempt. From 2 on a step first looks at what the attempt before left. */
  readonly attempt: number;
}

/** The server refuses pending failures over 4 KB and shows the first lines only: the essential text comes first. */
const MESSAGE_LIMIT = 1800;
const DETAILS_LIMIT = 16_000;

/**
 * The boundary between Temporal and the domain code: heartbeats from a timer, hands on the cancellation signal, and turns
 * whatever is thrown into an `ApplicationFailure` without secrets, causes or command lines.
 */
export async function runStep<T>(secrets: SecretVault, work: (tools: StepTools) => Promise<T>): Promise<T> {
  const context = Context.current();
  const signal = context.cancellationSignal;
  let details: Progress = {};
  const beat = (): void => context.heartbeat(details);
  const timer = setInterval(beat, heartbeatInterval(context.info.heartbeatTimeoutMs));
  try {
    const working = work({
      signal,
      attempt: context.info.attempt,
      progress: (next) => {
        details = redacted(next, secrets) as Progress;
      },
    });
    // After the step's first words: what an attempt before told it is not lost should this one be lost too.
    beat();
    return await working;
  } catch (error) {
    // Whatever a stopped child or connection threw: the step was cancelled, and only this type says so to the server.
    // A failure of that type with details of its own is what a proven stop throws.
    if (signal.aborted) throw asCancelled(error) ?? asCancelled(signal.reason) ?? new CancelledFailure('CANCELLED');
    throw asApplicationFailure(error, secrets);
  } finally {
    clearInterval(timer);
  }
}

const asCancelled = (error: unknown): CancelledFailure | undefined =>
  error instanceof CancelledFailure ? error : undefined;

/**
 * A cancellation is heard with a beat that reaches the server. Beats are cheap (the worker sends one each 500 ms at most), so
 * what changes production, with its short heartbeat time-out, beats often and hears of an abort within that time.
 */
const heartbeatInterval = (timeoutMs: number | undefined): number => Math.min(1000, (timeoutMs ?? 4000) / 20);

export function asApplicationFailure(error: unknown, secrets: SecretVault): ApplicationFailure {
  const text = (value: string): string => secrets.redactor.redact(value);
  if (error instanceof ApplicationFailure) return error;
  if (error instanceof StepError) {
    return ApplicationFailure.create({
      type: error.type,
      message: shortened(text(error.message)),
      nonRetryable: NON_RETRYABLE.includes(error.type),
      details: [boundedDetails(redacted(error.details, secrets))],
    });
  }
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return ApplicationFailure.create({
    type: STEP_ERRORS.unavailable,
    message: shortened(text(message)),
  });
}

const shortened = (message: string): string =>
  message.length <= MESSAGE_LIMIT
    ? message
    : `${message.slice(0, MESSAGE_LIMIT)} [${message.length} characters in all]`;

const boundedDetails = (details: unknown): unknown =>
  JSON.stringify(details).length <= DETAILS_LIMIT
    ? details
    : { shortened: JSON.stringify(details).slice(0, DETAILS_LIMIT) };

function redacted(value: unknown, secrets: SecretVault): unknown {
  if (typeof value === 'string') return secrets.redactor.redact(value);
  if (Array.isArray(value)) return value.map((entry) => redacted(entry, secrets));
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, redacted(entry, secrets)]));
  }
  return value;
}
