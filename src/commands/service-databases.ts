import { randomUUID } from 'node:crypto';
import type { Client } from 'pg';
import { underMigrationLock } from '../postgres/advisory-lock.ts';
import { withConnection } from '../postgres/connection.ts';
import { parseConnectionUrl } from '../postgres/connection-url.ts';
import type { DatabaseServer } from '../sweep/leftover.ts';
import type { ServiceAccess } from './service-access.ts';

/** The maintenance databases of a service's servers, as their administrators, for one command. */
export class ServiceDatabases {
  private readonly access: ServiceAccess;
  private readonly step: string;
  /** Tells this command's sessions from those of runs and of other commands. */
  private readonly tag = randomUUID();

  constructor(access: ServiceAccess, step: string) {
    this.access = access;
    this.step = step;
  }

  /** @param named another database than the maintenance database */
  async on<T>(
    server: DatabaseServer,
    work: (client: Client) => Promise<T>,
    { named, signal = this.access.signal }: { readonly named?: string; readonly signal?: AbortSignal } = {},
  ): Promise<T> {
    const { production } = this.access.profile.databases;
    const { runId, step } = this.session;
    const maintenance = server === 'production' ? production.maintenanceDatabase : undefined;
    const name = named ?? maintenance;
    const database = name === undefined ? {} : { database: name };
    // Removing the files of a large database takes its time.
    return withConnection(await this.url(server), { runId, step, signal, statementTimeout: 0, ...database }, work);
  }

  /** Name of production's database. */
  async productionName(): Promise<string> {
    return parseConnectionUrl(await this.url('production')).database;
  }

  /** Nobody migrates, restores or swaps meanwhile; when the lock is lost the work stops. @throws StepError naming who does */
  async withMigrationLock<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { maintenanceDatabase } = this.access.profile.databases.production;
    const url = await this.url('production');
    const database = parseConnectionUrl(url).database;
    return underMigrationLock(url, { ...this.session, database, maintenanceDatabase }, work);
  }

  private get session() {
    return { runId: this.tag, step: this.step, signal: this.access.signal };
  }

  private url(server: DatabaseServer): Promise<string> {
    const { profile, secrets, signal } = this.access;
    return secrets.resolve(profile.databases[server].administrator, profile, signal);
  }
}
