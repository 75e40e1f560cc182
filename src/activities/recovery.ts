import { type DowngradeCommand, downgradePlan } from '../alembic/downgrade-plan.ts';
import { downgrade } from '../alembic/downgrade.ts';
import type { RecoveryActivities } from '../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { EvaluateInput, RollbackEvidence } from '../contract/evidence.ts';
import { runStep, type StepTools } from './activity-step.ts';
import { lastWords } from './apply.ts';
import { BoundedLog } from './bounded-log.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { type GuardedProduction, withGuardedProduction } from './production-guard.ts';
import {
  asReality,
  compareWithBefore,
  differencesFromBefore,
  readProduction,
  settleProduction,
} from './production-reading.ts';
import { commandFor, environmentFor, releaseAlembic, releaseGraph } from './release-alembic.ts';
import { type RunStore, withRunStore } from './run-store.ts';

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
          ...droppedIndexes.filter((name) => !invalid.includes(name)).map((name) => `index ${name}`),
          ...notValidated,
        ].slice(0, 200),
        droppedInvalidIndexes: [...dropped, ...droppedIndexes],
        endedSessions: production.endedSessions,
      };
    });

/**
 * The downgrade to the revisions recorded before the upgrade, planned from where production stands now, compared with the
 * version rows after each command and with the object map at the end.
 *
 * @throws StepError `ProcessFailed` when a downgrade fails, `StateUnexpected` when objects differ from before
 */
export const rollBackProduction =
  (deps: ActivityDependencies): RecoveryActivities['rollBackProduction'] =>
  (input) =>
    guarded(deps, input, 'recovery.rollback', (tools, store, production) =>
      rollBack(deps, input, tools, store, production),
    );

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
        { step, signal: tools.signal, invalidBefore: input.before.invalidIndexes, progress: tools.progress },
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

async function rollBack(
  deps: ActivityDependencies,
  input: EvaluateInput,
  tools: StepTools,
  store: RunStore,
  production: GuardedProduction,
): Promise<RollbackEvidence> {
  const { run, profile, before } = input;
  const reading = readingOptions(production, 'recovery.rollback');
  const release = await releaseAlembic(deps, input, tools);
  const from = (await readProduction(input, reading)).state.versionRows;
  const plan = downgradePlan(await releaseGraph(deps, release, production.signal), from, before.versionRows);
  if (plan.kind === 'impossible')
    throw new StepError(STEP_ERRORS.refused, `no downgrade from ${from.join(', ')}: ${plan.why}`);

  const log = new BoundedLog();
  const started = Date.now();
  let command = '';
  const facts = await downgrade({
    ...commandFor(
      release,
      environmentFor(release, production.migrator, profile.alembic, run),
      profile.alembic.commands.downgrade,
    ),
    commands: plan.commands,
    signal: production.signal,
    redactor: deps.secrets.redactor,
    onLine: (stream, line) => {
      log.add(stream, line);
      tools.progress({ phase: 'alembic downgrade', command, line: line.slice(0, 300) });
    },
    afterCommand: async (index, done) => {
      command = done.command;
      await compareRows(input, production, plan.commands[index]);
    },
  });
  const stored = await store.archive('recovery/alembic.log', log.text, 'text/plain');
  const failed = facts.find(({ result }) => result.kind !== 'exited' || result.code !== 0);
  if (failed) {
    const { result } = failed;
    const ending = result.kind === 'exited' ? `code ${result.code}` : result.signal;
    throw new StepError(
      STEP_ERRORS.processFailed,
      `alembic ${failed.command} ended with ${lastWords(ending, deps.secrets.redactor.redact(result.stderrTail.trim()))}`,
    );
  }
  const after = await readProduction(input, reading);
  const differences = await differencesFromBefore(input, after, store, production.signal);
  if (differences.length > 0) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `the downgrade went through, but ${differences.length} object(s) are not as before: ${differences.slice(0, 5).join('; ')}`,
      { differences: differences.slice(0, 100) },
    );
  }
  return {
    commands: plan.commands.map(({ argument }) => argument),
    versionRows: after.state.versionRows,
    milliseconds: Date.now() - started,
    objects: 'equal',
    differences: [],
    log: stored,
  };
}

async function compareRows(
  input: EvaluateInput,
  production: GuardedProduction,
  command: DowngradeCommand | undefined,
): Promise<void> {
  const { state } = await readProduction(input, readingOptions(production, 'recovery.rollback'));
  if (command && state.versionRows.join() !== command.rowsAfter.join()) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `after "downgrade ${command.argument}" production stands at ${state.versionRows.join(', ') || 'no revision'}, planned was ${command.rowsAfter.join(', ') || 'no revision'}`,
    );
  }
}
