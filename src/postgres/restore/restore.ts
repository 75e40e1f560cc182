import type { Client } from 'pg';
import type { DatabaseIdentity } from '../../contract/evidence/production.ts';
import type { RestoreEvidence } from '../../contract/evidence/restore.ts';
import type { RestoreProfile } from '../../contract/profile.ts';
import { refusal, STEP_ERRORS, StepError } from '../../contract/errors.ts';
import { checkCapacity, readCapacityNeed } from './capacity.ts';
import { type ConnectionOptions, runTag, withConnection } from '../connection.ts';
import { inDatabase, parseConnectionUrl } from '../connection-url.ts';
import { type DatabaseMark, markDatabase, parseDatabaseMark } from './database-mark.ts';
import {
  applyProperties,
  createDatabaseLike,
  type DatabaseProperties,
  readDatabaseProperties,
  restoredProperties,
} from '../catalog/database-properties.ts';
import { boundedIdentifier, sqlName } from '../identifier.ts';
import { refuseForeignBackup } from '../identity.ts';
import { restoreBackup, type RestoreBackupRequest } from './restore-backup.ts';
import type { RestoreLedger } from './restore-compare.ts';
import { endSessions } from '../sessions.ts';
import type { StandbyAccess } from '../standbys.ts';
import { reopenAfterInterruptedSwap } from '../swap/swap-record.ts';
import { findWayBackBlockers } from '../swap/way-back-blockers.ts';

export {
  restoreBackup,
  type RestoreBackupRequest,
  type RestoredBackup,
  type RestoreProgress,
} from './restore-backup.ts';

export interface RestoreRequest extends Omit<RestoreBackupRequest, 'target' | 'ledger' | 'pgRestore'> {
  /** libpq URL of production's administrator, resolved; leads to the production database. */
  readonly url: string;
  readonly maintenanceDatabase: string;
  readonly ledger: RestoreLedger & {
    readonly database: Pick<DatabaseIdentity, 'systemIdentifier' | 'database'>;
    readonly properties: DatabaseProperties;
    /** Every role that owners, grants, policies and settings name: a dump creates none. */
    readonly roles?: readonly string[];
  };
  readonly pgRestore: { readonly file: string; readonly major: number };
  /** What the fresh database's comment says of whose it is and until when. */
  readonly mark: Pick<DatabaseMark, 'service' | 'workflowId' | 'expiresAt'>;
  /** The profile's standbys with their administrators' addresses. */
  readonly standbys: readonly StandbyAccess[];
  readonly room: {
    readonly capacity: RestoreProfile['capacity'];
    /** Runs the profile's command. @returns what it printed */
    readonly freeBytes: () => Promise<string>;
  };
}

/** Name of the database a backup is restored into: tells the run, and a later attempt finds it again. */
export const freshDatabaseName = (database: string, runId: string): string =>
  boundedIdentifier(database, `_restore_${runTag(runId)}`);

/**
 * Restores a backup into a fresh database beside production and compares it with the backup's ledger. Production is only
 * read. What an earlier attempt of this run left under the same name is dropped first, sessions in it included: whatever
 * point that attempt was killed at, this one ends with one good database.
 *
 * @throws StepError `StepRefused` with every reason; and as `restoreBackup` does
 */
