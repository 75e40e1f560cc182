import type { RehearsalActivities } from '../../contract/activities.ts';
import type { Freshness, FreshnessInput } from '../../contract/evidence/rehearsal.ts';
import { withConnection } from '../../postgres/connection.ts';
import { readIdentity } from '../../postgres/identity.ts';
import { dropRehearsal } from '../../rehearsal/scratch.ts';
import { timeSwap } from '../../rehearsal/swap.ts';
import { resolveTag } from '../../repository/checkout.ts';
import { runStep } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { scratchWorld } from './rehearsal-world.ts';
import { restoreOnScratch } from '../backup/scratch-restore.ts';

type Needed = Pick<ActivityDependencies, 'secrets'>;

export function createRehearsalScratchActivities(dependencies: Needed): Omit<RehearsalActivities, 'rehearseMigration'> {
  const { secrets } = dependencies;
  return {
    restoreForRehearsal: (input) =>
      runStep(secrets, async (tools) => {
        const world = await scratchWorld(dependencies, input, tools.signal);
        return restoreOnScratch(dependencies, input, { world, kind: 'scratch', backup: input.backup }, tools);
      }),

    rehearseSwap: (input) =>
      runStep(secrets, async ({ signal, progress }) =>
        timeSwap({
          world: await scratchWorld(dependencies, input, signal),
          pristine: input.restore.database,
          versionTable: input.profile.alembic.versionTable,
          progress: (phase) => progress({ phase }),
        }),
      ),

    dropRehearsal: (input) =>
      runStep(secrets, async ({ signal }) => ({
        dropped: await dropRehearsal(await scratchWorld(dependencies, input, signal)),
      })),

    checkFreshness: (input) => runStep(secrets, ({ signal }) => checkFreshness(dependencies, input, signal)),
  };
}

async function checkFreshness(
  { secrets }: Needed,
  { run, profile, commit: rehearsedCommit, rehearsed }: FreshnessInput,
  signal: AbortSignal,
): Promise<Freshness> {
  const { url } = profile.repository;
  const commit = await resolveTag({ url, tag: run.releaseTag, signal, redactor: secrets.redactor });
  const backup = await secrets.resolve(profile.databases.production.backup, profile, signal);
  const session = { runId: run.runId, step: 'checkFreshness', signal };
  const { sizeBytes: databaseBytes } = await withConnection(backup, session, readIdentity);
  const { maximumGrowth } = profile.rehearsal;
  const expired: string[] = [];
  if (commit !== rehearsedCommit) {
    expired.push(
      `the tag ${run.releaseTag} names ${commit.slice(0, 12)} now, rehearsed was ${rehearsedCommit.slice(0, 12)}`,
    );
  }
  if (databaseBytes > rehearsed.databaseBytes * (1 + maximumGrowth)) {
    const growth = Math.round((databaseBytes / rehearsed.databaseBytes - 1) * 100);
    expired.push(
      `production has grown by ${growth} % since, to ${databaseBytes} bytes; ${Math.round(maximumGrowth * 100)} % are allowed (rehearsal.maximumGrowth)`,
    );
  }
  return { expired, commit, databaseBytes };
}
