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

/** How a drill that did not pass ends. */
export const DRILL_ERRORS = {
  /** The backup did not come back, or not as it was, or something was left behind. Details: the `DrillRecord`. */
  failed: 'DrillFailed',
  /** There was nothing to begin with: request, profile, backup. Nothing was touched. Details: `{ findings: string[] }`. */
  refused: 'DrillRefused',
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

/**
 * What domain code throws when it can tell what kind of trouble it is. The activity boundary turns it into an
 * `ApplicationFailure` of the same type. Messages are for people: what was found, then what to do. Never put a secret,
 * a URL with a password or another error as `cause` in it.
 */
export class StepError extends Error {
  readonly type: StepErrorType;
  readonly details: { readonly [key: string]: unknown };

  constructor(type: StepErrorType, message: string, details: { readonly [key: string]: unknown } = {}) {
    super(message);
    this.name = 'StepError';
    this.type = type;
    this.details = details;
  }
}

/** One refusal that names everything that was found. */
export const refusal = (findings: readonly string[]): StepError =>
  new StepError(
    STEP_ERRORS.refused,
    findings.length === 1
      ? findings[0]!
      : `${findings.length} findings: ${findings.map((text, index) => `(${index + 1}) ${text}`).join(' ')}`,
    { findings },
  );
