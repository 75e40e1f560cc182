/** Copies of a copy on the scratch server, made by the server itself from the files: a fraction of what a restore takes. */
import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from 'pg';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import { withConnection } from '../connection.ts';
import { type ConnectionTarget, inDatabase, parseConnectionUrl } from '../connection-url.ts';
import { sqlState } from '../database-error.ts';
import { sqlName } from '../identifier.ts';
import { readServerMajor } from '../server-version.ts';
import { endSessions } from '../sessions.ts';
import { type DatabaseMark, listMarkedDatabases, markDatabase } from './database-mark.ts';
import { dropCopy, dropLeftoverCopy, scratchSession, type ScratchServerAccess } from './scratch-copy.ts';

export interface TemplateCopyRequest extends ScratchServerAccess {
  /** Database of this run that is copied. Whoever is connected to it is thrown out. */
  readonly of: string;
  readonly name: string;
  readonly mark: Pick<DatabaseMark, 'service' | 'workflowId' | 'expiresAt' | 'note'>;
}

export interface TemplateCopy {
  readonly target: ConnectionTarget;
  readonly oid: number;
}

/**
 * Makes the copy, closed to everybody but its owner and the administrator. One of the same name that an earlier attempt left is
 * dropped first.
 *
 * @throws StepError `StateUnexpected` where `of` is no database of this run, or somebody else's has the name
 */
export function createTemplateCopy(request: TemplateCopyRequest): Promise<TemplateCopy> {
  const { of, name, runId, signal } = request;
  const mark = { ...request.mark, kind: 'scratch', runId } as const;
  return withConnection(request.url, scratchSession(request), async (client) => {
    const owner = await ownerOf(client, of, runId);
    await dropLeftoverCopy(client, name, { ...request, mark });
    // By the files and not through the log: a large copy would fill it (since 15, before that there was no other way).
    const strategy = (await readServerMajor(client)) >= 15 ? ' STRATEGY file_copy' : '';
    const sql = `CREATE DATABASE ${sqlName(name)} OWNER ${sqlName(owner)} TEMPLATE ${sqlName(of)}${strategy}`;
    await whileNobodyIsIn(client, of, signal, () => client.query(sql));
    // A copy has not the rights of what it was made from: by default everybody may connect.
    await client.query(`REVOKE ALL ON DATABASE ${sqlName(name)} FROM PUBLIC`);
    await markDatabase(client, name, mark);
    const { rows } = await client.query<{ oid: number }>(
      'SELECT oid::int8::float8 AS "oid" FROM pg_database WHERE datname = $1',
      [name],
    );
    return { target: inDatabase(parseConnectionUrl(request.url), name), oid: rows[0]!.oid };
  });
}

/** Drops the very database that was made, whatever it is called by now. One that has taken its name since is left alone. */
export function dropTemplateCopy(access: ScratchServerAccess, { oid }: Pick<TemplateCopy, 'oid'>): Promise<void> {
  return withConnection(access.url, scratchSession(access), async (client) => {
    const { rows } = await client.query<{ name: string }>(
      'SELECT datname AS "name" FROM pg_database WHERE oid = $1::int8::oid',
      [oid],
    );
    for (const { name } of rows) await dropCopy(client, name, access);
  });
}

async function ownerOf(client: Client, name: string, runId: string): Promise<string> {
  const found = (await listMarkedDatabases(client)).find((database) => database.name === name);
  if (found?.mark.runId === runId) return found.owner;
  throw new StepError(
    STEP_ERRORS.stateUnexpected,
    `database "${name}" on the scratch server is not of this run, or is gone: repeat the rehearsal from its restore on`,
    { database: name },
  );
}

const TRIES = 20;

/** Somebody may come in between, such as a monitor that looks into every database. */
async function whileNobodyIsIn(
  client: Client,
  database: string,
  signal: AbortSignal,
  work: () => Promise<unknown>,
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    await endSessions(client, { of: { database }, signal });
    try {
      await work();
      return;
    } catch (error) {
      // object_in_use
      if (sqlState(error) !== '55006' || attempt >= TRIES) throw error;
      await pause(250, undefined, { signal });
    }
  }
}
