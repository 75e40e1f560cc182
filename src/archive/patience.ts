import { setTimeout as delay } from 'node:timers/promises';
import { S3ServiceException } from '@aws-sdk/client-s3';

/** How long a store that does not answer is waited for. */
export interface Patience {
  /** Of each request, and of each part of a large object, from its first attempt on. */
  readonly milliseconds: number;
  /** Told since when the store has not answered, and `undefined` once it answers again. */
  readonly silent?: (since: Date | undefined) => void;
}

/** For requests that somebody waits for: a server that is restarting is not given up at the first refusal. */
export const DEFAULT_PATIENCE: Patience = { milliseconds: 3_000 };

/** For long transfers, in which a pause of the store must not cost what was done before. */
export const TRANSFER_PATIENCE = 90_000;

const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 5_000;
const SILENCE = 5_000;

/**
 * Tries again, with growing pauses, while the store cannot be reached or says that it is unable to answer now. Any other
 * answer, and the last failure, comes through as it is.
 */
export async function patiently<T>(
  patience: Patience,
  signal: AbortSignal,
  work: (attempt: number) => Promise<T>,
): Promise<T> {
  const began = new Date();
  const timer = setTimeout(() => patience.silent?.(began), SILENCE);
  let told: 'yes' | 'no' = 'no';
  try {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work(attempt);
      } catch (error) {
        signal.throwIfAborted();
        if (!isPassing(error) || Date.now() - began.getTime() >= patience.milliseconds) throw error;
        patience.silent?.(began);
        told = 'yes';
      }
      await delay(Math.min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE), undefined, { signal });
    }
  } finally {
    clearTimeout(timer);
    if (told === 'yes' || Date.now() - began.getTime() >= SILENCE) patience.silent?.(undefined);
  }
}

/** Answers that another try may turn into a success, and no answer at all. */
export function isPassing(error: unknown): boolean {
  if (error instanceof S3ServiceException) {
    const status = error.$metadata.httpStatusCode;
    return status === undefined || status >= 500 || isPassingStatus(status);
  }
  if (!(error instanceof Error)) return false;
  return error.name === 'TimeoutError' || typeof (error as NodeJS.ErrnoException).code === 'string';
}

/** Request time-out, conflict, too early, too many requests. */
export const isPassingStatus = (status: number): boolean => [408, 409, 425, 429].includes(status);
