import { readVersion } from '../../alembic/version-table.ts';
import { StepError } from '../../contract/errors.ts';
import type { SwapEvidence, SwapInput } from '../../contract/evidence/restore.ts';
import { withConnection } from '../../postgres/connection.ts';
import { swapDatabases } from '../../postgres/swap/swap.ts';
import type { StepTools } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { standbyAccess } from '../standby-access.ts';

export const SWAP = 'recovery.restore/swap';

/**
 * Swaps the restored database in. Its revisions are compared before anybody is shut out; after the deed nothing fails any
 * more, for production has been replaced: what is then found stands in the evidence.
 *
 * @param url of production's administrator
 */
export async function swapIn(
  { secrets }: Pick<ActivityDependencies, 'secrets'>,
  input: SwapInput,
  { signal, progress }: Pick<StepTools, 'signal' | 'progress'>,
  url: string,
): Promise<SwapEvidence> {
  const { run, profile, backup, restored } = input;
  const expected = [...backup.versionRows].sort().join(', ');
  const table = profile.alembic.versionTable;
  const swapped = await swapDatabases({
    url,
    maintenanceDatabase: profile.databases.production.maintenanceDatabase,
    fresh: restored.freshDatabase,
    runId: run.runId,
    workflowId: run.workflowId,
    service: run.service,
    quarantine: profile.restore.quarantine,
    step: SWAP,
    // restoreFresh has given it the backup's properties.
    carry: 'fence',
    standbys: await standbyAccess(secrets, profile, signal),
    inspectFresh: async (client) => {
      const found = revisions(await readVersion(client, table)).join(', ');
      return found === expected ? [] : [differs('the restored database', found, expected)];
    },
    signal,
    progress: (phase) => progress({ phase }),
  });
  const openItems = [...swapped.openItems];
  // Read through the name the application uses.
  const versionRows = await withConnection(url, { runId: run.runId, step: SWAP, signal }, async (client) =>
    revisions(await readVersion(client, table)),
  ).catch((error: unknown) => {
    if (!(error instanceof StepError)) throw error;
    openItems.push(`after the swap production could not be read: ${error.message}`);
    return undefined;
  });
  if (versionRows !== undefined && versionRows.join(', ') !== expected) {
    openItems.push(
      `${differs('after the swap production', versionRows.join(', '), expected)}; the old database is "${swapped.keptAside}"`,
    );
  }
  return { ...swapped, openItems, versionRows: versionRows ?? [] };
}

const revisions = (version: Awaited<ReturnType<typeof readVersion>>): readonly string[] =>
  version.kind === 'versioned' ? [...version.rows].sort() : [];

const differs = (what: string, found: string, expected: string): string =>
  `${what} stands at ${found || 'no revision'}, the backup at ${expected || 'no revision'}`;
