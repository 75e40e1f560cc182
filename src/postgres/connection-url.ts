import { refusal } from '../contract/errors.ts';

/** Where a libpq URL leads, taken apart. Holds the password: never log, never put into an error. */
export interface ConnectionTarget {
  /** Host name, address, or the folder of a Unix socket (starts with `/`). */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password?: string;
  readonly sslmode: SslMode;
  /** Paths of PEM files; `sslrootcert=system` means the certificate authorities of the machine. */
  readonly sslrootcert?: string;
  readonly sslcert?: string;
  readonly sslkey?: string;
}

export const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
export type SslMode = (typeof SSL_MODES)[number];

/** libpq parameters that change nothing here: this project sets them itself or does not need them. */
const WITHOUT_EFFECT = new Set([
  'application_name',
  'fallback_application_name',
  'connect_timeout',
  'client_encoding',
  'channel_binding',
  'gssencmode',
  'keepalives',
  'keepalives_idle',
  'keepalives_interval',
  'keepalives_count',
  'sslcompression',
  'target_session_attrs',
  'tcp_user_timeout',
]);

/** As libpq reads it: the password may hold anything but `@` and `/`; everything may be percent-encoded. */
const URL_FORM =
  /^postgres(?:ql)?(?:\+\w+)?:\/\/(?:(?<user>[^:@/]*)(?::(?<password>[^@/]*))?@)?(?<authority>[^/?]*)(?:\/(?<database>[^?]*))?(?:\?(?<query>.*))?$/s;

/**
 * Takes a libpq URL apart, with or without SQLAlchemy's driver suffix (`postgresql+psycopg://`).
 *
 * @throws StepError `StepRefused`; says what is wrong, never the URL
 */
export function parseConnectionUrl(url: string): ConnectionTarget {
  const parts = URL_FORM.exec(url.trim())?.groups;
  if (parts === undefined) {
    throw refusal([
      'a database address is not a URL of the form postgresql://user:password@host:port/database (percent-encode special characters of the password)',
    ]);
  }
  const parameters = new URLSearchParams(parts['query'] ?? '');
  const { host, port } = hostAndPort(parts['authority'] ?? '');
  const user = parameters.get('user') ?? decoded(parts['user'] ?? '');
  if (user === '') throw refusal(['a database address names no user']);
  const password = parameters.get('password') ?? decoded(parts['password'] ?? '');
  const portText = parameters.get('port') ?? port;
  if (!/^\d{1,5}$/.test(portText))
    throw refusal([`the port of the database address of role "${user}" is not a number`]);
  const target = {
    host: parameters.get('host') ?? host,
    port: Number(portText),
    database: parameters.get('dbname') ?? (decoded(parts['database'] ?? '') || user),
    user,
    sslmode: sslMode(parameters),
    ...(password === '' ? {} : { password }),
    ...pemFiles(parameters),
  };
  if (target.host.includes(',')) {
    throw refusal([
      `the database address of role "${user}" names several hosts: name the primary alone, so that every step is known to reach the same server`,
    ]);
  }
  refuseUnknown(parameters, user);
  return target;
}

/** The same server and role, another database: the maintenance database, a scratch database. */
export const inDatabase = (target: ConnectionTarget, database: string): ConnectionTarget => ({ ...target, database });

/** For people: no user, no password. */
export const describeTarget = (target: ConnectionTarget): string =>
  `database "${target.database}" at ${target.host.includes(':') ? `[${target.host}]` : target.host}:${target.port}`;

/**
 * What libpq programs (`pg_dump`, `pg_restore`, `psql`) read the target from, so that no password is among their
 * arguments. Give it to the child in place of, not in addition to, PG* variables of the worker.
 */
export const libpqEnvironment = (target: ConnectionTarget): Readonly<Record<string, string>> => ({
  PGHOST: target.host,
  PGPORT: String(target.port),
  PGDATABASE: target.database,
  PGUSER: target.user,
  PGSSLMODE: target.sslmode,
  PGCONNECT_TIMEOUT: '10',
  ...(target.password === undefined ? {} : { PGPASSWORD: target.password }),
  ...(target.sslrootcert === undefined ? {} : { PGSSLROOTCERT: target.sslrootcert }),
  ...(target.sslcert === undefined ? {} : { PGSSLCERT: target.sslcert }),
  ...(target.sslkey === undefined ? {} : { PGSSLKEY: target.sslkey }),
});

function hostAndPort(authority: string): { host: string; port: string } {
  const sixth = /^\[([^\]]*)\](?::(\d*))?$/.exec(authority);
  if (sixth !== null) return { host: sixth[1]!, port: sixth[2] || '5432' };
  // Several hosts keep their commas: refused by the caller with a message of its own.
  if (authority.includes(',')) return { host: authority, port: '5432' };
  const [host = '', port = ''] = authority.split(':', 2);
  return { host: decoded(host) || 'localhost', port: port || '5432' };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw refusal(['a database address has a percent sign that encodes nothing: write it as %25']);
  }
}

function sslMode(parameters: URLSearchParams): SslMode {
  if (parameters.get('ssl') === 'true') return 'require';
  const mode = parameters.get('sslmode');
  if (mode === null) return parameters.get('sslrootcert') === 'system' ? 'verify-full' : 'prefer';
  const known = SSL_MODES.find((name) => name === mode);
  if (known === undefined) throw refusal([`sslmode of a database address must be one of ${SSL_MODES.join(', ')}`]);
  return known;
}

const pemFiles = (parameters: URLSearchParams): Pick<ConnectionTarget, 'sslrootcert' | 'sslcert' | 'sslkey'> =>
  Object.fromEntries(
    ['sslrootcert', 'sslcert', 'sslkey'].flatMap((name) => {
      const path = parameters.get(name);
      return path === null ? [] : [[name, path]];
    }),
  );

const UNDERSTOOD = ['host', 'port', 'dbname', 'user', 'password', 'ssl', 'sslmode', 'sslrootcert', 'sslcert', 'sslkey'];

function refuseUnknown(parameters: URLSearchParams, user: string): void {
  const unknown = [...new Set(parameters.keys())].filter(
    (name) => !UNDERSTOOD.includes(name) && !WITHOUT_EFFECT.has(name),
  );
  if (unknown.length > 0) {
    throw refusal([
      `the database address of role "${user}" has parameters that are not supported: ${unknown.map((name) => name.slice(0, 40)).join(', ')}`,
    ]);
  }
}
