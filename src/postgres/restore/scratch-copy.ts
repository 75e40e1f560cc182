/** Copies of a production database on the scratch server: for drills, and whatever else tries something on real rows. */
import type { Client } from 'pg';
import type { DatabaseIdentity } from '../../contract/evidence/production.ts';
import { refusal, STEP_ERRORS, StepError } from '../../contract/errors.ts';
import { type ConnectionOptions, runTag, withConnection } from '../connection.ts';
import { type ConnectionTarget, inDatabase, parseConnectionUrl } from '../connection-url.ts';
import { sqlState } from '../database-error.ts';
import { type DatabaseMark, listMarkedDatabases, markDatabase, parseDatabaseMark } from './database-mark.ts';
import { createDatabaseLike, type DatabaseProperties } from '../catalog/database-properties.ts';
import { boundedIdentifier, sqlName } from '../identifier.ts';
import { isInRecovery, isSameDatabase, readIdentity } from '../identity.ts';
import type { ObjectMap } from '../catalog/object-map.ts';
import { ensurePlaceholderRoles } from './placeholder-roles.ts';
import { endSessions } from '../sessions.ts';
import { dropSubscriptions, hasSubscriptions } from './subscriptions.ts';

export type CopyKind = Extract<DatabaseMark['kind'], 'drill' | 'scratch'>;

/** What the backup recorded, as far as an empty database for it is concerned. */
export interface CopyLedger {
  readonly database: Pick<DatabaseIdentity, 'serverMajor'>;
  readonly properties: DatabaseProperties;
  readonly roles: readonly string[];
  readonly objectMap: Pick<ObjectMap, 'objects'>;
}

export interface ScratchServerAccess {
  /** libpq URL of the scratch server's administrator, resolved; leads to its maintenance database. */
  readonly url: string;
  /** First run id of the workflow. */
  readonly runId: string;
  readonly step: string;
  readonly signal: AbortSignal;
}

export interface CopyRequest extends ScratchServerAccess {
  readonly mark: Pick<DatabaseMark, 'kind' | 'service' | 'workflowId' | 'expiresAt'> & { readonly kind: CopyKind };
  readonly ledger: CopyLedger;
  /** libpq URL of production's administrator, resolved: only to be told apart from. */
  readonly production: string;
}

export interface EmptyCopy {
  readonly target: ConnectionTarget;
  readonly server: DatabaseIdentity;
}

/** `<service>_drill_<end of the run id>`: a later attempt finds it again. `more`: a copy of the copy, or a role for it. */
export const copyName = (service: string, kind: CopyKind, runId: string, more?: string): string =>
  boundedIdentifier(service, `_${kind}_${runTag(runId)}${more === undefined ? '' : `_${more}`}`);

/**
 * Creates an empty database on the scratch server into which the backup can be restored: encoding and locale as recorded,
 * every role there, marked as this run's. What an earlier attempt of the run has left is dropped first. Rights and settings
 * of production's database are not given to it: only its owner and the administrator get in.
 *
 * @throws StepError `StepRefused` with every reason why a copy cannot be made there
 */
export async function createEmptyCopy(request: CopyRequest): Promise<EmptyCopy> {
  const { ledger, mark, runId, signal } = request;
  const scratch = parseConnectionUrl(request.url);
  const name = copyName(mark.service, mark.kind, runId);
  return withConnection(scratch, scratchSession(request), async (client) => {
    const server = await readIdentity(client);
    await requireOtherServer(client, server, request);
    const findings = [...versionFindings(server, ledger), ...(await extensionFindings(client, ledger.objectMap))];
    if (findings.length > 0) throw refusal(findings);
    await ensurePlaceholderRoles(client, ledger.roles);
    await dropLeftoverCopy(client, name, request);
    signal.throwIfAborted();
    await createLike(client, ledger.properties, name);
    const note = "A copy of production's rows: it is dropped at the end of the run.";
    await markDatabase(client, name, { ...mark, runId, note });
    return { target: inDatabase(scratch, name), server };
  });
}

/**
 * Drops what a run has made on the scratch server, whoever is in it, and nothing else: databases that carry its mark, and those
 * of its names that an attempt had no time to mark.
 *
 * @returns their names
 */
export function dropCopies(
  access: ScratchServerAccess,
  of: {
    readonly service: string;
    readonly kind: CopyKind;
    /** Names that the run gives beside `copyName`. */
    readonly named?: readonly string[];
  },
): Promise<string[]> {
  const { runId } = access;
  return withConnection(access.url, scratchSession(access), async (client) => {
    const marked = (await listMarkedDatabases(client)).filter(
      ({ mark }) => mark.runId === runId && mark.kind === of.kind && mark.service === of.service,
    );
    const names = new Set(marked.map(({ name }) => name));
    for (const own of [copyName(of.service, of.kind, runId), ...(of.named ?? [])]) {
      if ((await commentOf(client, own)) === null) names.add(own);
    }
    for (const name of names) await dropCopy(client, name, access);
    return [...names].toSorted();
  });
}

export const scratchSession = ({ runId, step, signal }: ScratchServerAccess): ConnectionOptions => ({
  runId,
  step,
  signal,
  // Files of a large database are removed, or a checkpoint waited for, as long as it takes.
  statementTimeout: 0,
});

