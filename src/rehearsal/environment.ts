/**
 * What the service's own processes get in a rehearsal: nothing that leads to a database of production or staging, and for what
 * they touch outside the database the profile's own surroundings.
 */
import { resolve } from 'node:path';
import { pathWithPython } from '../alembic/service-python.ts';
import { serviceEnvironment, serviceUrl } from '../alembic/service-url.ts';
import { refusal } from '../contract/errors.ts';
import type { ConfiguredValue, Profile } from '../contract/profile.ts';
import type { SecretAccess } from '../integrations/context.ts';
import { type ConnectionTarget, parseConnectionUrl } from '../postgres/connection-url.ts';
import { readEnvironmentFile } from '../profile/environment-file.ts';

export interface RehearsalEnvironment {
  /** For Alembic. Holds the target's password, as `application` does: for a child's environment only. */
  readonly migration: Readonly<Record<string, string>>;
  /** For the booted application; the literals of `application.boot.environment` are added when its port is known. */
  readonly application: Readonly<Record<string, string>>;
  /** Literals of `application.boot.environment` that may be added. */
  readonly templates: Readonly<Record<string, string>>;
  /** Variables of Alembic that are production's own: what is touched by them is touched in earnest. */
  readonly shared: readonly string[];
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
  const given = await secrets.resolveAll(rehearsal.environment ?? alembic.environment);
  const file = await readEnvironmentFile(resolve(profile.home, profile.staging.environmentFile));
  const elsewhere = await foreignCredentials(profile, secrets);
  const boot = await secrets.resolveAll(application.boot.environment);
  // What the rehearsal has of its own goes before staging's.
  const surroundings = { ...file, ...(rehearsal.environment === undefined ? {} : given), ...boot };
  const { kept, withheld } = withoutAddresses(surroundings, target, elsewhere);
  return {
    migration: { ...withoutLibpq(given), ...path, ...address },
    application: { ...kept, ...path, ...address },
    templates: Object.fromEntries(
      Object.entries(application.boot.environment).filter(
        (entry): entry is [string, string] =>
          isLiteral(entry[1]) && kept[entry[0]] === entry[1] && !(entry[0] in address),
      ),
    ),
    shared: rehearsal.environment === undefined ? Object.keys(alembic.environment) : [],
    withheld,
  };
}

const isLiteral = (value: ConfiguredValue): value is string => typeof value === 'string';

function copyAddress({ alembic }: Profile, target: ConnectionTarget): Readonly<Record<string, string>> {
  try {
    return serviceEnvironment(target, alembic);
  } catch (error) {
    if (error instanceof RangeError) throw refusal([`alembic.urlScheme: ${error.message}`]);
    throw error;
  }
}

/** Passwords by which a database of production or staging could be reached, whatever the variable's name and form. */
async function foreignCredentials({ databases }: Profile, secrets: SecretAccess): Promise<readonly string[]> {
  const { production, staging } = databases;
  const references = [
    production.migrator,
    production.administrator,
    production.backup,
    ...(production.application === undefined ? [] : [production.application]),
    staging.migrator,
    staging.administrator,
  ];
  const urls = await Promise.all(references.map((reference) => secrets.resolve(reference)));
  const passwords = urls.flatMap((url) => {
    const { password } = parseConnectionUrl(url);
    return password === undefined || password.length < SHORTEST ? [] : [password, encodeURIComponent(password)];
  });
  return [...new Set(passwords)];
}

/** Characters: a shorter one is found in anything. */
const SHORTEST = 4;

/** libpq's own (documentation, "Environment Variables"): where they lead the URL could be silent about. */
const LIBPQ =
  /^PG(?:HOST|HOSTADDR|PORT|DATABASE|USER|PASSWORD|PASSFILE|SERVICE|SERVICEFILE|OPTIONS|SSL\w*|REQUIRE\w*|GSS\w*|KRB\w*|TARGETSESSIONATTRS|LOADBALANCEHOSTS)$/;

const withoutLibpq = (environment: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(environment).filter(([name]) => !LIBPQ.test(name)));

/** Other URLs of databases, e.g. of a replica that only reads, lead to the copy as well: without them nothing would boot. */
function withoutAddresses(
  environment: Readonly<Record<string, string>>,
  target: ConnectionTarget,
  foreign: readonly string[],
): { readonly kept: Readonly<Record<string, string>>; readonly withheld: readonly string[] } {
  const kept: Record<string, string> = {};
  const withheld: string[] = [];
  for (const [name, value] of Object.entries(environment)) {
    const scheme = /^(postgres(?:ql)?(?:\+\w+)?):\/\//.exec(value)?.[1];
    if (scheme !== undefined) {
      const other = urlOf(target, scheme);
      if (other === undefined) withheld.push(name);
      else kept[name] = other;
    } else if (
      LIBPQ.test(name) ||
      CONNECTION_STRING.test(value) ||
      foreign.some((password) => value.includes(password))
    ) {
      withheld.push(name);
    } else kept[name] = value;
  }
  return { kept, withheld };
}

/** libpq's keyword form, JDBC, and URLs inside other texts. */
const CONNECTION_STRING = /\bdbname\s*=|postgres(?:ql)?(?:\+\w+)?:\/\//i;

function urlOf(target: ConnectionTarget, scheme: string): string | undefined {
  try {
    return serviceUrl(target, scheme);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}
