import type { DatabaseIdentity } from '../../contract/evidence/production.ts';
import type { StepInput } from '../../contract/evidence/step.ts';
import { withConnection } from '../../postgres/connection.ts';
import { inDatabase, parseConnectionUrl } from '../../postgres/connection-url.ts';
import { findFenceRights, readFence } from '../../postgres/fence/fence.ts';
import { inspectServiceLogin } from '../../postgres/fence/fence-trial.ts';
import type { Findings } from '../../postgres/findings.ts';
import { recoveryPointFindings } from '../../postgres/fence/recovery-point.ts';
import type { StepTools } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';

interface Reached {
  readonly administrator: string | undefined;
  readonly migrator: string | undefined;
  readonly production: DatabaseIdentity | undefined;
}

/**
 * Can what the profile asks for be done when its time comes: fence, restore point? What is wrong goes into `findings`;
 * where production was not reached, that is one already.
 *
 * @returns what was found to be possible
 */
export async function inspectFenceAccess(
  { secrets }: Pick<ActivityDependencies, 'secrets'>,
  { run, profile }: StepInput,
  { signal }: Pick<StepTools, 'signal'>,
  { administrator, migrator, production }: Reached,
  findings: Findings,
): Promise<readonly string[]> {
  if (administrator === undefined || migrator === undefined || production === undefined) return [];
  const { application, applicationRoles, maintenanceDatabase } = profile.databases.production;
  const session = { runId: run.runId, step: 'preconditions.access', signal };
  const maintenance = inDatabase(parseConnectionUrl(administrator), maintenanceDatabase);
  const possible: string[] = [];
  if (profile.fence.kind === 'read-only') {
    await findings.attempt('fence', async () => {
      const { database } = production;
      const roles = { database, migratorRole: parseConnectionUrl(migrator).user, applicationRoles };
      const missing = await withConnection(maintenance, session, (client) => findFenceRights(client, roles));
      findings.add(...missing.map((text) => `fence: ${text}`));
      const request = { ...roles, signal, progress: () => undefined };
      const { state } = await withConnection(maintenance, session, (client) => readFence(client, request));
      if (state === 'engaged') {
        findings.add(
          `fence: database "${database}" is behind a fence already. A run that was terminated has left it, or somebody has set it: lift it (operator's guide, "The fence"), for a run leaves things as it found them`,
        );
      }
      if (missing.length === 0) possible.push(`administrator: may set database "${database}" read-only`);
    });
    await findings.attempt('fence', async () => {
      if (application === undefined) {
        findings.add('fence: databases.production.application is missing: the fence is tried as the service itself');
        return;
      }
      const url = await secrets.resolve(application, profile, signal);
      await inspectServiceLogin({ url, applicationRoles, production, session });
      possible.push('application: leads to production, to try the fence with');
    });
  }
  if (profile.recoveryPoint.restorePoint) {
    await findings.attempt('recoveryPoint.restorePoint', async () => {
      const missing = await withConnection(maintenance, session, recoveryPointFindings);
      findings.add(...missing);
      if (missing.length === 0) possible.push('administrator: may set restore points');
    });
  }
  return possible;
}
