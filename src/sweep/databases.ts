import type { Client } from 'pg';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { type DatabaseMark, listMarkedDatabases, readDatabaseSize } from '../postgres/restore/database-mark.ts';
import { sqlName } from '../postgres/identifier.ts';
import { dropKeptAside } from '../postgres/swap/quarantine.ts';
import { endSessions } from '../postgres/sessions.ts';
import { runStartedAt } from './run-time.ts';
import type { DatabaseServer, Leftover } from './leftover.ts';

type LeftoverDatabase = Leftover & { readonly kind: 'database' };

const STEPS: Readonly<Record<DatabaseMark['kind'], string>> = {
  restore: 'recovery.restore',
  'kept-aside': 'recovery.restore/swap',
  scratch: 'dry-run.rehearsal',
  drill: 'drill.restore',
};

/**
 * Databases of this server that carry a mark of the service. One without a mark is nobody's business here, whatever its
 * name.
 */
export async function findLeftoverDatabases(
  client: Client,
  server: DatabaseServer,
  service: string,
): Promise<LeftoverDatabase[]> {
  const databases = (await listMarkedDatabases(client)).filter(({ mark }) => mark.service === service);
  const found: LeftoverDatabase[] = [];
  for (const { name, oid, mark } of databases) {
    found.push({
      kind: 'database',
      purpose: mark.kind,
      server,
      name,
      oid,
      owner: { service, runId: mark.runId, workflowId: mark.workflowId, step: STEPS[mark.kind] },
      since: runStartedAt(mark.runId),
      expiresAt: mark.expiresAt,
      bytes: await readDatabaseSize(client, oid),
    });
  }
  return found;
}

/**
 * Drops a database that was found before, if it is still the one that was found: same OID, same mark. In a copy only this
 * project's own steps have anything to do, so whoever is in it is thrown out; one that was production goes through every
 * look that `dropKeptAside` takes.
 *
 * @param client in the maintenance database of its server
 * @throws StepError `StateUnexpected` where it is no longer what was found, `StepRefused` with the reasons to keep it
 */
export async function dropLeftoverDatabase(
  client: Client,
  leftover: LeftoverDatabase,
  { production, signal }: { readonly production: readonly string[]; readonly signal: AbortSignal },
): Promise<void> {
  const { name, purpose, owner, expiresAt } = leftover;
  const now = (await listMarkedDatabases(client)).find(({ oid }) => oid === leftover.oid);
  if (now === undefined || now.name !== name || now.mark.kind !== purpose || now.mark.runId !== owner.runId) {
    throw changed(`database "${name}" is no longer what was found: it was renamed, dropped or marked anew`);
  }
  if (now.mark.expiresAt !== expiresAt) {
    throw changed(`database "${name}" is now meant to stay until ${now.mark.expiresAt}`);
  }
  if (purpose === 'kept-aside') {
    await dropKeptAside(client, { name, production });
    return;
  }
  if (production.includes(name)) throw changed(`database "${name}" has production's name`);
  await endSessions(client, { of: { database: name }, signal });
  await client.query(`DROP DATABASE ${sqlName(name)}`);
}

const changed = (message: string): StepError => new StepError(STEP_ERRORS.stateUnexpected, message);
