/** The keys `alembic`, `staging`, `application`, `rehearsal`, `guard`, `lint`: the migration and its trials. */
import type { CommandAction, HttpAction } from './actions.ts';
import type { Check, Flow } from './checks.ts';
import type { ConfiguredValue } from './values.ts';

export interface AlembicProfile {
  /** The service's own Python, with Alembic in it. Relative to the checkout. */
  readonly python: string;
  /** `alembic.ini`, relative to the checkout. */
  readonly config: string;
  /** Working directory of Alembic, relative to the checkout. */
  readonly directory: string;
  /** Environment variable that `env.py` takes the URL from, e.g. `DATABASE_URL`. */
  readonly urlVariable: string;
  /** SQLAlchemy scheme the service expects, e.g. `postgresql+psycopg`. */
  readonly urlScheme: string;
  /** What else `env.py` needs to load. */
  readonly environment: Readonly<Record<string, ConfiguredValue>>;
  readonly versionTable: { readonly schema: string; readonly table: string };
  /**
   * For services that wrap Alembic; `{{revision}}` is the planned revision. Absent = raw Alembic by our launcher. `heads` is
   * any command of the wrapper that loads its migrations: the graph is read from inside its Python, or, where our part cannot
   * be loaded there, from the revisions it prints.
   */
  readonly commands: {
    readonly upgrade?: readonly string[];
    readonly downgrade?: readonly string[];
    readonly heads?: readonly string[];
  };
}

export interface StagingProfile {
  /** Environment file, relative to the profile's folder or absolute. */
  readonly environmentFile: string;
  /** Run in the checkout after the upgrade, e.g. `[pytest, tests/test_migrations.py]`. */
  readonly tests: readonly string[];
  readonly testsTimeout: number;
}

export interface ApplicationProfile {
  /** Tells which release is deployed now: a tag or a commit. Absent: the deployed release is not tried on the upgraded copy. */
  readonly deployed?: {
    /** Its whole output, or the answer's value at `pointer`. */
    readonly source:
      | { readonly kind: 'command'; readonly action: CommandAction }
      | { readonly kind: 'http'; readonly action: HttpAction; readonly pointer: string };
    /** `false`: that it fails on the upgraded copy is a warning in the plan, not a refusal. */
    readonly required: boolean;
  };
  /** Starts the application from the checkout; `{{port}}` is a free port chosen by the worker. */
  readonly boot: {
    readonly command: readonly string[];
    readonly environment: Readonly<Record<string, ConfiguredValue>>;
    /** Path that answers once the application is ready. */
    readonly readyPath: string;
    readonly timeout: number;
  };
  readonly flows: readonly Flow[];
}

/** What the migration is given on the scratch server instead of production's surroundings. */
export interface RehearsalProfile {
  /**
   * In place of `alembic.environment`: whatever migrations touch outside the database (files, other stores) must be others
   * here. Absent: the literals of `alembic.environment`, which the plan says; its secrets are withheld. Addresses of PostgreSQL
   * servers other than the copy's never get through.
   */
  readonly environment?: Readonly<Record<string, ConfiguredValue>>;
  /** What the deployed release must do on the upgraded copy, whose rows are production's. Absent: `application.flows`. */
  readonly flows?: readonly Flow[];
  /** SQL on the upgraded copy. */
  readonly smoke: readonly Extract<Check, { readonly kind: 'sql' }>[];
  /** Milliseconds after which a rehearsal does not hold any more. */
  readonly maximumAge: number;
  /** Share by which production may have grown since: 0.2 = 20 %. */
  readonly maximumGrowth: number;
}

/** How the upgrade is kept from standing in the application's way. */
export interface GuardProfile {
  /** Milliseconds a statement waits for a lock; the application waits behind it for no longer. */
  readonly lockTimeout: number;
  /** The same for CONCURRENTLY and VALIDATE, which wait beside the application. */
  readonly concurrentLockTimeout: number;
  /** Milliseconds a statement may run; 0 = until the window's end. */
  readonly statementTimeout: number;
  /** How often Alembic is started when a lock cannot be had in time. */
  readonly tries: number;
  /** Milliseconds that old transactions and blockers are waited for, in all. */
  readonly patience: number;
  /** `never`, or milliseconds after which a blocker's session is ended. */
  readonly endBlockersAfter: 'never' | number;
}

/** The linter of the migration's SQL. */
export interface LintProfile {
  /** `squawk`, on the worker's PATH or by a path. */
  readonly program: string;
  /** Rules whose findings refuse the run. */
  readonly refuse: readonly string[];
  /** Rules that are not looked at. */
  readonly exclude: readonly string[];
}
