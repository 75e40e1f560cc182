/** The key `databases`. */
import type { SecretReference } from './values.ts';

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
