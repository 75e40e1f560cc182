import { STEP_ERRORS, StepError } from '../contract/errors.ts';

/** @param what names the place, and completes "cannot be trusted: ..." */
export const damaged = ({ uri }: { readonly uri: string }, what: string): StepError =>
  new StepError(STEP_ERRORS.backupDamaged, `The backup ${uri} cannot be trusted: ${what}. Take a new one.`, {
    uri,
    place: what,
  });

/** The bytes are right and the key is not: nothing is wrong with the backup. */
export const wrongIdentity = ({ uri }: { readonly uri: string }): StepError =>
  new StepError(
    STEP_ERRORS.refused,
    `The backup ${uri} is intact, but backup.identity is not the key of one of its recipients. Correct the secret reference backup.identity or backup.recipients.`,
    { uri },
  );
