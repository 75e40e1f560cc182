/**
 * What every activity takes and what it returns as evidence. All of it goes into the workflow's history: small, flat where
 * possible, and without secrets. Big text is in the object store and named by `uri`. Times are ISO 8601 in UTC, durations
 * milliseconds, sizes bytes, digests lower-case hexadecimal SHA-256.
 */
import type { Outcome, Profile } from '../profile.ts';

/** Who this run is. `runId` is the first run id of the workflow, so that a reset names the same things. */
export interface RunFacts {
  readonly runId: string;
  readonly workflowId: string;
  readonly service: string;
  readonly releaseTag: string;
  readonly changeTicket: string;
  readonly requestedBy: string;
  /** Known once `preconditions.change-review` has resolved the tag. */
  readonly commit?: string;
  readonly windowStart?: string;
  readonly windowEnd?: string;
  readonly outcome?: Outcome;
}

/** Every activity gets at least this. */
export interface StepInput {
  readonly run: RunFacts;
  readonly profile: Profile;
}

/** A document in the object store. */
export interface StoredDocument {
  readonly uri: string;
  readonly sha256: string;
  readonly bytes: number;
}
