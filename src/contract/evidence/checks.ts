/** Evidence of the checks after the upgrade. */
import type { Check } from '../profile.ts';
import type { ProductionState } from './production.ts';
import type { StepInput, StoredDocument } from './step.ts';

export interface ChecksInput extends StepInput {
  readonly checks: readonly Check[];
}

export interface ChecksEvidence {
  readonly checks: readonly { readonly name: string; readonly milliseconds: number; readonly answer: string }[];
}

export interface ValidateSchemaInput extends StepInput {
  readonly before: ProductionState;
  /** Object maps of the rehearsal: production must have changed as the copy did. */
  readonly rehearsed: { readonly mapBefore: StoredDocument; readonly mapAfter: StoredDocument };
  readonly targetRevisions: readonly string[];
}

export interface SchemaValidation {
  readonly expected: readonly string[];
  /** Objects whose change in production equals their change in the rehearsal. */
  readonly changes: number;
  readonly versionRows: readonly string[];
}
