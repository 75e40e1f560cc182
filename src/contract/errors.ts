/**
 * The closed set of `ApplicationFailure` types this project throws. Workflows decide by these, people search by them.
 */

/** How a run that did not succeed ends; the failure's details are the report's summary. */
export const ENDING_ERRORS = {
  aborted: 'MigrationAborted',
  'rolled-back': 'MigrationRolledBack',
  restored: 'MigrationRestored',
  'handed-over': 'MigrationHandedOver',
} as const;

/** Thrown by activities. */
export const STEP_ERRORS = {
  /** The input, the profile or the world is not as it must be; trying again changes nothing. Details: `{ findings: string[] }`. */
  refused: 'StepRefused',
  /** A check ran and said no. Details: evidence. Not retried. */
  checkFailed: 'CheckFailed',
  /** Something outside did not answer; worth another try. */
  unavailable: 'OutsideUnavailable',
  /** A child process failed. Details: `{ program, exitCode, tail }`. */
  processFailed: 'ProcessFailed',
  /** Stored bytes are not the bytes that were stored. Not retried. */
  backupDamaged: 'BackupDamaged',
  /** The database is in a state this run must not touch by itself. Details: the reality found. Not retried. */
  stateUnexpected: 'StateUnexpected',
} as const;

export type StepErrorType = (typeof STEP_ERRORS)[keyof typeof STEP_ERRORS];

/** Types that no retry can mend. */
export const NON_RETRYABLE: readonly string[] = [
  STEP_ERRORS.refused,
  STEP_ERRORS.checkFailed,
  STEP_ERRORS.backupDamaged,
  STEP_ERRORS.stateUnexpected,
];

/** A request that is refused before anything was looked at. */
export const REQUEST_REFUSED = 'MigrationRequestRefused';
