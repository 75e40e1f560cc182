import { expect } from 'vitest';
import { StepError } from '../src/contract/errors.ts';

/** The failure of work that must fail, and by a `StepError`. */
export const failureOf = async (work: Promise<unknown>): Promise<StepError> => {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(StepError);
  return error as StepError;
};
