import type { RecoveryActivities } from '../../contract/activities.ts';
import type { EvaluateInput } from '../../contract/evidence/rollback.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { type GuardedProduction, withGuardedProduction } from '../apply/production-guard.ts';
import { asReality, compareWithBefore, settleProduction } from '../apply/production-reading.ts';
import { type RunStore, withRunStore } from '../run-store.ts';

/** Reads what production really is. Nothing is concluded from exit codes, logs or time-outs. */
export const evaluateProduction =
  (deps: ActivityDependencies): RecoveryActivities['evaluateProduction'] =>
  (input) =>
    guarded(deps, input, 'recovery.evaluate', async (_tools, store, production) => {
      const { dropped, kept } = production.indexes;
      const { reading, found, droppedIndexes, invalidIndexes } = await settleProduction(
        input,
        readingOptions(production, 'recovery.evaluate'),
        store,
      );
      const { differences, notValidated } = await compareWithBefore(input, reading, store, production.signal);
      const stillInvalid = [...kept, ...invalidIndexes].map(({ name }) => name);
      const invalid = [...dropped, ...stillInvalid.filter((name) => !input.before.invalidIndexes.includes(name))];
      return {
        reality: asReality(found),
        versionRows: reading.state.versionRows,
        objectMapDigest: reading.state.objectMapDigest,
        differences: differences.slice(0, 200),
        leftovers: [
          ...[...new Set(invalid)].map((name) => `index ${name} (invalid)`),
          ...[...production.droppedEarlier, ...droppedIndexes]
            .filter((name) => !invalid.includes(name))
            .map((name) => `index ${name}`),
          ...notValidated,
        ].slice(0, 200),
        droppedInvalidIndexes: [...new Set([...production.droppedEarlier, ...dropped, ...droppedIndexes])],
        endedSessions: production.endedSessions,
      };
    });

function guarded<T>(
  deps: ActivityDependencies,
  input: EvaluateInput,
  step: string,
  work: (tools: StepTools, store: RunStore, production: GuardedProduction) => Promise<T>,
): Promise<T> {
  return runStep(deps.secrets, (tools) =>
    withRunStore(deps.secrets, input, tools.signal, (store) =>
      withGuardedProduction(
        deps,
        input,
        { step, signal: tools.signal, invalidBefore: input.before.invalidIndexes, store, progress: tools.progress },
        (production) => work(tools, store, production),
      ),
    ),
  );
}

const readingOptions = ({ administrator, migrator, signal }: GuardedProduction, step: string) => ({
  administrator,
  migratorRole: migrator.user,
  step,
  signal,
});
