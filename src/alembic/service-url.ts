import type { ConnectionTarget } from '../postgres/connection-url.ts';

/**
 * The variables by which a service's env.py reaches a database: its URL with the driver it expects, and for drivers that
 * take TLS settings from the environment those too. Holds the password: for a child's environment only.
 *
 * @param urlVariable e.g. `DATABASE_URL`
 * @param urlScheme SQLAlchemy's, e.g. `postgresql+psycopg`
 * @throws RangeError for a scheme that is not PostgreSQL's, or that cannot carry the TLS settings asked for
 */
export function serviceEnvironment(
  target: ConnectionTarget,
  { urlVariable, urlScheme }: { readonly urlVariable: string; readonly urlScheme: string },
): Readonly<Record<string, string>> {
  return { [urlVariable]: serviceUrl(target, urlScheme), ...tlsVariables(target) };
}

/**
 * A SQLAlchemy URL, e.g. `postgresql+asyncpg://user:p%40ss@host:5432/app?ssl=require`.
 * @throws RangeError
 */
export function serviceUrl(target: ConnectionTarget, urlScheme: string): string {
  const driver = driverOf(urlScheme);
  const user = encode(target.user) + (target.password === undefined ? '' : `:${encode(target.password)}`);
  const socketFolder = target.host.startsWith('/') ? target.host : undefined;
  const host = socketFolder === undefined ? bracketed(target.host) : '';
  const query = new URLSearchParams(tlsParameters(target, driver));
  if (socketFolder !== undefined) query.set('host', socketFolder);
  // SQLAlchemy decodes user and password, but not the database's name.
  if (/[?#]/.test(target.database))
    throw new RangeError('SQLAlchemy URLs cannot name a database with ? or # in its name');
  const parameters = query.size === 0 ? '' : `?${query.toString().replaceAll('+', '%20')}`;
  return `${urlScheme.replace(/^postgres(?=\+|$)/, 'postgresql')}://${user}@${host}:${target.port}/${target.database}${parameters}`;
}

function driverOf(urlScheme: string): string {
  const scheme = /^postgres(?:ql)?(?:\+(?<driver>\w+))?$/.exec(urlScheme);
  if (scheme === null) throw new RangeError(`"${urlScheme}" is not a PostgreSQL scheme such as postgresql+psycopg`);
  return scheme.groups?.['driver'] ?? '';
}

function tlsParameters(target: ConnectionTarget, driver: string): Record<string, string> {
  if (driver === 'asyncpg') return target.sslmode === 'prefer' ? {} : { ssl: target.sslmode };
  if (driver === 'pg8000') {
    if (target.sslmode === 'prefer' || target.sslmode === 'disable' || target.sslmode === 'allow') return {};
    throw new RangeError(`the driver pg8000 takes no sslmode from a URL: ${target.sslmode} cannot be kept`);
  }
  const { sslmode, sslrootcert, sslcert, sslkey } = target;
  return Object.fromEntries(
    Object.entries({ sslmode: sslmode === 'prefer' ? undefined : sslmode, sslrootcert, sslcert, sslkey }).flatMap(
      ([name, value]) => (value === undefined ? [] : [[name, value]]),
    ),
  );
}

/** libpq and asyncpg read these where the URL is silent. */
function tlsVariables({ sslmode, sslrootcert, sslcert, sslkey }: ConnectionTarget): Record<string, string> {
  return {
    PGSSLMODE: sslmode,
    ...(sslrootcert === undefined ? {} : { PGSSLROOTCERT: sslrootcert }),
    ...(sslcert === undefined ? {} : { PGSSLCERT: sslcert }),
    ...(sslkey === undefined ? {} : { PGSSLKEY: sslkey }),
  };
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}
