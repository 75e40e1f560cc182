import { S3ServiceException } from '@aws-sdk/client-s3';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { isPassingStatus } from './patience.ts';

/** Codes and status an object store answers with when something does not exist. */
export function isMissing(error: unknown): boolean {
  return (
    error instanceof S3ServiceException &&
    (error.$metadata.httpStatusCode === 404 || /^(NoSuch|NotFound)/.test(error.name))
  );
}

export const isDenied = (error: unknown): boolean =>
  error instanceof S3ServiceException &&
  (error.$metadata.httpStatusCode === 401 || error.$metadata.httpStatusCode === 403);

/** Some servers answer so to a listing of multipart uploads where there are none. */
export const isNoUpload = (error: unknown): boolean =>
  error instanceof S3ServiceException && error.name === 'NoSuchUpload';

/**
 * What went wrong at the object store, in words. Only the code of an answer is quoted: its text may repeat the access key.
 * `doing` completes "could not ...".
 */
export function storeError(error: unknown, doing: string, where: string): StepError {
  if (error instanceof StepError) return error;
  if (!(error instanceof S3ServiceException)) {
    return new StepError(
      STEP_ERRORS.unavailable,
      `The object store ${where} did not answer: could not ${doing} (${networkReason(error)}).`,
    );
  }
  const status = error.$metadata.httpStatusCode;
  const answer = `${error.name}${status === undefined ? '' : `, HTTP ${status}`}`;
  if (error.name === 'NoSuchBucket') {
    return new StepError(
      STEP_ERRORS.refused,
      `The bucket does not exist at ${where}: could not ${doing} (${answer}). Create it or correct backup.bucket.`,
    );
  }
  if (isDenied(error)) {
    return new StepError(
      STEP_ERRORS.refused,
      `The object store ${where} denies access: could not ${doing} (${answer}). Check backup.accessKeyId, backup.secretAccessKey and their rights.`,
    );
  }
  const type =
    status !== undefined && status >= 400 && status < 500 && !isPassingStatus(status)
      ? STEP_ERRORS.refused
      : STEP_ERRORS.unavailable;
  return new StepError(type, `The object store ${where} refused: could not ${doing} (${answer}).`);
}

function networkReason(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown error';
  const code = (error as NodeJS.ErrnoException).code;
  return code ?? (error.name === 'Error' ? 'connection failed' : error.name);
}
