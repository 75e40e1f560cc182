import type { DryRunActivities, ValidationActivities } from '../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { withConnection } from '../postgres/connection.ts';
import { parseConnectionUrl } from '../postgres/connection-url.ts';
import { keyOf } from '../postgres/object-map.ts';
import { compareChanges, compareMaps, countEffects, describeChange } from '../postgres/object-map-change.ts';
import { readProductionState } from '../postgres/production-state.ts';
import { expectationsFor, unmetExpectations } from '../postgres/schema-expectations.ts';
import { runStep } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { withRunStore } from './run-store.ts';
import { readStoredMap } from './upgrade-record.ts';

/** What a release changes in the schema: on staging, archived as a diff; in production, compared with staging. */
export function createSchemaActivities({
  secrets,
}: Pick<ActivityDependencies, 'secrets'>): Pick<DryRunActivities, 'diffSchema'> &
  Pick<ValidationActivities, 'validateSchema'> {
  return {
    diffSchema: (input) =>
      runStep(secrets, ({ signal }) =>
        withRunStore(secrets, input, signal, async (store) => {
          const before = await readStoredMap(store, input.staging.mapBefore, signal);
          const change = compareMaps(before, await readStoredMap(store, input.staging.mapAfter, signal));
          const text = `${describeChange(change).join('\n')}\n`;
          return {
            diff: await store.archive('dry-run/schema-diff.txt', text, 'text/plain'),
            added: change.added.map(keyOf).slice(0, 200),
            removed: change.removed.map(keyOf).slice(0, 200),
            changed: change.changed.map(keyOf).slice(0, 200),
          };
        }),
      ),

    validateSchema: (input) =>
      runStep(secrets, ({ signal }) =>
        withRunStore(secrets, input, signal, async (store) => {
          const { run, profile, before, staging } = input;
          const { administrator, migrator } = profile.databases.production;
          const { user: migratorRole } = parseConnectionUrl(await secrets.resolve(migrator, profile, signal));
          const { state, map } = await withConnection(
            await secrets.resolve(administrator, profile, signal),
            { runId: run.runId, step: 'validation.schema', signal },
            (client) => readProductionState(client, { versionTable: profile.alembic.versionTable, migratorRole }),
          );
          const change = compareMaps(await readStoredMap(store, before.objectMap, signal), map);
          const onStaging = compareMaps(
            await readStoredMap(store, staging.mapBefore, signal),
            await readStoredMap(store, staging.mapAfter, signal),
          );
          const expected = expectationsFor(profile.schema, run.releaseTag);
          const findings = [
            ...unmetExpectations(map, expected).map(({ kind, name }) => `${kind} ${name} is missing in production`),
            ...state.invalidIndexes
              .filter((name) => !before.invalidIndexes.includes(name))
              .map((name) => `index ${name} is invalid`),
            // A staging that stood at the target already has shown no change to compare with.
            ...(staging.nothingToDo ? [] : compareChanges(change, onStaging)),
          ];
          if (findings.length > 0) {
            throw new StepError(STEP_ERRORS.checkFailed, findings.slice(0, 10).join('; '), {
              findings: findings.slice(0, 200),
            });
          }
          return {
            expected: expected.map(({ kind, name }) => `${kind} ${name}`),
            changes: countEffects(change),
            versionRows: state.versionRows,
          };
        }),
      ),
  };
}
