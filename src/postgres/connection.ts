import { readFileSync } from 'node:fs';
import { Client, type ClientConfig } from 'pg';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import { type ConnectionTarget, describeTarget, parseConnectionUrl } from './connection-url.ts';
import { connectFailure, queryFailure } from './database-error.ts';
import { currentLock, SESSION_NAMESPACE, withoutLock } from './lock-scope.ts';

/**
 * The only way to open a connection from this process. Everything that is left to the defaults of server, database or role
 * elsewhere is set here for the session: who it is, how long it may wait, how it formats, where it looks for names.
 */
export interface ConnectionOptions {
  /** First run id of the workflow and the step: become `application_name`. */
  readonly runId: string;
  readonly step: string;
  readonly signal: AbortSignal;
  /** Another database of the same server, e.g. the maintenance database. */
  readonly database?: string;
  /** Milliseconds; 0 = none. Defaults: statement 60 s, lock 5 s, idle in transaction 60 s. */
  readonly statementTimeout?: number;
  readonly lockTimeout?: number;
  readonly idleTimeout?: number;
  /** Default `pg_catalog`: names in catalog functions' answers are then always qualified. */
  readonly searchPath?: string;
  /** `none`: acts as the login role itself, whatever `ALTER ROLE ... SET role` says. Default: as the server sets it. */
  readonly role?: 'as-configured' | 'none';
  /**
   * `read-write`, the default: `default_transaction_read_only`, by which the fence keeps others from writing, does not hold
   * this session. `as-configured`: it is held as any other session of its role is, to try the fence.
   */
  readonly transactions?: 'read-write' | 'as-configured';
}

export interface OpenConnection {
  readonly client: Client;
  readonly target: ConnectionTarget;
  /** Process id of the backend. */
  readonly pid: number;
  /** Settles once the connection is gone without `end()` having been called; never rejects. */
  readonly lost: Promise<StepError>;
  /** Ends the session; never throws. */
  readonly end: () => Promise<void>;
}

const CONNECT_TIMEOUT = 10_000;

/**
 * What tells runs apart in names that are short: the end of the run id. Its beginning is a clock (UUID version 7), the same
 * for all runs that start within a minute.
 */
export const runTag = (runId: string): string => runId.slice(-12);

/** Sessions of one run, whatever the step: what a later attempt looks for. */
export const applicationPrefix = (runId: string): string => `migration-runbook/${runTag(runId)}/`;

/** PostgreSQL cuts `application_name` at 63 bytes. */
export const applicationName = (runId: string, step: string): string =>
  `${applicationPrefix(runId)}${step.replaceAll(/[^\x20-\x7e]/g, '?')}`.slice(0, 63);

/**
 * Opens a connection, hands it to `work` and ends it, whatever happens. On abort the session is ended on the server, so
 * that no statement runs on behind our back.
 *
 * @param url libpq URL, resolved
 * @throws StepError `StepRefused` or `OutsideUnavailable`, without the URL; the signal's reason after an abort
 */
export async function withConnection<T>(
  url: string | ConnectionTarget,
  options: ConnectionOptions,
  work: (client: Client, connection: OpenConnection) => Promise<T>,
): Promise<T> {
  options.signal.throwIfAborted();
  const connection = await openConnection(url, options);
  if (options.signal.aborted) {
    await connection.end();
    throw options.signal.reason;
  }
  const stopped = Promise.withResolvers<never>();
  let terminating: Promise<void> | undefined;
  const stop = (): void => {
    terminating = terminate(connection, options);
    void terminating.then(() => stopped.reject(options.signal.reason));
  };
  options.signal.addEventListener('abort', stop, { once: true });
  // The race below handles its rejection; without this an abort after the race has been decided would be unhandled.
  stopped.promise.catch(() => undefined);
  try {
    const running = work(connection.client, connection);
    running.catch(() => undefined);
    return await Promise.race([running, stopped.promise]);
  } catch (error) {
    if (options.signal.aborted) {
      // The statement fails as the session is being ended; only after that is it gone.
      await terminating;
      throw options.signal.reason;
    }
    throw queryFailure(error, connection.target);
  } finally {
    options.signal.removeEventListener('abort', stop);
    await connection.end();
  }
}

