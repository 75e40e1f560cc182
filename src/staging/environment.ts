/**
 * What the service's own processes get on staging. The environment file is for them alone: Alembic, the migration tests,
 * the booted application. The address Alembic writes to is the profile's `databases.staging.migrator`, whatever the file
 * says; tests and application use the file's own, which must lead into the same database.
 */
import { resolve } from 'node:path';
import { pathWithPython } from '../alembic/service-python.ts';
import { serviceEnvironment } from '../alembic/service-url.ts';
import { refusal } from '../contract/errors.ts';
import type { Profile } from '../contract/profile.ts';
import type { SecretAccess } from '../integrations/context.ts';
import { parseConnectionUrl } from '../postgres/connection-url.ts';
import { readEnvironmentFile } from '../profile/environment-file.ts';

export interface StagingEnvironments {
  /** For Alembic: the migrator's address. */
  readonly migration: Readonly<Record<string, string>>;
  /** For the migration tests. */
  readonly tests: Readonly<Record<string, string>>;
  /** For the booted application; the literals of `application.boot.environment` are added when its port is known. */
  readonly application: Readonly<Record<string, string>>;
  /** Addresses of PostgreSQL databases found in what the children get, by variable: none may lead to production. */
  readonly addresses: Readonly<Record<string, string>>;
}

/**
 * @param checkout the release's working tree
 * @param migratorUrl resolved `databases.staging.migrator`
 * @throws StepError `StepRefused` when the file cannot be read or the address cannot be put into the service's form
 */
export async function stagingEnvironments(
  profile: Profile,
  checkout: string,
  migratorUrl: string,
  secrets: SecretAccess,
): Promise<StagingEnvironments> {
  const { alembic, application } = profile;
  const file = await readEnvironmentFile(resolve(profile.home, profile.staging.environmentFile));
  const migrator = migratorEnvironment(profile, migratorUrl);
  // The file wins over what production's migration needs: that may name production's other services.
  const common = {
    ...(await secrets.resolveAll(alembic.environment)),
    ...file,
    PATH: pathWithPython(checkout, alembic.python),
  };
  const withAddress = alembic.urlVariable in file ? common : { ...common, ...migrator };
  const booted = { ...withAddress, ...(await secrets.resolveAll(application.boot.environment)) };
  return {
    migration: { ...common, ...migrator },
    tests: withAddress,
    application: booted,
    addresses: addressesIn({ ...booted, ...withAddress }),
  };
}

/** Whatever the children could follow to a database: URLs under any name, and libpq's own variables. */
function addressesIn(environment: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const urls = Object.entries(environment).filter(([, value]) => /^postgres(ql)?(\+\w+)?:\/\//.test(value));
  const { PGHOST, PGPORT = '5432', PGDATABASE, PGUSER, PGPASSWORD } = environment;
  if (PGHOST === undefined || PGDATABASE === undefined || PGUSER === undefined) return Object.fromEntries(urls);
  const host = PGHOST.startsWith('/') ? '' : PGHOST;
  const address = new URL(`postgresql://${host}:${PGPORT}/${encodeURIComponent(PGDATABASE)}`);
  address.username = encodeURIComponent(PGUSER);
  address.password = encodeURIComponent(PGPASSWORD ?? '');
  if (host === '') address.searchParams.set('host', PGHOST);
  return { ...Object.fromEntries(urls), PGHOST: address.href };
}

function migratorEnvironment({ alembic }: Profile, url: string): Readonly<Record<string, string>> {
  try {
    return serviceEnvironment(parseConnectionUrl(url), alembic);
  } catch (error) {
    if (error instanceof RangeError) throw refusal([`alembic.urlScheme: ${error.message}`]);
    throw error;
  }
}
