/** The keys `backup`, `restore`, `fence`, `recoveryPoint`: what a way back needs. */
import type { CommandAction } from './actions.ts';
import type { Check } from './checks.ts';
import type { Switch } from './switches.ts';
import type { SecretReference } from './values.ts';

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
