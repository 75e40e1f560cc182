/** Evidence of the tools and of the migration graph. */
import type { AlembicGraph } from '../graph.ts';
import type { StepInput } from './step.ts';

export interface ToolingEvidence {
  readonly programs: Readonly<Record<string, string>>;
  readonly alembic: string;
  readonly sqlalchemy: string;
  readonly python: string;
  readonly secretsResolved: number;
}

export interface GraphInput extends StepInput {
  readonly targetRevision: string;
}

export interface GraphEvidence {
  /** Version rows of production, sorted. Empty: a database that is empty and unversioned. */
  readonly startRevisions: readonly string[];
  /** What was asked for, resolved, for people: `a1b2`, or `a1b2, c3d4` where there are several heads. */
  readonly targetRevision: string;
  /** Revisions that `alembic upgrade` is called with, one after the other: one a branch. */
  readonly targetRevisions: readonly string[];
  readonly path: AlembicGraph['revisions'];
  /** Alembic downgrade arguments, in order, that lead back to the start revisions; or why there are none. */
  readonly downgrade:
    | { readonly kind: 'planned'; readonly commands: readonly string[] }
    | { readonly kind: 'impossible'; readonly why: string };
  readonly risks: readonly string[];
  /** What cannot be known because the service's wrapper hides it, in words. */
  readonly unknown: readonly string[];
}
