import { findSwapBlockers } from './blockers.ts';
import { type ConnectionOptions, withConnection } from '../connection.ts';
import { type ConnectionTarget, inDatabase } from '../connection-url.ts';
import { type Blockers, findRestoreBlockers } from '../restore/restore-blockers.ts';
import { findStandbyBlockers, type StandbyAccess } from '../standbys.ts';

export interface WayBackInspection {
  /** Leads to the production database. */
  readonly administrator: ConnectionTarget;
  readonly maintenanceDatabase: string;
  readonly standbys: readonly StandbyAccess[];
  readonly session: ConnectionOptions;
}

/**
 * Everything that would stop a restore or the swap after it, on the server, inside production and on its standbys: asked
 * when access is inspected, before a restore, and before the swap.
 *
 * @throws StepError where production itself cannot be reached
 */
export async function findWayBackBlockers({
  administrator,
  maintenanceDatabase,
  standbys,
  session,
}: WayBackInspection): Promise<Blockers> {
  const { database } = administrator;
  const onServer = await withConnection(inDatabase(administrator, maintenanceDatabase), session, async (client) => [
    ...(await findSwapBlockers(client, database)),
    ...(await findStandbyBlockers(client, { database, maintenanceDatabase, standbys, session })),
  ]);
  const inside = await withConnection(administrator, session, findRestoreBlockers);
  return { findings: [...onServer, ...inside.findings], notes: inside.notes };
}
