/** What a trial is given, and what comes of it. The trial itself: `rehearse` in trial.ts. */
import type { DowngradeCommand } from '../alembic/downgrade-plan.ts';
import type { GraphEvidence } from '../contract/evidence/tooling.ts';
import type { AlembicProfile, RehearsalProfile } from '../contract/profile.ts';
import type {
  ArchivedFootprint,
  DeployedTrial,
  TrialFindings,
  UpgradeFootprint,
} from '../contract/evidence/rehearsal.ts';
import type { ConnectionOptions } from '../postgres/connection.ts';
import type { ConnectionTarget } from '../postgres/connection-url.ts';
import type { ObjectMap } from '../postgres/catalog/object-map.ts';
import type { DatabaseContents } from '../postgres/contents/contents.ts';
import type { OutputStream } from '../process/options.ts';
import type { Redactor } from '../process/redactor.ts';
import type { DefinitionStatement } from './footprint.ts';

/** The way back that is to be tried. `rowsAfter`: null where they cannot be known, as behind a wrapper that hides the graph. */
export type TrialDowngrade =
  | {
      readonly kind: 'planned';
      readonly commands: readonly (Pick<DowngradeCommand, 'argument'> & {
        readonly rowsAfter: DowngradeCommand['rowsAfter'] | null;
      })[];
    }
  | { readonly kind: 'impossible'; readonly why: string };

export interface TrialRequest {
  /** The release's Alembic, as its checkout has it. */
  readonly alembic: Pick<AlembicProfile, 'commands' | 'versionTable'> & {
    /** Absolute, or found on PATH. */
    readonly python: string;
    readonly directory: string;
    readonly config: string;
    /** Of the child, with the URL of `copy` in it. */
    readonly environment: Readonly<Record<string, string>>;
  };
  /** The scratch server's administrator in the database that is tried on. Nobody else is in it; it is spoiled afterwards. */
  readonly copy: ConnectionTarget;
  /** The same in the database that `copy` was made from. Read only, and by nobody while `tryUpgraded` runs. */
  readonly pristine: ConnectionTarget;
  readonly plan: Pick<GraphEvidence, 'startRevisions' | 'targetRevisions' | 'path'> & {
    readonly downgrade: TrialDowngrade;
  };
  /** Contents of `pristine` as its backup's ledger has them. Absent: read from it. */
  readonly recorded?: DatabaseContents;
  readonly smoke: RehearsalProfile['smoke'];
  /** Sessions that read rows side by side, 1 or more. */
  readonly jobs: number;
  readonly session: Pick<ConnectionOptions, 'runId' | 'step' | 'signal'>;
  readonly redactor: Redactor;
  /** After upgrade and smoke SQL, while nobody is connected to `copy`. What it throws ends the trial. */
  readonly tryUpgraded?: (upgraded: UpgradedCopy) => Promise<DeployedTrial>;
  /** Every line of every Alembic command; a command is announced by a line of its own. */
  readonly onLine?: (stream: OutputStream, line: string) => void;
  readonly progress?: (now: TrialProgress) => void;
}

export interface UpgradedCopy {
  /** That change definitions, in order; empty where our part could not be loaded. */
  readonly statements: readonly DefinitionStatement[];
}

export type TrialProgress = {
  readonly phase: string;
  readonly revision?: string;
  readonly statement?: string;
  readonly line?: string;
};

export type TrialResult =
  | {
      readonly kind: 'upgrade-failed';
      /** That was being applied, where it is known. */
      readonly revision: string | null;
      readonly why: string;
      /** Objects that are not as before although the upgrade failed. */
      readonly leaves: readonly string[];
    }
  | ({ readonly kind: 'rehearsed' } & Rehearsed);

/** As `RehearsalTrial`, before anything of it is archived. */
export interface Rehearsed extends TrialFindings {
  readonly upgrade: Omit<UpgradeFootprint, 'document'>;
  readonly footprint: ArchivedFootprint;
  /** Without Alembic's version table. */
  readonly mapBefore: ObjectMap;
  readonly mapAfter: ObjectMap;
}

/**
 * Upgrades the copy, looks at what that did, downgrades it by the plan, compares objects and data with the pristine
 * database, upgrades again, and judges.
 *
 * @throws StepError `CheckFailed` when smoke SQL says no; what `tryUpgraded` threw; the signal's reason
 */
export type Rehearse = (request: TrialRequest) => Promise<TrialResult>;