/** So many connections, all ended when the work has. */
export function withSessions<T>(
  url: string | ConnectionTarget,
  options: ConnectionOptions,
  count: number,
  work: (sessions: readonly Client[]) => Promise<T>,
): Promise<T> {
  const withMore = (open: readonly Client[]): Promise<T> =>
    open.length >= count ? work(open) : withConnection(url, options, (client) => withMore([...open, client]));
  return withMore([]);
}

/**
 * For connections that outlive one function, such as the one that holds the advisory lock. Prefer `withConnection`.
 * Under a migration lock on the same server the session is bound to it: see `lock-scope.ts`.
 */
export async function openConnection(
  url: string | ConnectionTarget,
  options: ConnectionOptions,
): Promise<OpenConnection> {
  const named = typeof url === 'string' ? parseConnectionUrl(url) : url;
  const target = options.database === undefined ? named : { ...named, database: options.database };
  const client = await connected(target, options);
  const lost = Promise.withResolvers<StepError>();
  let ending = false;
  const gone = (): void => {
    if (!ending)
      lost.resolve(new StepError(STEP_ERRORS.unavailable, `the connection to ${describeTarget(target)} was lost`));
  };
  client.on('error', gone);
  client.on('end', gone);
  const end = async (): Promise<void> => {
    ending = true;
    // `end` waits for the server's goodbye, which a dead server never sends.
    const patience = setTimeout(() => destroy(client), 3000);
    await client.end().catch(() => undefined);
    clearTimeout(patience);
  };
  try {
    const pid = await prepareSession(client, target, options);
    await bindToLock(client, target);
    return { client, target, pid, lost: lost.promise, end };
  } catch (error) {
    await end();
    throw queryFailure(error, target);
  }
}

/** TLS as libpq's `sslmode` means it; `pg` itself reads the modes otherwise. */
function tlsOptions(target: ConnectionTarget): ClientConfig['ssl'] {
  if (target.sslmode === 'disable') return false;
  const pem = (path: string): string => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      throw refusal([`a certificate or key file named in the address of ${describeTarget(target)} cannot be read`]);
    }
  };
  const authorities =
    target.sslrootcert !== undefined && target.sslrootcert !== 'system' ? pem(target.sslrootcert) : undefined;
  // With a root certificate `require` means `verify-ca` (libpq documentation, "SSL Support").
  const verified = target.sslmode.startsWith('verify') || (target.sslmode === 'require' && authorities !== undefined);
  if (target.sslmode === 'verify-ca' && authorities === undefined) {
    throw refusal([`sslmode=verify-ca of ${describeTarget(target)} needs sslrootcert`]);
  }
  return {
    rejectUnauthorized: verified,
    ...(target.sslmode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
    ...(authorities === undefined ? {} : { ca: authorities }),
    ...(target.sslcert === undefined ? {} : { cert: pem(target.sslcert) }),
    ...(target.sslkey === undefined ? {} : { key: pem(target.sslkey) }),
  };
}

async function connected(target: ConnectionTarget, options: ConnectionOptions): Promise<Client> {
  const attempt = async (ssl: ClientConfig['ssl']): Promise<Client> => {
    const client = new Client({
      host: target.host,
      port: target.port,
      database: target.database,
      user: target.user,
      // A function, because `pg` looks for ~/.pgpass and PGPASSWORD when there is none.
      password: () => target.password ?? '',
      application_name: applicationName(options.runId, options.step),
      connectionTimeoutMillis: CONNECT_TIMEOUT,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      ssl,
    });
    // Without a listener a connection lost while idle would end the process.
    client.on('error', () => undefined);
    try {
      await client.connect();
      return client;
    } catch (error) {
      destroy(client);
      throw error;
    }
  };
  const lenient = target.sslmode === 'prefer' || target.sslmode === 'allow';
  try {
    // Unix sockets speak no TLS.
    if (target.host.startsWith('/')) return await attempt(false);
    return await attempt(tlsOptions(target));
  } catch (error) {
    if (lenient && error instanceof Error && error.message.includes('does not support SSL')) {
      return attempt(false).catch((second: unknown) => {
        throw connectFailure(second, target);
      });
    }
    throw connectFailure(error, target);
  }
}

