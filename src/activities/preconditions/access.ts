import type { ApplyActivities, PreconditionActivities } from '../../contract/activities.ts';
import type { AccessEvidence } from '../../contract/evidence/preconditions.ts';
import type { StepInput } from '../../contract/evidence/step.ts';
import type { SecretReference } from '../../contract/profile.ts';
import { sha256 } from '../../archive/canonical.ts';
import { type DatabaseUrls, inspectDatabases } from '../../postgres/access.ts';
import { checkCapacity } from '../../postgres/restore/capacity.ts';
import { withConnection } from '../../postgres/connection.ts';
import { parseConnectionUrl } from '../../postgres/connection-url.ts';
import { Findings } from '../../postgres/findings.ts';
import { type ObjectMap, serializeObjectMap } from '../../postgres/catalog/object-map.ts';
import { compareMaps, describeChange } from '../../postgres/catalog/object-map-change.ts';
import { readProductionState } from '../../postgres/catalog/production-state.ts';
import { checkReplication } from '../../postgres/replication.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import { freeBytesReading } from '../capacity.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { inspectFenceAccess } from './fence-access.ts';
import { withRunStore } from '../run-store.ts';
import { standbyAccess } from '../standby-access.ts';
import { readStoredObjectMap } from '../stored-text.ts';

type Needed = Pick<ActivityDependencies, 'secrets' | 'stateDirectory'>;

export function createAccessActivities(
  dependencies: Needed,
): Pick<PreconditionActivities, 'inspectAccess'> & Pick<ApplyActivities, 'checkReplication' | 'inspectProduction'> {
  const { secrets } = dependencies;
  return {
    inspectAccess: (input) => runStep(secrets, (tools) => inspectAccess(dependencies, input, tools)),

    checkReplication: ({ run, profile }) =>
      runStep(secrets, async ({ signal }) => {
        const { production } = profile.databases;
        const url = await secrets.resolve(production.administrator, profile, signal);
        return withConnection(url, { runId: run.runId, step: 'apply.replication', signal }, (client) =>
          checkReplication(client, production, signal),
        );
      }),

    inspectProduction: (input) =>
      runStep(secrets, ({ signal, progress }) =>
        withRunStore(secrets, input, signal, async (store) => {
          const { run, profile, expected } = input;
          const { production } = profile.databases;
          const url = await secrets.resolve(production.administrator, profile, signal);
          const migrator = parseConnectionUrl(await secrets.resolve(production.migrator, profile, signal));
          progress({ phase: 'reading production' });
          const { state, map } = await withConnection(
            url,
            { runId: run.runId, step: 'apply.inspect', signal },
            (client) =>
              readProductionState(client, {
                versionTable: profile.alembic.versionTable,
                migratorRole: migrator.user,
              }),
          );
          // Named by its content: a later look must not replace what an earlier one is compared with.
          const text = serializeObjectMap(map);
          const objectMap = await store.record(`production/object-map-${sha256(text).slice(0, 16)}.json`, text);
          return {
            ...state,
            objectMap,
            ...(expected && { differences: differencesFrom(await readStoredObjectMap(store, expected, signal), map) }),
          };
        }),
      ),
  };
}

/** Of one database at two times: whatever differs counts, down to how a definition is written. */
const differencesFrom = (expected: ObjectMap, found: ObjectMap): readonly string[] =>
  describeChange(compareMaps(expected, found))
    .map((line) => line.slice(0, 400))
    .slice(0, 100);

/** One message with all that is missing: secrets, databases, roles, rights, bucket. */
async function inspectAccess(dependencies: Needed, input: StepInput, tools: StepTools): Promise<AccessEvidence> {
  const { secrets } = dependencies;
  const { signal, progress } = tools;
  const { run, profile } = input;
  const { production, staging, scratch } = profile.databases;
  const findings = new Findings();
  const resolved = (name: string, reference: SecretReference): Promise<string | undefined> =>
    findings.attempt(`databases.${name}`, () => secrets.resolve(reference, profile, signal));
  const urls: DatabaseUrls = {
    administrator: await resolved('production.administrator', production.administrator),
    migrator: await resolved('production.migrator', production.migrator),
    backup: await resolved('production.backup', production.backup),
    stagingAdministrator: await resolved('staging.administrator', staging.administrator),
    stagingMigrator: await resolved('staging.migrator', staging.migrator),
    scratchAdministrator: await resolved('scratch.administrator', scratch.administrator),
  };
  const standbys = await findings.attempt('databases.production.standbys', () =>
    standbyAccess(secrets, profile, signal),
  );
  const found = await inspectDatabases(
    {
      urls,
      standbys: standbys ?? [],
      production,
      runId: run.runId,
      step: 'preconditions.access',
      signal,
      progress: (looking) => progress({ looking }),
    },
    findings,
  );
  progress({ looking: 'room for a second copy' });
  const capacity =
    found.need &&
    (await checkCapacity({
      need: found.need,
      standbys: production.standbys.map(({ name }) => name),
      capacity: profile.restore.capacity,
      freeBytes: freeBytesReading(dependencies, input, tools),
    }));
  findings.add(...(capacity?.findings ?? []));
  progress({ looking: 'fence and restore points' });
  const reached = { administrator: urls.administrator, migrator: urls.migrator, production: found.production };
  const protection = await inspectFenceAccess(dependencies, input, tools, reached, findings);
  progress({ looking: 'bucket' });
  const bucket = await findings.attempt('backup bucket', () =>
    withRunStore(secrets, input, signal, async ({ store, folder }) => {
      findings.add(...(await store.probe(folder, signal)));
      return `${store.uri(folder)} at ${store.where}`;
    }),
  );
  findings.throwIfAny();
  const { migratorRole, rights, tls } = found;
  if (!found.production || !found.staging || !found.scratch || !migratorRole || !tls || !bucket || !capacity) {
    // What is missing without a finding was looked at without an answer: not access.
    throw new Error('the inspection of access is incomplete');
  }
  return {
    production: found.production,
    staging: found.staging,
    scratch: found.scratch,
    migratorRole,
    rights: [...rights, ...protection],
    tls,
    bucket,
    capacity: capacity.text,
  };
}
