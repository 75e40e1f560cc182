import type { ActivityOptions } from '@temporalio/workflow';
import { STEP_ERRORS } from '../contract/errors.ts';

/**
 * Time limits and retries by class of step. Every class waits for the end of a cancelled activity: an undo must never
 * start beside the thing it undoes (the SDK's default is not to wait).
 */
const waited = { cancellationType: 'WAIT_CANCELLATION_COMPLETED' } as const;

/** Looks at something; safe to repeat at once. */
export const LOOK: ActivityOptions = {
  ...waited,
  startToCloseTimeout: '2 minutes',
  heartbeatTimeout: '10 seconds',
  retry: { maximumAttempts: 4, initialInterval: '1 second', backoffCoefficient: 2, maximumInterval: '10 seconds' },
};

/** Moves data and repeats from the start: backup, verification. */
export const TRANSFER: ActivityOptions = {
  ...waited,
  startToCloseTimeout: '12 hours',
  heartbeatTimeout: '10 seconds',
  retry: { maximumAttempts: 5, initialInterval: '2 seconds', backoffCoefficient: 2, maximumInterval: '1 minute' },
};

/** Tries the release out: a failing program is an answer, not an accident. */
export const TRIAL: ActivityOptions = {
  ...waited,
  startToCloseTimeout: '4 hours',
  heartbeatTimeout: '10 seconds',
  retry: {
    maximumAttempts: 3,
    initialInterval: '1 second',
    nonRetryableErrorTypes: [STEP_ERRORS.processFailed],
  },
};

/** Tries the upgrade and its undo out on scratch databases, as long as they take; every attempt begins with a fresh copy. */
export const REHEARSAL: ActivityOptions = { ...TRIAL, startToCloseTimeout: '24 hours' };

/**
 * Changes production. Repeated only after the loss of a worker or a connection, and then every attempt reads the database
 * first; an Alembic that failed is never started again without a decision. The deadline is the window's end, kept by the
 * workflow, so the limit here is only a backstop.
 */
export const CHANGE: ActivityOptions = {
  ...waited,
  startToCloseTimeout: '24 hours',
  heartbeatTimeout: '5 seconds',
  retry: {
    maximumAttempts: 20,
    initialInterval: '500 milliseconds',
    backoffCoefficient: 2,
    maximumInterval: '15 seconds',
    nonRetryableErrorTypes: [STEP_ERRORS.processFailed],
  },
};

/** Exports what is also kept elsewhere, while production waits: bounded. */
export const EXPORT: ActivityOptions = {
  ...waited,
  startToCloseTimeout: '30 minutes',
  scheduleToCloseTimeout: '45 minutes',
  heartbeatTimeout: '10 seconds',
  retry: { maximumAttempts: 3, initialInterval: '2 seconds' },
};

/** Tells people or systems something. */
export const TELL: ActivityOptions = {
  ...waited,
  startToCloseTimeout: '2 minutes',
  heartbeatTimeout: '10 seconds',
  retry: { maximumAttempts: 6, initialInterval: '1 second', backoffCoefficient: 2, maximumInterval: '20 seconds' },
};

/** Puts something back: generous, for what is left open has to be closed by a person at night. */
export const PUT_BACK: ActivityOptions = {
  ...waited,
  startToCloseTimeout: '5 minutes',
  heartbeatTimeout: '10 seconds',
  retry: { maximumAttempts: 8, initialInterval: '1 second', backoffCoefficient: 2, maximumInterval: '30 seconds' },
};
