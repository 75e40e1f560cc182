/** The measures that are watched, before and after. */
import type { Measure } from '../profile.ts';
import type { StepInput } from './step.ts';

export interface MeasuresEvidence {
  readonly takenAt: string;
  readonly values: readonly { readonly name: string; readonly value: number; readonly samples: readonly number[] }[];
}

export interface CompareMeasuresInput extends StepInput {
  readonly measures: readonly Measure[];
  readonly baseline: MeasuresEvidence;
}

export interface MeasuresComparison {
  readonly values: readonly {
    readonly name: string;
    readonly before: number;
    readonly after: number;
    readonly limit: number;
    readonly verdict: 'within' | 'exceeded';
  }[];
}
