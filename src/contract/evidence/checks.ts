/** Evidence of the checks after the upgrade. */
import type { Check } from '../profile.ts';
import type { StepInput } from './step.ts';

export interface ChecksInput extends StepInput {
  readonly checks: readonly Check[];
}

export interface ChecksEvidence {
  readonly checks: readonly { readonly name: string; readonly milliseconds: number; readonly answer: string }[];
}