/** Undefined where there is no such database. */
async function commentOf(client: Client, name: string): Promise<string | null | undefined> {
  const { rows } = await client.query<{ comment: string | null }>(
    `SELECT shobj_description(oid, 'pg_database') AS "comment" FROM pg_database WHERE datname = $1`,
    [name],
  );
  return rows[0]?.comment;
}

/** @throws StepError `StateUnexpected` where the database of that name is not of this run */
export async function dropLeftoverCopy(
  client: Client,
  name: string,
  access: ScratchServerAccess & { readonly mark: Pick<DatabaseMark, 'kind'> },
): Promise<void> {
  const { mark, runId } = access;
  const comment = await commentOf(client, name);
  if (comment === undefined) return;
  const found = parseDatabaseMark(comment);
  if (comment !== null && (found?.kind !== mark.kind || found.runId !== runId)) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `database "${name}" on the scratch server is in the way and not of this run: its comment says "${comment.slice(0, 300)}". Rename or drop it.`,
      { database: name },
    );
  }
  await dropCopy(client, name, access);
}

/** A database with subscriptions cannot be dropped, and dropping one as it is would ask its publisher. */
export async function dropCopy(client: Client, name: string, access: ScratchServerAccess): Promise<void> {
  if (await hasSubscriptions(client, name)) {
    const copy = inDatabase(parseConnectionUrl(access.url), name);
    await withConnection(copy, scratchSession(access), dropSubscriptions);
  }
  await endSessions(client, { of: { database: name }, signal: access.signal });
  await client.query(`DROP DATABASE IF EXISTS ${sqlName(name)}`);
}

/**
 * A restore takes processor, memory and disk: not those of production. Physical clones have production's system
 * identifier; where it is equal, both are asked through a database of the same name.
 */
async function requireOtherServer(client: Client, server: DatabaseIdentity, request: CopyRequest): Promise<void> {
  if ((await isInRecovery(client)) === 'standby') {
    throw refusal(['the scratch server is a standby and cannot be written: give the address of a primary']);
  }
  const session: ConnectionOptions = { runId: request.runId, step: request.step, signal: request.signal };
  const production = await withConnection(request.production, session, readIdentity);
  if (production.systemIdentifier !== server.systemIdentifier) return;
  const same = await withConnection(request.production, { ...session, database: server.database }, (other) =>
    isSameDatabase(other, client),
  );
  if (same) {
    throw refusal([
      'the scratch server is the production server: a copy would take of its resources; name another one in databases.scratch',
    ]);
  }
}

function versionFindings(server: DatabaseIdentity, { database }: CopyLedger): string[] {
  if (server.serverMajor === database.serverMajor) return [];
  return [
    `the scratch server is PostgreSQL ${server.serverMajor}, the backup is of PostgreSQL ${database.serverMajor}: only the same major version shows what a restore would do`,
  ];
}

async function extensionFindings(client: Client, { objects }: CopyLedger['objectMap']): Promise<string[]> {
  const needed = objects
    .filter(({ kind }) => kind === 'extension')
    .map(({ name, definition }) => ({
      name: name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name,
      version: /version (\S+)$/.exec(definition)?.[1] ?? '',
    }));
  const { rows } = await client.query<{ name: string; standard: string }>(
    'SELECT name, default_version AS "standard" FROM pg_available_extensions WHERE name = ANY ($1)',
    [needed.map(({ name }) => name)],
  );
  const available = new Map(rows.map(({ name, standard }) => [name, standard]));
  return needed.flatMap(({ name, version }) => {
    const standard = available.get(name);
    if (standard === version) return [];
    return [
      standard === undefined
        ? `extension ${name} is not installed on the scratch server`
        : `extension ${name} is of version ${version} in the backup, the scratch server would create ${standard}`,
    ];
  });
}

/** SQLSTATEs of a locale, an encoding or a combination of both that the server does not have. */
const NOT_THERE = new Set(['42809', '42P17', '22023', '0A000', '42704']);

async function createLike(client: Client, properties: DatabaseProperties, name: string): Promise<void> {
  try {
    await createDatabaseLike(client, await withKnownTablespace(client, properties), name);
  } catch (error) {
    const state = sqlState(error);
    if (state === '42501') {
      throw refusal([
        `the administrator of the scratch server cannot create a database of role "${properties.owner}" (${(error as Error).message.slice(0, 200)}): it needs CREATEDB, and that role granted to it there`,
      ]);
    }
    if (state === undefined || !NOT_THERE.has(state)) throw error;
    const { encoding, collate, ctype, provider, locale } = properties;
    const wanted = `encoding ${encoding}, LC_COLLATE ${collate}, LC_CTYPE ${ctype}${locale === null ? '' : `, locale ${locale}`}${provider === null ? '' : ` of provider "${provider}"`}`;
    throw refusal([
      `the scratch server cannot create a database like production's (${wanted}): ${(error as Error).message.slice(0, 300)}; install what is missing there`,
    ]);
  }
}

/** Where the files lie is no part of what a copy is compared by. */
async function withKnownTablespace(client: Client, properties: DatabaseProperties): Promise<DatabaseProperties> {
  const { rowCount } = await client.query('SELECT FROM pg_tablespace WHERE spcname = $1', [properties.tablespace]);
  return rowCount === 0 ? { ...properties, tablespace: 'pg_default' } : properties;
}
