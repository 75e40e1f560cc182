/** Evidence of the preconditions: what was asked for, was reviewed, and can be reached. */
import type { Profile } from '../profile.ts';
import type { MigrationRequest } from '../request.ts';
import type { DatabaseIdentity } from './production.ts';

export interface AcceptRequestInput {
  readonly request: MigrationRequest;
  readonly workflowId: string;
  readonly runId: string;
  /** What the workflow found wrong by itself, so that one message names everything. */
  readonly findings: readonly string[];
}

export interface AcceptedRequest {
  readonly profile: Profile;
  readonly profileDigest: string;
  /** The last run of this service before this one. */
  readonly previousRun?: { readonly runId: string; readonly status: string };
}

export interface ChangeReview {
  readonly commit: string;
  readonly tag: string;
  readonly source: string;
  readonly reviewers: readonly string[];
  readonly checks: string;
}

export interface AccessEvidence {
  readonly production: DatabaseIdentity;
  readonly staging: DatabaseIdentity;
  /** The scratch server's maintenance database. */
  readonly scratch: DatabaseIdentity;
  readonly migratorRole: string;
  readonly rights: readonly string[];
  readonly tls: string;
  /** Room for a second copy: what was measured, or the profile's waiver. */
  readonly capacity: string;
  readonly bucket: string;
}

/** The run whose child workflow a lease is. */
export interface LeaseHolder {
  readonly workflowId: string;
  readonly runId: string;
  readonly since: string;
}

export interface MonitoringReadiness {
  readonly measures: readonly { readonly name: string; readonly value: number }[];
}