export async function restoreFresh(request: RestoreRequest): Promise<RestoreEvidence> {
  const { maintenanceDatabase, runId, step, signal } = request;
  const administrator = parseConnectionUrl(request.url);
  const production = administrator.database;
  const fresh = freshDatabaseName(production, runId);
  const elsewhere = inDatabase(administrator, maintenanceDatabase);
  const session: ConnectionOptions = { runId, step, signal, statementTimeout: 0, idleTimeout: 0 };

  request.progress({ phase: 'prepare', bytes: 0, of: request.dumpBytes, share: 0 });
  await withConnection(elsewhere, session, (client) =>
    reopenAfterInterruptedSwap(client, production, { fresh, runId }),
  );
  await withConnection(administrator, session, (client) => refuseForeignBackup(client, request.ledger.database));
  const { standbys } = request;
  const { findings } = await findWayBackBlockers({ administrator, maintenanceDatabase, standbys, session });
  await withConnection(elsewhere, session, async (client) => {
    await refuseEarly(client, production, request, findings);
    await dropLeftover(client, fresh, request);
    await requireRoom(client, production, request);
    await createDatabaseLike(client, production, fresh);
    const note = `It is to take the place of database ${production}.`;
    await markDatabase(client, fresh, { ...request.mark, kind: 'restore', runId, note });
  });
  const restored = await restoreBackup({ ...request, target: inDatabase(administrator, fresh) }).catch(
    (error: unknown) => {
      throw asUntouched(error);
    },
  );
  await withConnection(elsewhere, session, async (client) => {
    const current = await readDatabaseProperties(client, production);
    const findings = await applyProperties(client, restoredProperties(request.ledger.properties, current), fresh);
    if (findings.length > 0) throw refusal(findings);
  });
  return { freshDatabase: fresh, ...restored };
}

/** Whoever reads of a failed restore at night wants to know this first. */
const asUntouched = (error: unknown): unknown =>
  error instanceof StepError
    ? new StepError(error.type, `Production is untouched; ${error.message}`, error.details)
    : error;

/** Everything that would stop the restore or the swap later, before any work is done. */
async function refuseEarly(
  client: Client,
  production: string,
  { pgRestore: { major }, ledger: { roles = [] } }: RestoreRequest,
  blockers: readonly string[],
): Promise<void> {
  const { rows } = await client.query<{
    superuser: boolean;
    createdb: boolean;
    owner: string;
    member: boolean;
    major: number;
  }>(
    `SELECT r.rolsuper AS "superuser", r.rolcreatedb AS "createdb", pg_get_userbyid(d.datdba) AS "owner",
            pg_has_role(d.datdba, 'USAGE') AS "member", current_setting('server_version_num')::int / 10000 AS "major"
     FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = $1`,
    [production],
  );
  const facts = rows[0];
  if (facts === undefined) throw refusal([`database "${production}" does not exist`]);
  const findings = [...blockers];
  if (!facts.superuser && !facts.createdb) findings.push('the administrator lacks CREATEDB');
  if (!facts.member)
    findings.push(`the administrator has not the rights of role "${facts.owner}", which owns the database`);
  if (facts.major !== major) {
    findings.push(`pg_restore is of version ${major}, the server of version ${facts.major}: use the server's own`);
  }
  const missing = await client.query<{ name: string }>(
    'SELECT name FROM unnest($1::text[]) AS name WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) ORDER BY 1',
    [roles],
  );
  findings.push(
    ...missing.rows.map(
      ({ name }) =>
        `role "${name}", which what was backed up is owned by or granted to, does not exist any more: CREATE ROLE it again`,
    ),
  );
  if (findings.length > 0) throw refusal(findings);
}

/** One without a comment is from an attempt that died before it could mark it: the name tells the run. */
async function dropLeftover(client: Client, fresh: string, { runId, signal }: RestoreRequest): Promise<void> {
  const { rows } = await client.query<{ comment: string | null }>(
    `SELECT shobj_description(oid, 'pg_database') AS "comment" FROM pg_database WHERE datname = $1`,
    [fresh],
  );
  if (rows[0] === undefined) return;
  const { comment } = rows[0];
  const mark = parseDatabaseMark(comment);
  if (comment !== null && (mark?.kind !== 'restore' || mark.runId !== runId)) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `database "${fresh}" is in the way and not from this run: its comment says "${comment.slice(0, 300)}". Rename or drop it.`,
      { database: fresh },
    );
  }
  await endSessions(client, { of: { database: fresh }, signal });
  await client.query(`DROP DATABASE ${sqlName(fresh)}`);
}

async function requireRoom(client: Client, production: string, { room, standbys }: RestoreRequest): Promise<void> {
  const { findings } = await checkCapacity({
    ...room,
    standbys: standbys.map(({ name }) => name),
    need: await readCapacityNeed(client, production),
  });
  if (findings.length > 0) throw refusal(findings);
}
