/** Keeps from a rehearsal's processes whatever leads to a PostgreSQL server other than the scratch server. */
import { serviceUrl } from '../alembic/service-url.ts';
import { type ConnectionTarget, parseConnectionUrl } from '../postgres/connection-url.ts';

/** Where a rehearsal must not go, and by what it could. */
export interface ForeignDatabases {
  /** As production's roles reach it. */
  readonly production: readonly ConnectionTarget[];
  readonly staging: readonly ConnectionTarget[];
}

export interface KeptEnvironment {
  readonly kept: Readonly<Record<string, string>>;
  /** Names of variables that would have led elsewhere. */
  readonly withheld: readonly string[];
}

export interface AddressRules {
  readonly target: ConnectionTarget;
  readonly foreign: ForeignDatabases;
  /**
   * Which addresses become the copy's: `all` for an application, which without its replica's address would not boot;
   * `production` for a migration, which must not find a second database's tables to be missing in the first.
   */
  readonly replaced: 'all' | 'production';
}

/** Decides by values, whatever the variables are called; libpq's own variables by their names too. */
export function withoutAddresses(
  environment: Readonly<Record<string, string>>,
  { target, foreign, replaced }: AddressRules,
): KeptEnvironment {
  const kept: Record<string, string> = {};
  const withheld: string[] = [];
  const leadsElsewhere = elsewhere(target, foreign);
  for (const [name, value] of Object.entries(environment)) {
    const scheme = /^(postgres(?:ql)?(?:\+\w+)?):\/\//.exec(value)?.[1];
    const isReplaced = scheme !== undefined && (replaced === 'all' || names(value, foreign.production));
    const other = isReplaced ? urlOf(target, scheme) : undefined;
    if (other !== undefined) kept[name] = other;
    else if (scheme !== undefined || LIBPQ.test(name) || leadsElsewhere(value)) withheld.push(name);
    else kept[name] = value;
  }
  return { kept, withheld };
}

/** libpq's own (documentation, "Environment Variables"): where they lead the URL could be silent about. */
const LIBPQ =
  /^PG(?:HOST|HOSTADDR|PORT|DATABASE|USER|PASSWORD|PASSFILE|SERVICE|SERVICEFILE|SYSCONFDIR|OPTIONS|SSL\w*|REQUIRE\w*|GSS\w*|KRB\w*|TARGETSESSIONATTRS|LOADBALANCEHOSTS)$/;

/** libpq's keyword form, JDBC, other spellings of the scheme (django's `postgis`), and URLs inside other texts. */
const CONNECTION_STRING =
  /\b(?:dbname|hostaddr)\s*=|\bhost\s*=.*\b(?:user|username|user id|database|password)\s*=|\b(?:postgres\w*|postgis|pgsql|psql|pg|timescale\w*|cockroach\w*)(?:\+\w+)?:\/\//is;

/** Has a value an address or a password of theirs in it, or a connection string to wherever? */
function elsewhere(target: ConnectionTarget, { production, staging }: ForeignDatabases): (value: string) => boolean {
  const places = [...production, ...staging];
  const passwords = places.flatMap(({ password }) =>
    password === undefined || password.length < SHORTEST ? [] : [password, encodeURIComponent(password)],
  );
  const isTheCopys = ({ host, port }: ConnectionTarget): boolean => host === target.host && port === target.port;
  const servers = places.filter((place) => !isTheCopys(place));
  return (value) =>
    CONNECTION_STRING.test(value) ||
    passwords.some((password) => value.includes(password)) ||
    servers.some((server) => namesServer(value, server, target));
}

/** Characters: a shorter one is found in anything. */
const SHORTEST = 4;

/**
 * A host alone tells the server where it has a name of its own, or is the whole value. Other stores may be on the same host:
 * their URLs say so by their scheme.
 */
function namesServer(value: string, { host, port }: ConnectionTarget, target: ConnectionTarget): boolean {
  const text = value.trim().toLowerCase();
  const name = host.toLowerCase();
  if (contains(text, `${name}:${port}`) || contains(text, `[${name}]:${port}`)) return true;
  if (LOOPBACK.test(name) || name === target.host.toLowerCase()) return false;
  if (text === name) return true;
  return /[./]/.test(name) && !/^[a-z][\w+.-]*:\/\//.test(text) && contains(text, name);
}

const LOOPBACK = /^(?:localhost|127(?:\.\d+){3}|::1)$/;

/** As a whole: no host name goes on before or behind it. */
function contains(text: string, part: string): boolean {
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + 1)) {
    if (!/[\w.-]/.test(text[at - 1] ?? ' ') && !/[\w-]/.test(text[at + part.length] ?? ' ')) return true;
  }
  return false;
}

/** Is it a URL of one of these databases, by host, port and name? */
function names(url: string, databases: readonly ConnectionTarget[]): boolean {
  try {
    const { host, port, database } = parseConnectionUrl(url);
    return databases.some((one) => one.host === host && one.port === port && one.database === database);
  } catch {
    // One that cannot be read is nobody's.
    return false;
  }
}

function urlOf(target: ConnectionTarget, scheme: string): string | undefined {
  try {
    return serviceUrl(target, scheme);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}
