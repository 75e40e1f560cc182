/**
 * What the service's own processes get on staging. The environment file is for them alone: Alembic, the migration tests,
 * the booted application. The address Alembic writes to is the profile's `databases.staging.migrator`, whatever the file
 * says; tests and application use the file's own, which must lead into the same database.
 */
import { delimiter, dirname, resolve } from 'node:path';
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
  /** Addresses of PostgreSQL databases found among the values, by variable: none may lead to production. */
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
    PATH: pathWith(checkout, alembic.python),
  };
  const withAddress = alembic.urlVariable in file ? common : { ...common, ...migrator };
  return {
    migration: { ...common, ...migrator },
    tests: withAddress,
    application: { ...withAddress, ...(await secrets.resolveAll(application.boot.environment)) },
    addresses: Object.fromEntries(
      Object.entries(file).filter(([, value]) => /^postgres(ql)?(\+\w+)?:\/\//.test(value)),
    ),
  };
}

function migratorEnvironment({ alembic }: Profile, url: string): Readonly<Record<string, string>> {
  try {
    return serviceEnvironment(parseConnectionUrl(url), alembic);
  } catch (error) {
    if (error instanceof RangeError) throw refusal([`alembic.urlScheme: ${error.message}`]);
    throw error;
  }
}

/** The service's Python and the programs installed beside it (pytest, uvicorn) come first. */
const pathWith = (checkout: string, python: string): string =>
  [...(python.includes('/') ? [dirname(resolve(checkout, python))] : []), process.env['PATH'] ?? '/usr/bin:/bin'].join(
    delimiter,
  );

/** The service's Python: relative to the checkout, or a name to be found on PATH. */
export const servicePython = (checkout: string, python: string): string =>
  python.includes('/') ? resolve(checkout, python) : python;
