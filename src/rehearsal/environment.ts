/**
 * What the service's own processes get in a rehearsal: nothing that leads to a database of production or staging, and for what
 * they touch outside the database the profile's own surroundings.
 */
import { resolve } from 'node:path';
import { pathWithPython } from '../alembic/service-python.ts';
import { serviceEnvironment } from '../alembic/service-url.ts';
import { refusal } from '../contract/errors.ts';
import type { ConfiguredValue, Profile, SecretReference } from '../contract/profile.ts';
import type { SecretAccess } from '../integrations/context.ts';
import { type ConnectionTarget, parseConnectionUrl } from '../postgres/connection-url.ts';
import { readEnvironmentFile } from '../profile/environment-file.ts';
import { type ForeignDatabases, withoutAddresses } from './foreign-addresses.ts';

export interface RehearsalEnvironment {
  /** For Alembic. Holds the target's password, as `application` does: for a child's environment only. */
  readonly migration: Readonly<Record<string, string>>;
  /** For the booted application; the literals of `application.boot.environment` are added when its port is known. */
  readonly application: Readonly<Record<string, string>>;
  /** Literals of `application.boot.environment` that may be added. */
  readonly templates: Readonly<Record<string, string>>;
  /** Variables of Alembic that are production's own: what is touched by them is touched in earnest. */
  readonly shared: readonly string[];
  /** Variables that were kept from Alembic. */
  readonly withheldFromMigration: {
    /** They lead to a database of production, of staging, or to another one. */
    readonly addresses: readonly string[];
    /** Production's secrets: a queue or an account of its own could be behind them. */
    readonly secrets: readonly string[];
  };
  /** Variables that were kept from the application because they would have led to a database of production or staging. */
  readonly withheld: readonly string[];
}

/**
 * @param checkout working tree of the release that is run
 * @param target a copy on the scratch server, as the migration or the application reaches it
 * @throws StepError `StepRefused` when staging's environment file cannot be read or the address cannot be put into the service's form
 */
export async function rehearsalEnvironment(
  profile: Profile,
  checkout: string,
  target: ConnectionTarget,
  secrets: SecretAccess,
): Promise<RehearsalEnvironment> {
  const { alembic, application, rehearsal } = profile;
  const address = copyAddress(profile, target);
  const path = { PATH: pathWithPython(checkout, alembic.python) };
  const configured = rehearsal.environment ?? literals(alembic.environment);
  const given = await secrets.resolveAll(configured);
  const file = await readEnvironmentFile(resolve(profile.home, profile.staging.environmentFile));
  const foreign = await foreignDatabases(profile, secrets);
  const boot = await secrets.resolveAll(application.boot.environment);
  // What the rehearsal has of its own goes before staging's.
  const surroundings = { ...file, ...(rehearsal.environment === undefined ? {} : given), ...boot };
  const { kept, withheld } = withoutAddresses(surroundings, { target, foreign, replaced: 'all' });
  const migration = withoutAddresses(given, { target, foreign, replaced: 'production' });
  const isOwn = (name: string): boolean => !(name in address);
  return {
    migration: { ...migration.kept, ...path, ...address },
    application: { ...kept, ...path, ...address },
    templates: Object.fromEntries(
      Object.entries(literals(application.boot.environment)).filter(
        ([name, value]) => kept[name] === value && isOwn(name),
      ),
    ),
    shared: rehearsal.environment === undefined ? Object.keys(migration.kept).filter(isOwn) : [],
    withheldFromMigration: {
      addresses: migration.withheld.filter(isOwn),
      secrets:
        rehearsal.environment === undefined
          ? Object.keys(alembic.environment).filter((name) => !(name in configured) && isOwn(name))
          : [],
    },
    withheld,
  };
}

const literals = (values: Readonly<Record<string, ConfiguredValue>>): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(values).filter((entry): entry is [string, string] => typeof entry[1] === 'string'));

/** What was kept from the migration, one sentence each, with what to do. */
export function withheldText({ withheldFromMigration }: RehearsalEnvironment): readonly string[] {
  const { addresses, secrets } = withheldFromMigration;
  return [
    ...(secrets.length === 0
      ? []
      : [
          `what the migration does with ${secrets.join(', ')}: secrets of alembic.environment are production’s own and were kept from the rehearsal (give others in rehearsal.environment)`,
        ]),
    ...(addresses.length === 0
      ? []
      : [
          `what the migration does with ${addresses.join(', ')}: kept from the rehearsal, for they lead to a PostgreSQL server that is not the copy’s`,
        ]),
  ];
}

function copyAddress({ alembic }: Profile, target: ConnectionTarget): Readonly<Record<string, string>> {
  try {
    return serviceEnvironment(target, alembic);
  } catch (error) {
    if (error instanceof RangeError) throw refusal([`alembic.urlScheme: ${error.message}`]);
    throw error;
  }
}

async function foreignDatabases({ databases }: Profile, secrets: SecretAccess): Promise<ForeignDatabases> {
  const { production, staging } = databases;
  const targets = (references: readonly SecretReference[]) =>
    Promise.all(references.map(async (reference) => parseConnectionUrl(await secrets.resolve(reference))));
  return {
    production: await targets([
      production.migrator,
      production.administrator,
      production.backup,
      ...(production.application === undefined ? [] : [production.application]),
    ]),
    staging: await targets([staging.migrator, staging.administrator]),
  };
}
