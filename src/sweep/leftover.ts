import type { DatabaseMark } from '../postgres/restore/database-mark.ts';

/** Whose it is, how old, and until when it was meant to stay. */
interface LeftoverFacts {
  readonly owner: LeftoverOwner;
  /** ISO 8601, UTC; null where nothing tells. */
  readonly since: string | null;
  readonly expiresAt: string;
  readonly bytes: number | null;
}

export interface LeftoverOwner {
  readonly service: string;
  /** First run id of the workflow. */
  readonly runId: string;
  readonly workflowId: string;
  readonly step: string;
}

/** Something a run made for a while, and that is still there. */
export type Leftover = LeftoverFacts &
  (
    | {
        readonly kind: 'database';
        readonly purpose: DatabaseMark['kind'];
        readonly server: DatabaseServer;
        readonly name: string;
        readonly oid: number;
      }
    /** A login that copies of production were tried with. Can be dropped once they are. */
    | { readonly kind: 'role'; readonly server: 'scratch'; readonly name: string; readonly oid: number }
    /** Parts of an object that was neither completed nor given up: they cost money and no listing shows them. */
    | { readonly kind: 'upload'; readonly uri: string; readonly key: string; readonly uploadId: string }
    /** A dump or a ledger without a manifest, which is written last. */
    | { readonly kind: 'object'; readonly uri: string; readonly key: string; readonly manifestKey: string }
  );

export type DatabaseServer = 'production' | 'scratch';

/** Of the run that owns a leftover. `forgotten`: the server does not know it, or no longer. */
export type RunState = 'running' | 'ended' | 'forgotten';

/** May it be removed, and if not, why not. */
export type Judgement = { readonly kind: 'removable' } | { readonly kind: 'kept'; readonly why: string };

export interface JudgementRules {
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** What to do about runs that Temporal does not know: they may be another server's, and running there. */
  readonly forgotten: 'keep' | 'remove';
}

/** Only what has expired and whose run is known to be over is nobody's any more. */
export function judge(leftover: Leftover, run: RunState, rules: JudgementRules): Judgement {
  const { owner, expiresAt } = leftover;
  if (run === 'running') return kept(`its run ${owner.workflowId} is still running`);
  const expiry = Date.parse(expiresAt);
  // A time nobody can read has not passed.
  if (!(expiry <= rules.now)) return kept(`it is meant to stay until ${expiresAt}`);
  if (run === 'forgotten' && rules.forgotten === 'keep') {
    return kept(
      `this Temporal server does not know its run ${owner.runId}: when that is over for certain, give --forgotten too`,
    );
  }
  return { kind: 'removable' };
}

const kept = (why: string): Judgement => ({ kind: 'kept', why });

/** Name for people, and what finds it again. */
export const leftoverName = (leftover: Leftover): string =>
  leftover.kind === 'database' || leftover.kind === 'role' ? leftover.name : leftover.uri;

/** What it is, for people. */
export function leftoverWhat(leftover: Leftover): string {
  switch (leftover.kind) {
    case 'database':
      return `${PURPOSES[leftover.purpose]} on the ${leftover.server === 'production' ? 'production' : 'scratch'} server`;
    case 'role':
      return 'login of a rehearsal on the scratch server';
    case 'upload':
      return 'interrupted upload';
    case 'object':
      return 'half-made backup';
  }
}

const PURPOSES: Readonly<Record<DatabaseMark['kind'], string>> = {
  restore: 'fresh database of a restore',
  'kept-aside': 'database kept aside',
  scratch: 'scratch database',
  drill: 'drill database',
};
