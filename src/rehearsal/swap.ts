/** The last part of a restore, timed: a restored database takes the place of an upgraded one while somebody is connected. */
import { readVersion } from '../alembic/version-table.ts';
import type { AlembicProfile } from '../contract/profile.ts';
import type { RehearsalSwap } from '../contract/evidence/rehearsal.ts';
import { withConnection } from '../postgres/connection.ts';
import { type ConnectionTarget, parseConnectionUrl } from '../postgres/connection-url.ts';
import { sqlName } from '../postgres/identifier.ts';
import { databaseMark } from '../postgres/restore/database-mark.ts';
import { scratchSession } from '../postgres/restore/scratch-copy.ts';
import { type SwapPhase, swapDatabases } from '../postgres/swap/swap.ts';
import { dropSwapped, withTrialCopy } from './scratch.ts';
import type { ScratchWorld } from './scratch-world.ts';
import { type Client, escapeLiteral } from 'pg';

export interface SwapTrial {
  readonly world: ScratchWorld;
  /** The restored database: copies of it play both parts, for a swap looks into neither. */
  readonly pristine: string;
  readonly versionTable: AlembicProfile['versionTable'];
  readonly progress: (phase: SwapPhase | 'copies') => void;
}

/** Milliseconds. Shorter than the copies themselves are kept: a sweep takes it before the one that took its place. */
const QUARANTINE = 3_600_000;

/** Swaps as production is swapped, by the same code, and drops both databases. */
export async function timeSwap({ world, pristine, versionTable, progress }: SwapTrial): Promise<RehearsalSwap> {
  progress('copies');
  await dropSwapped(world);
  try {
    return await withTrialCopy(world, { of: pristine, purpose: 'swap' }, (replaced) =>
      withTrialCopy(world, { of: pristine, purpose: 'swap_fresh' }, async (fresh) => {
        await markWithoutOid(world, replaced.database);
        // Somebody is connected, as in production.
        return withConnection(replaced, world, () => swap({ world, versionTable, progress }, replaced, fresh));
      }),
    );
  } finally {
    await dropSwapped({ ...world, signal: AbortSignal.timeout(60_000) }).catch(() => undefined);
  }
}

async function swap(
  { world, versionTable, progress }: Omit<SwapTrial, 'pristine'>,
  replaced: ConnectionTarget,
  fresh: ConnectionTarget,
): Promise<RehearsalSwap> {
  const began = performance.now();
  const { shutOut } = await swapDatabases({
    ...world,
    url: replaced,
    maintenanceDatabase: parseConnectionUrl(world.url).database,
    fresh: fresh.database,
    quarantine: QUARANTINE,
    carry: 'fence',
    standbys: [],
    inspectFresh: async (client: Client) => {
      await readVersion(client, versionTable);
      return [];
    },
    progress,
  });
  return { shutOut, milliseconds: Math.round(performance.now() - began) };
}

/** The comment goes over to the database that takes the name: without an OID it is a mark there as well. */
async function markWithoutOid(world: ScratchWorld, name: string): Promise<void> {
  const { service, runId, workflowId, expiresAt } = world;
  const note = 'It takes part in a rehearsed swap.';
  const text = databaseMark({ kind: 'scratch', service, runId, workflowId, expiresAt, note });
  await withConnection(world.url, scratchSession(world), (client) =>
    client.query(`COMMENT ON DATABASE ${sqlName(name)} IS ${escapeLiteral(text)}`),
  );
}
