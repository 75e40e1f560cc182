/** Evidence of the dry run on staging. */
import type { DatabaseIdentity } from './production.ts';
import type { StepInput, StoredDocument } from './step.ts';
import type { GraphEvidence } from './tooling.ts';

export interface StagingInput extends StepInput {
  readonly graph: GraphEvidence;
  readonly production: DatabaseIdentity;
}

export interface StagingEvidence {
  readonly before: readonly string[];
  readonly after: readonly string[];
  readonly tests: string;
  readonly log: StoredDocument;
  readonly upgradeMilliseconds: number;
  /** Object maps and schema dumps around the upgrade, for the diff and for `validation.schema`. */
  readonly mapBefore: StoredDocument;
  readonly mapAfter: StoredDocument;
  readonly schemaBefore: StoredDocument;
  readonly schemaAfter: StoredDocument;
  /** Staging already stood at the target, so the dry run tried nothing: said in the plan. */
  readonly nothingToDo: boolean;
}

export interface FlowsEvidence {
  readonly bootMilliseconds: number;
  readonly flows: readonly { readonly name: string; readonly requests: number; readonly milliseconds: number }[];
}

export interface SchemaDiffInput extends StepInput {
  readonly staging: StagingEvidence;
}

/** `kind name` of each object, 200 of each kind of change at most: archived documents have them all. */
export interface SchemaChange {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  readonly changed: readonly string[];
}

export interface SchemaDiffEvidence extends SchemaChange {
  readonly diff: StoredDocument;
}