/** Sets what must not depend on anybody's defaults and proves that the session is a session of the server itself. */
async function prepareSession(client: Client, target: ConnectionTarget, options: ConnectionOptions): Promise<number> {
  const settings = {
    statement_timeout: options.statementTimeout ?? 60_000,
    lock_timeout: options.lockTimeout ?? 5_000,
    idle_in_transaction_session_timeout: options.idleTimeout ?? 60_000,
    idle_session_timeout: 0,
    transaction_timeout: 0,
    tcp_keepalives_idle: 10,
    tcp_keepalives_interval: 5,
    tcp_keepalives_count: 4,
    search_path: options.searchPath ?? 'pg_catalog',
    TimeZone: 'UTC',
    DateStyle: 'ISO, YMD',
    IntervalStyle: 'postgres',
    extra_float_digits: 1,
    bytea_output: 'hex',
    quote_all_identifiers: 'off',
    // Set here and not by a startup option, which poolers and proxies refuse; the backup role begins READ ONLY itself.
    ...(options.transactions === 'as-configured' ? {} : { default_transaction_read_only: 'off' }),
  };
  if (options.role === 'none') await client.query('SET ROLE NONE');
  // Settings an older server does not know (transaction_timeout came with 17) are left out by the join.
  await client.query(
    `SELECT pg_catalog.set_config(s.name, given.value, false)
     FROM pg_catalog.jsonb_each_text($1::jsonb) AS given(name, value)
     JOIN pg_catalog.pg_settings s ON s.name = given.name`,
    [JSON.stringify(settings)],
  );
  // A backend whose client has died notices it within 2 s even inside a long statement; not offered on every platform.
  await client.query(`SET client_connection_check_interval = '2s'`).catch(() => undefined);
  const { rows } = await client.query<{ pid: number }>('SELECT pg_catalog.pg_backend_pid() AS pid');
  const pid = rows[0]!.pid;
  if ((client as Client & { processID?: number | null }).processID !== pid) {
    throw refusal([
      `${describeTarget(target)} is reached through a connection pooler: session time-outs and advisory locks need the server's own address`,
    ]);
  }
  return pid;
}

/**
 * Registered first, looked second: whoever takes the lock over either finds this session and ends it, or has taken the lock
 * before the look.
 */
async function bindToLock(client: Client, target: ConnectionTarget): Promise<void> {
  const lock = currentLock();
  if (lock === undefined || lock.host !== target.host || lock.port !== target.port) return;
  await client.query('SELECT pg_catalog.pg_advisory_lock_shared($1, $2)', [SESSION_NAMESPACE, lock.key]);
  const { rows } = await client.query<{ held: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
                    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND pid = $1
                      AND classid::int8 = $2 AND objid::int8 = $3) AS held`,
    [lock.pid, lock.namespace, lock.key >>> 0],
  );
  if (rows[0]!.held) return;
  throw new StepError(
    STEP_ERRORS.unavailable,
    `the migration lock is no longer held by this attempt, which stops: ${describeTarget(target)} belongs to a later one, or the lock's session was ended`,
  );
}

/** Ends the session on the server from beside: closing the socket alone leaves its statement running. */
async function terminate(connection: OpenConnection, options: ConnectionOptions): Promise<void> {
  const beside = { ...options, signal: new AbortController().signal, role: 'none' as const };
  try {
    const second = await withoutLock(() => openConnection(connection.target, beside));
    try {
      await second.client.query('SELECT pg_catalog.pg_terminate_backend($1, 2000)', [connection.pid]);
    } finally {
      await second.end();
    }
  } catch {
    // The server cannot be asked: the broken socket and client_connection_check_interval have to do.
  }
  destroy(connection.client);
}

const destroy = (client: Client): void => {
  (client as Client & { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
};
