/**
 * The canonical profile of one service: what the YAML file under `config/services/` becomes once it is read, checked and
 * completed with defaults. It holds no secret, only references, so it may travel through workflow histories.
 *
 * Units: every duration is in milliseconds (the YAML writes `30s`, `10m`, `2h`), every size in bytes (`16MB`).
 */

/** Where a secret is found. Resolved only inside the activity that needs the value. */
export type SecretReference =
  | { readonly kind: 'command'; readonly command: readonly string[] }
  | { readonly kind: 'environment'; readonly name: string }
  | { readonly kind: 'file'; readonly path: string };

/** A literal, or a reference to a secret. */
export type ConfiguredValue = string | { readonly secret: SecretReference };

/** Runs a program. No shell; `{{placeholders}}` (see `TEMPLATE_VARIABLES`) are replaced in arguments and environment values. */
export interface CommandAction {
  readonly kind: 'command';
  readonly command: readonly string[];
  /** `checkout`: in the release's working tree. Default: the profile's own folder. */
  readonly directory: 'profile' | 'checkout';
  readonly environment: Readonly<Record<string, ConfiguredValue>>;
  /** Milliseconds. What the program gets on standard input is given by the caller. */
  readonly timeout: number;
}

/** Sends one HTTP request. */
export interface HttpAction {
  readonly kind: 'http';
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** A reference where the address itself is a secret, as with chat webhooks. */
  readonly url: ConfiguredValue;
  readonly headers: Readonly<Record<string, ConfiguredValue>>;
  /** JSON document with placeholders; absent = the caller's JSON facts for announcements and tickets, no body for checks. */
  readonly body?: JsonValue;
  readonly expect: HttpExpectation;
  readonly timeout: number;
}

/** Appends one JSON line (or one Markdown section, by the file's ending) to a file. For trials and for teams without the other two. */
export interface FileAction {
  readonly kind: 'file';
  readonly path: string;
}

/** What an HTTP answer must be. `json` maps JSON Pointers (RFC 6901) to the values they must have. */
export interface HttpExpectation {
  readonly status: readonly number[];
  readonly json: Readonly<Record<string, JsonValue>>;
  /** Text that must occur in the body. */
  readonly contains: readonly string[];
}

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };

export type Action = CommandAction | HttpAction | FileAction;

/** A database reached by libpq URLs (`postgresql://user:password@host:port/name?sslmode=...`) given by reference. */
export interface ProductionDatabase {
  /** Creates, renames and compares databases, ends sessions. */
  readonly administrator: SecretReference;
  /** Used by nothing but migrations: whatever its sessions do is the migration. */
  readonly migrator: SecretReference;
  /** Reads everything, writes nothing. */
  readonly backup: SecretReference;
  /** Login roles of the application; the migrator must not be one of them. */
  readonly applicationRoles: readonly string[];
  /** The database in which locks are held and from which renames are done. Default `postgres`. */
  readonly maintenanceDatabase: string;
  /** The service's own login: with it the fence is tried. Needed where the fence is `read-only`. */
  readonly application?: SecretReference;
  /** The standbys that must be streaming; empty = the profile says there are none. */
  readonly standbys: readonly Standby[];
  readonly maximumLagBytes: number;
  readonly maximumLag: number;
  /** `require`: sessions must be encrypted. `allow` is meant for loopback and trials. */
  readonly tls: 'require' | 'allow';
  /** While a transaction older than this is open the upgrade waits, `guard.patience` at most, before it starts. */
  readonly maximumTransactionAge: number;
}

/** A physical standby. Its sessions survive a swap and would go on reading the old database, so they are ended there too. */
export interface Standby {
  /** `application_name` of its replication session on the primary. */
  readonly name: string;
  /** Leads to the standby itself; of a role that sees and ends sessions there. */
  readonly administrator?: SecretReference;
  /** `none`: the profile says that nobody reads there (a standby for disasters only). */
  readonly sessions: 'end' | 'none';
}

export interface StagingDatabase {
  readonly administrator: SecretReference;
  readonly migrator: SecretReference;
}

export interface ScratchServer {
  readonly administrator: SecretReference;
}

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

