/**
 * The canonical profile of one service: what the YAML file under `config/services/` becomes once it is read, checked and
 * completed with defaults. It holds no secret, only references, so it may travel through workflow histories.
 *
 * Units: every duration is in milliseconds (the YAML writes `30s`, `10m`, `2h`), every size in bytes (`16MB`).
 */
import type { Action, OwnStep } from './profile/actions.ts';
import type { Check, Measure, SchemaExpectation } from './profile/checks.ts';
import type { ProductionDatabase, ScratchServer, StagingDatabase } from './profile/databases.ts';
import type {
  AlembicProfile,
  ApplicationProfile,
  GuardProfile,
  LintProfile,
  RehearsalProfile,
  StagingProfile,
} from './profile/migration.ts';
import type { ApprovalProfile, ReviewProfile } from './profile/people.ts';
import type { BackupProfile, Fence, RecoveryPoint, RestoreProfile } from './profile/recovery.ts';
import type { Switch } from './profile/switches.ts';

// A file a group of keys, as docs/profile.md groups them.
export * from './profile/values.ts';
export * from './profile/actions.ts';
export * from './profile/databases.ts';
export * from './profile/recovery.ts';
export * from './profile/migration.ts';
export * from './profile/switches.ts';
export * from './profile/checks.ts';
export * from './profile/people.ts';
export * from './outcome.ts';

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
