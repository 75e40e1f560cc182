import type { PostgresServer, StackConnection } from '../connection.ts';
import type { RedisUrls } from './queues.ts';
import { roleUrl } from './roles.ts';
import type { Passwords, RoleName } from './roles.ts';
import type { Secrets } from './secrets.ts';

/** One database's URL for each of the service's roles. */
export type Urls = Readonly<Record<RoleName, string>>;

export interface DatabaseUrls {
  readonly production: Urls;
  /** The production database on the replica; undefined where the stack runs without one. */
  readonly replica?: Urls;
  readonly staging: Urls;
  /** The server's maintenance database: databases come and go there. */
  readonly scratch: { readonly administrator: string };
}

export function urlsOf(server: PostgresServer, passwords: Passwords, database: string): Urls {
  return {
    administrator: roleUrl(server, passwords, 'administrator', database),
    migrator: roleUrl(server, passwords, 'migrator', database),
    backup: roleUrl(server, passwords, 'backup', database),
    application: roleUrl(server, passwords, 'application', database),
  };
}

/** What the service's secrets manager holds, under the names that profiles refer to. */
export function secretsOf(facts: {
  readonly urls: DatabaseUrls;
  readonly redis: RedisUrls;
  readonly passwords: { readonly production: Passwords; readonly staging: Passwords };
  readonly ageIdentity: string;
  readonly s3: StackConnection['s3'];
}): Secrets {
  const { urls, redis, passwords, s3 } = facts;
  return {
    'prod/whisper-transcriber/DATABASE_URL': urls.production.application,
    'prod/whisper-transcriber/ADMINISTRATOR_URL': urls.production.administrator,
    'prod/whisper-transcriber/MIGRATOR_URL': urls.production.migrator,
    'prod/whisper-transcriber/BACKUP_URL': urls.production.backup,
    ...(urls.replica && { 'prod/whisper-transcriber/REPLICA_ADMINISTRATOR_URL': urls.replica.administrator }),
    'prod/whisper-transcriber/REDIS_URL': redis.production,
    'prod/whisper-transcriber/ADMIN_PASSWORD': passwords.production.admin,
    'staging/whisper-transcriber/DATABASE_URL': urls.staging.application,
    'staging/whisper-transcriber/ADMINISTRATOR_URL': urls.staging.administrator,
    'staging/whisper-transcriber/MIGRATOR_URL': urls.staging.migrator,
    'staging/whisper-transcriber/REDIS_URL': redis.staging,
    'staging/whisper-transcriber/ADMIN_PASSWORD': passwords.staging.admin,
    'scratch/ADMINISTRATOR_URL': urls.scratch.administrator,
    'backups/AGE_IDENTITY': facts.ageIdentity,
    ...(s3 === undefined
      ? {}
      : { 'backups/ACCESS_KEY_ID': s3.accessKeyId, 'backups/SECRET_ACCESS_KEY': s3.secretAccessKey }),
  };
}
