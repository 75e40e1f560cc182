/** What a swap writes down about itself in the comments of the databases, and what a later attempt reads there. */
import type { Client } from 'pg';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import { type DatabaseMark, listMarkedDatabases, parseDatabaseMark } from '../restore/database-mark.ts';
import { sqlName } from '../identifier.ts';

export interface DatabaseState {
  readonly oid: number;
  readonly name: string;
  readonly open: boolean;
  readonly comment: string | null;
}

export async function databaseNamed(client: Client, name: string): Promise<DatabaseState | undefined> {
  const { rows } = await client.query<DatabaseState>(
    `SELECT oid::int8::float8 AS "oid", datname AS "name", datallowconn AS "open", shobj_description(oid, 'pg_database') AS "comment"
     FROM pg_database WHERE datname = $1`,
    [name],
  );
  return rows[0];
}

/** Whose swap it is. */
export interface SwapIdentity {
  readonly runId: string;
  readonly service: string;
  readonly workflowId: string;
  /** Milliseconds the replaced database is to be kept aside. */
  readonly quarantine: number;
}

const marked = (
  { runId, service, workflowId, quarantine }: SwapIdentity,
  more: Pick<DatabaseMark, 'kind' | 'note' | 'facts'>,
): DatabaseMark => ({
  runId,
  service,
  workflowId,
  expiresAt: new Date(Date.now() + quarantine).toISOString(),
  ...more,
});

/** Stands on the restored database before production is closed: the mark comes before the deed. */
export const closingMark = (identity: SwapIdentity, production: string): DatabaseMark =>
  marked(identity, {
    kind: 'restore',
    note: `Database "${production}" was closed to connections at ${new Date().toISOString()}, to put this one in its place.`,
    facts: { closed: production },
  });

/** What the swap was, for whoever asks when the answer was lost. */
export interface SwapRecord {
  readonly keptAside: string;
  /** OID of the restored database, which is production now. */
  readonly replacedBy: number;
  /** Milliseconds. */
  readonly shutOut: number;
  readonly endedSessions: number;
}

/** Stands on the replaced database from the same transaction on that changes the names. */
export const keptAsideMark = (identity: SwapIdentity, production: string, record: SwapRecord): DatabaseMark =>
  marked(identity, {
    kind: 'kept-aside',
    note: `Was database "${production}" until the one with OID ${record.replacedBy} took its place (${record.shutOut} ms without connections, ${record.endedSessions} sessions ended). Closed to connections; drop it once nothing in it is needed any more.`,
    facts: { production, ...record },
  });

/** The record of the swap that put this database in production's place, by this run; undefined = there was none. */
export async function findSwapRecord(
  client: Client,
  production: Pick<DatabaseState, 'oid'>,
  runId: string,
): Promise<(SwapRecord & { readonly oid: number; readonly quarantineUntil: string }) | undefined> {
  for (const { oid, name, mark } of await listMarkedDatabases(client)) {
    if (mark.kind !== 'kept-aside' || mark.runId !== runId || mark.facts?.['replacedBy'] !== production.oid) continue;
    return {
      oid,
      keptAside: name,
      replacedBy: production.oid,
      shutOut: Number(mark.facts['shutOut']),
      endedSessions: Number(mark.facts['endedSessions']),
      quarantineUntil: mark.expiresAt,
    };
  }
  return undefined;
}

const isClosing = (fresh: DatabaseState | undefined, production: string, runId: string): boolean => {
  const mark = parseDatabaseMark(fresh?.comment, fresh?.oid);
  return mark?.kind === 'restore' && mark.runId === runId && mark.facts?.['closed'] === production;
};

/**
 * Lets connections in again that an interrupted swap of this run had shut out: asked in the maintenance database before
 * anything needs to look into production. A database that somebody else has closed is left as it is.
 *
 * @param client of the administrator, in the maintenance database
 */
export async function reopenAfterInterruptedSwap(
  client: Client,
  production: string,
  { fresh, runId }: { readonly fresh: string; readonly runId: string },
): Promise<void> {
  const restored = await databaseNamed(client, fresh);
  if (restored === undefined || !isClosing(restored, production, runId)) return;
  for (const name of [production, fresh]) {
    if ((await databaseNamed(client, name))?.open === false) {
      await client.query(`ALTER DATABASE ${sqlName(name)} ALLOW_CONNECTIONS true`);
    }
  }
}

/** @throws StepError `StateUnexpected` */
export function requireOpen(database: DatabaseState): void {
  if (database.open) return;
  throw new StepError(
    STEP_ERRORS.stateUnexpected,
    `database "${database.name}" accepts no connections (ALLOW_CONNECTIONS false), and it was not this run that closed it`,
    { database: database.name },
  );
}