export interface BackupProfile {
  readonly bucket: string;
  readonly prefix: string;
  readonly region: string;
  /** Absent = AWS's own endpoint. */
  readonly endpoint?: string;
  readonly forcePathStyle: boolean;
  readonly accessKeyId: SecretReference;
  readonly secretAccessKey: SecretReference;
  /** age X25519 recipients (`age1...`). */
  readonly recipients: readonly string[];
  /** age identity (`AGE-SECRET-KEY-1...`): needed to verify and to restore. */
  readonly identity: SecretReference;
  /** A backup older than this when the upgrade is about to start is taken anew. Milliseconds. */
  readonly maximumAge: number;
  /** Asked for in addition; what is trusted is the project's own encryption. */
  readonly serverSideEncryption?: 'AES256' | 'aws:kms';
  /** With `aws:kms`: the key; absent = the bucket's default key. */
  readonly kmsKeyId?: string;
  /** The store refuses to delete or overwrite a backup's objects for this long (milliseconds). The bucket must have object lock enabled. */
  readonly objectLock?: { readonly mode: 'GOVERNANCE' | 'COMPLIANCE'; readonly retention: number };
  /** Tags of a backup's objects, e.g. for the bucket's lifecycle rules. */
  readonly tags: Readonly<Record<string, string>>;
  /** Storage class of the dump, e.g. `STANDARD_IA`; absent = the store's default. */
  readonly storageClass?: string;
  /** Bytes: of tables larger than this a sample of the rows is checksummed, and marked so. All rows are counted either way. */
  readonly sampleAbove: number;
}

/** How a backup is restored and swapped in. */
export interface RestoreProfile {
  /** Parallel sessions that build indexes and constraints, and that compare. */
  readonly jobs: number;
  /** Where SQL cannot tell how much room there is: a command that tells it, or a waiver that stands in the plan. */
  readonly capacity: /** Prints the free bytes of each server's data volume as JSON: `{"primary": 1, "<standby>": 1}`, or one number for all. */
  { readonly kind: 'command'; readonly action: CommandAction } | { readonly kind: 'waiver'; readonly reason: string };
  /** Milliseconds the replaced database is kept aside before `runbook sweep` offers to drop it. */
  readonly quarantine: number;
}

/** How production is kept from being written while it is migrated, so that a way back loses nothing. */
export type Fence =
  /** What is written after the backup can be lost: said in the plan. */
  | { readonly kind: 'none' }
  /** `default_transaction_read_only` for everybody but the migrator, sessions ended, tried as the service's role. */
  | { readonly kind: 'read-only' }
  /** The service's own maintenance mode. `check` must pass while it is on: it shows that the service refuses to write. */
  | {
      readonly kind: 'maintenance';
      readonly mechanism: Extract<Switch['mechanism'], { readonly kind: 'actions' }>;
      readonly check: Check;
    };

/** Faster ways back than the dump, prepared after the fence. */
export interface RecoveryPoint {
  /** `pg_create_restore_point`: for whoever recovers to a point in time. Needs the right to execute it. */
  readonly restorePoint: boolean;
  /** The provider's snapshot, pgBackRest ...: its last line of output is the id that is recorded. */
  readonly snapshot?: CommandAction;
}

export interface StagingProfile {
  /** Environment file, relative to the profile's folder or absolute. */
  readonly environmentFile: string;
  /** Run in the checkout after the upgrade, e.g. `[pytest, tests/test_migrations.py]`. */
  readonly tests: readonly string[];
  readonly testsTimeout: number;
}

/** One HTTP request of a flow; `save` keeps values of the JSON answer (by JSON Pointer) as `{{name}}` for later requests. */
export interface FlowRequest {
  readonly name: string;
  readonly method: HttpAction['method'];
  /** Path on the application's base URL. */
  readonly path: string;
  readonly headers: Readonly<Record<string, ConfiguredValue>>;
  readonly json?: JsonValue;
  /** multipart/form-data upload; `content` is sent as the file's bytes. */
  readonly upload?: {
    readonly field: string;
    readonly fileName: string;
    readonly contentType: string;
    readonly content: string;
  };
  /** Values sent in `json` that must not appear anywhere: pointer -> secret. */
  readonly secrets: Readonly<Record<string, SecretReference>>;
  readonly expect: HttpExpectation;
  readonly save: Readonly<Record<string, string>>;
  readonly timeout: number;
  /** GET only: an answer that is not as expected is asked for again this long, for results that take their time. 0 = once. */
  readonly retryFor: number;
}

