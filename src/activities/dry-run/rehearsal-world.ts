import { Context } from '@temporalio/activity';
import type { StepInput } from '../../contract/evidence/step.ts';
import { withConnection } from '../../postgres/connection.ts';
import { parseConnectionUrl } from '../../postgres/connection-url.ts';
import { readImitatedRole } from '../../rehearsal/imitated-role.ts';
import type { ImitatedRole, ScratchWorld } from '../../rehearsal/scratch-world.ts';
import type { ActivityDependencies } from '../dependencies.ts';

/** What lasts longer than this is running still, and is left alone for that. */
const EXPIRES_AFTER = 24 * 60 * 60 * 1000;

/** The scratch server as this step of this run uses it. */
export async function scratchWorld(
  { secrets }: Pick<ActivityDependencies, 'secrets'>,
  { run, profile }: StepInput,
  signal: AbortSignal,
): Promise<ScratchWorld> {
  return {
    url: await secrets.resolve(profile.databases.scratch.administrator, profile, signal),
    runId: run.runId,
    step: Context.current().info.activityId,
    signal,
    service: run.service,
    workflowId: run.workflowId,
    expiresAt: new Date(Date.now() + EXPIRES_AFTER).toISOString(),
  };
}

/** How production's migrator and the service's own role act there, read as the backup role. */
export async function productionRoles(
  { secrets }: Pick<ActivityDependencies, 'secrets'>,
  { run, profile }: StepInput,
  signal: AbortSignal,
): Promise<{ readonly migrator: ImitatedRole; readonly application: ImitatedRole }> {
  const { production } = profile.databases;
  const resolved = (reference: typeof production.backup): Promise<string> =>
    secrets.resolve(reference, profile, signal);
  const migrator = parseConnectionUrl(await resolved(production.migrator)).user;
  const application =
    production.application === undefined
      ? production.applicationRoles[0]
      : parseConnectionUrl(await resolved(production.application)).user;
  const session = { runId: run.runId, step: Context.current().info.activityId, signal };
  return withConnection(await resolved(production.backup), session, async (client) => ({
    migrator: await readImitatedRole(client, { part: 'migrator', name: migrator }),
    // A profile without application roles: the migrator is the only one that is known to reach the tables.
    application: await readImitatedRole(client, { part: 'application', name: application ?? migrator }),
  }));
}
