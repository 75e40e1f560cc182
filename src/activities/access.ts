import type { ApplyActivities, PreconditionActivities } from '../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { AccessEvidence, StepInput } from '../contract/evidence.ts';
import type { SecretReference } from '../contract/profile.ts';
import { inspectDatabases, type DatabaseUrls } from '../postgres/access.ts';
import { withConnection } from '../postgres/connection.ts';
import { parseConnectionUrl } from '../postgres/connection-url.ts';
import { Findings } from '../postgres/findings.ts';
import { serializeObjectMap } from '../postgres/object-map.ts';
import { readProductionState } from '../postgres/production-state.ts';
import { checkReplication as readReplication } from '../postgres/replication.ts';
import { runStep, type StepTools } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { withRunStore } from './run-store.ts';

type Offered = Pick<PreconditionActivities, 'inspectAccess'> &
  Pick<ApplyActivities, 'checkReplication' | 'inspectProduction'>;

/** Reading what the run will work on: every database and the bucket, the standbys, production right before the change. */
export function createAccessActivities({ secrets }: Pick<ActivityDependencies, 'secrets'>): Offered {
  const administratorUrl = ({ profile }: StepInput, signal: AbortSignal): Promise<string> =>
    secrets.resolve(profile.databases.production.administrator, profile, signal);

  return {
    inspectAccess: (input) =>
      runStep(secrets, async (tools) => {
        const findings = new Findings();
        const found = await inspectDatabases(
          {
            urls: await resolveUrls(secrets, input, tools, findings),
            production: input.profile.databases.production,
            runId: input.run.runId,
            step: 'preconditions.access',
            signal: tools.signal,
            progress: (looking) => tools.progress({ phase: 'databases', looking }),
          },
          findings,
        );
        tools.progress({ phase: 'bucket' });
        await findings.attempt('bucket', () =>
          withRunStore(secrets, input, tools.signal, async ({ store, folder }) => {
            findings.add(...(await store.probe(folder, tools.signal)));
          }),
        );
        findings.throwIfAny();
        const { production, staging, scratch, migratorRole, tls, rights } = found;
        if (!production || !staging || !scratch || migratorRole === undefined) {
          throw new StepError(STEP_ERRORS.unavailable, 'the databases could not be looked at completely');
        }
        const evidence: AccessEvidence = {
          production,
          staging,
          scratch,
          migratorRole,
          rights,
          tls: tls ?? 'unknown',
          bucket: input.profile.backup.bucket,
        };
        return evidence;
      }),

    checkReplication: (input) =>
      runStep(secrets, async ({ signal }) =>
        withConnection(
          await administratorUrl(input, signal),
          { runId: input.run.runId, step: 'apply.replication', signal },
          (client) => readReplication(client, input.profile.databases.production, signal),
        ),
      ),

    inspectProduction: (input) =>
      runStep(secrets, async ({ signal }) => {
        const { run, profile } = input;
        const migrator = parseConnectionUrl(
          await secrets.resolve(profile.databases.production.migrator, profile, signal),
        );
        const { state, map } = await withConnection(
          await administratorUrl(input, signal),
          { runId: run.runId, step: 'apply.refresh-backup', signal },
          (client) =>
            readProductionState(client, { versionTable: profile.alembic.versionTable, migratorRole: migrator.user }),
        );
        const objectMap = await withRunStore(secrets, input, signal, (store) =>
          store.archive('apply/object-map-before.json', serializeObjectMap(map), 'application/json'),
        );
        return { ...state, objectMap };
      }),
  };
}

async function resolveUrls(
  secrets: ActivityDependencies['secrets'],
  { profile }: StepInput,
  { signal }: StepTools,
  findings: Findings,
): Promise<DatabaseUrls> {
  const { production, staging, scratch } = profile.databases;
  const resolve = (subject: string, reference: SecretReference): Promise<string | undefined> =>
    findings.attempt(subject, () => secrets.resolve(reference, profile, signal));
  return {
    administrator: await resolve('databases.production.administrator', production.administrator),
    migrator: await resolve('databases.production.migrator', production.migrator),
    backup: await resolve('databases.production.backup', production.backup),
    stagingAdministrator: await resolve('databases.staging.administrator', staging.administrator),
    stagingMigrator: await resolve('databases.staging.migrator', staging.migrator),
    scratchAdministrator: await resolve('databases.scratch.administrator', scratch.administrator),
  };
}
