/** Evidence of `validation.schema`. */
import type { ProductionState } from './production.ts';
import type { RehearsalTrial } from './rehearsal.ts';
import type { StepInput } from './step.ts';
import type { GraphEvidence } from './tooling.ts';

export interface ValidateSchemaInput extends StepInput {
  readonly before: ProductionState;
  /** Object maps of the rehearsal: production must have changed as the copy did. */
  readonly rehearsed: Pick<RehearsalTrial, 'mapBefore' | 'mapAfter' | 'imitated'>;
  readonly graph: Pick<GraphEvidence, 'startRevisions' | 'targetRevisions' | 'path'>;
}

export interface SchemaValidation {
  readonly expected: readonly string[];
  /** Objects whose change in production equals their change in the rehearsal, owners and grants among them. */
  readonly changes: number;
  readonly versionRows: readonly string[];
  /** What changed and was not, or could not be, compared with the rehearsal, and why, in words. */
  readonly notCompared: readonly string[];
}