export interface Flow {
  readonly name: string;
  readonly requests: readonly FlowRequest[];
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

/** Who may sign approvals, and with which key. */
export interface Signer {
  readonly name: string;
  /** OpenSSH public key: `ssh-ed25519 AAAA...`. */
  readonly key: string;
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

/** One check of the running production service. */
export type Check = { readonly name: string } & (
  | { readonly kind: 'command'; readonly action: CommandAction }
  | { readonly kind: 'http'; readonly action: HttpAction }
  /** One SQL query on production as the backup role, in a read-only transaction; the first value of the first row must equal `expect`. */
  | { readonly kind: 'sql'; readonly query: string; readonly expect: JsonValue; readonly timeout: number }
  /** A flow against the running service. */
  | { readonly kind: 'flow'; readonly baseUrl: string; readonly flow: Flow }
);

/** A number read before and after, compared by `limit`. */
export interface Measure {
  readonly name: string;
  readonly source:
    | { readonly kind: 'sql'; readonly query: string }
    /** Milliseconds of an HTTP request, or the number at `pointer` of its JSON answer. */
    | {
        readonly kind: 'http';
        readonly url: string;
        readonly pointer?: string;
        readonly headers: Readonly<Record<string, ConfiguredValue>>;
      }
    /** Instant query; `url` is Prometheus' base address, without `/api/v1/query`. */
    | {
        readonly kind: 'prometheus';
        readonly url: string;
        readonly query: string;
        readonly headers: Readonly<Record<string, ConfiguredValue>>;
      }
    /** Deadlocks counted by `pg_stat_database` for the production database. */
    | { readonly kind: 'deadlocks' };
  /** The value after may not exceed baseline * ratio + absolute. */
  readonly limit: { readonly ratio: number; readonly absolute: number };
  /** How often it is sampled on each side; the median counts. */
  readonly samples: number;
}

/**
 * Something the run switches and must put back. Every switch can tell its state; what was already in the wanted state
 * before the run is left so.
 */
export interface Switch {
  readonly name: string;
  /** `pooler`: paused right before databases are swapped and resumed right after, not for the whole run. */
  readonly kind: 'freeze' | 'jobs' | 'silence' | 'notice' | 'pooler';
  readonly mechanism:
    | {
        readonly kind: 'actions';
        /**
         * Tells the state: `engaged` or `released` as the whole trimmed output, or that word or a boolean (true =
         * engaged) at `statePointer` of a JSON answer. Absent = the state cannot be told: the success of the action counts.
         */
        readonly state?: Action;
        readonly statePointer?: string;
        readonly engage: Action;
        readonly release: Action;
      }
    /** Celery's own remote control: queues are no longer consumed by the named workers (all that answer, when empty). */
    | {
        readonly kind: 'celery';
        /** Python with the service's Celery; relative to the checkout. */
        readonly python: string;
        /** `-A` of Celery, e.g. `api.worker`. */
        readonly app: string;
        readonly queues: readonly string[];
        readonly environment: Readonly<Record<string, ConfiguredValue>>;
        readonly timeout: number;
      };
  /** Outcomes after which it stays engaged on purpose (e.g. keep deployments frozen after `handed-over`). */
  readonly keepAfter: readonly Outcome[];
}

export interface SchemaExpectation {
  /** Dotted `schema.table`, `schema.table.column`, `schema.index` ... as in the object map's names, with its kind. */
  readonly kind: 'table' | 'column' | 'index' | 'constraint' | 'type';
  readonly name: string;
  /** Only expected for releases whose tag matches this pattern (glob); absent = always. */
  readonly releases?: string;
}

/** A step of the profile's own. It runs after the built-in steps of its section, recorded as `<section>.<id>`. */
export interface OwnStep {
  /** Without the section and without dots. */
  readonly id: string;
  readonly section: Section;
  readonly action: CommandAction | HttpAction;
  readonly timeout: number;
}

export type Section =
  | 'preconditions'
  | 'tooling'
  | 'backup'
  | 'dry-run'
  | 'apply'
  | 'validation'
  | 'recovery'
  | 'closeout';

export const OUTCOMES = ['succeeded', 'aborted', 'rolled-back', 'restored', 'handed-over'] as const;
export type Outcome = (typeof OUTCOMES)[number];

export interface ReviewProfile {
  readonly source: /** Prints `{"commit","reviewed","reviewers":[..],"checks":"success|failure|pending"}`. */
    | { readonly kind: 'command'; readonly action: CommandAction }
    | { readonly kind: 'github'; readonly apiUrl: string; readonly repository: string; readonly token: SecretReference }
    | { readonly kind: 'gitlab'; readonly apiUrl: string; readonly project: string; readonly token: SecretReference };
  readonly minimumReviewers: number;
}

export interface ApprovalProfile {
  readonly required: number;
  /** Who may approve; empty = anyone but the requester. */
  readonly approvers: readonly string[];
  /** The gate `production` aborts after this. */
  readonly timeout: number;
  readonly remindEvery: number;
  /** How approvers and operators are told. */
  readonly notify: readonly Action[];
  readonly signers: readonly Signer[];
  /** `required`: an approval without a valid signature is refused. */
  readonly signatures: 'optional' | 'required';
}

export interface Profile {
  readonly service: string;
  readonly description: string;
  /** Folder the profile was loaded from: relative paths and commands start here. */
  readonly home: string;
  readonly repository: {
    readonly url: string;
    /** Run once per commit in the fresh checkout, e.g. `[uv, sync, --frozen]`. */
    readonly prepare?: readonly string[];
    readonly prepareTimeout: number;
  };
  readonly review: ReviewProfile;
  readonly databases: {
    readonly production: ProductionDatabase;
    readonly staging: StagingDatabase;
    readonly scratch: ScratchServer;
  };
  /** Folder with `psql`, `pg_dump`, `pg_restore` of the server's major version; absent = found on PATH. */
  readonly postgresPrograms?: string;
  readonly alembic: AlembicProfile;
  readonly backup: BackupProfile;
  readonly restore: RestoreProfile;
  readonly fence: Fence;
  readonly recoveryPoint: RecoveryPoint;
  readonly staging: StagingProfile;
  readonly rehearsal: RehearsalProfile;
  readonly guard: GuardProfile;
  readonly lint: LintProfile;
  readonly application: ApplicationProfile;
  readonly announce: readonly Action[];
  readonly switches: readonly Switch[];
  readonly checks: { readonly smoke: readonly Check[]; readonly smokeWrites: readonly Check[] };
  readonly monitoring: { readonly measures: readonly Measure[]; readonly settle: number; readonly sampleEvery: number };
  readonly schema: readonly SchemaExpectation[];
  readonly ticket: readonly Action[];
  readonly stakeholders: readonly Action[];
  readonly retrospective: readonly Action[];
  readonly approvals: ApprovalProfile;
  readonly qa: { readonly required: boolean; readonly timeout: number; readonly onTimeout: 'keep' | 'recovery' };
  readonly window: { readonly length: number };
  readonly recovery: {
    /** `automatic`: the planned downgrade starts without asking when the upgrade stopped half-way or a smoke test failed. */
    readonly rollback: 'ask' | 'automatic' | 'never';
    /** `automatic`: a restore may start without asking as long as it takes back no row of the users' (the fence is up). */
    readonly restore: 'ask' | 'automatic';
    readonly remindEvery: number;
    /** Told in addition from the second reminder on. */
    readonly escalate: readonly Action[];
  };
  readonly steps: readonly OwnStep[];
  /** Time limits by step id, milliseconds, in place of the built-in ones. */
  readonly timeouts: Readonly<Record<string, number>>;
}

/**
 * Placeholders that commands, URLs, headers and bodies may use as `{{name}}`. Any other name is refused when the profile is
 * loaded. `kind`, `title` and `text` (Markdown) are those of an announcement; `port` is known to `application.boot`,
 * `revision` to `alembic.commands`. One that is known but has no value yet stops the step.
 */
export const TEMPLATE_VARIABLES = [
  'service',
  'releaseTag',
  'changeTicket',
  'requestedBy',
  'runId',
  'workflowId',
  'commit',
  'outcome',
  'windowStart',
  'windowEnd',
  'checkout',
  'port',
  'revision',
  'kind',
  'title',
  'text',
] as const;

export type TemplateVariable = (typeof TEMPLATE_VARIABLES)[number];
