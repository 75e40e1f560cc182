/** Evidence of the upgrade, and what it tells while it runs. */
import type { ProductionState } from './production.ts';
import type { StepInput, StoredDocument } from './step.ts';
import type { GraphEvidence } from './tooling.ts';

export interface UpgradeInput extends StepInput {
  /** The run id the approved plan was made for. */
  readonly planRunId: string;
  readonly graph: GraphEvidence;
  readonly before: ProductionState;
  /** What the rehearsal was seen to lock (`ArchivedFootprint`). */
  readonly footprint: StoredDocument;
}

export interface UpgradeEvidence {
  readonly revisions: readonly string[];
  readonly milliseconds: number;
  /** `already-applied`: an earlier attempt had finished before its reply was lost. */
  readonly how: 'upgraded' | 'resumed' | 'already-applied';
  /** By this attempt, and by earlier ones where they were not there again when it began. */
  readonly droppedInvalidIndexes: readonly string[];
  readonly endedSessions: number;
  /** How often Alembic was started: more than once where a lock could not be had in time. */
  readonly tries: number;
  /** Who stood in the way, by try. */
  readonly blockers: readonly string[];
  readonly log?: StoredDocument;
}

/** A session that the migration waits for, as shown in heartbeats and `runbook status`. */
export interface Blocker {
  readonly pid: number;
  readonly role: string;
  readonly application: string;
  readonly state: string;
  /** Milliseconds since its transaction began. */
  readonly transactionAge: number;
  /** Milliseconds since its query began, or ended when it is idle. */
  readonly queryAge: number;
  /** What the migration waits for: `AccessExclusiveLock on public.jobs`. */
  readonly waitedFor: string;
}

/** What `apply.upgrade` tells in its heartbeat. */
export interface UpgradeProgress {
  readonly phase: string;
  readonly target: string;
  /** The revision that runs, where the service's command lets us see it. */
  readonly revision: string;
  /** Alembic's last line. */
  readonly line: string;
  /** Version rows as they are committed. */
  readonly versionRows?: readonly string[];
  /** The statement that runs, literals struck out, and since when (ISO). */
  readonly statement?: string;
  readonly statementSince?: string;
  /** Who stands in the way now, 10 at most. */
  readonly blockers?: readonly Blocker[];
  /** The index that is being built: `public.jobs 45 %, building index`. */
  readonly index?: string;
  readonly try?: number;
  /** Why locks cannot be watched at the moment. */
  readonly blind?: string;
}
