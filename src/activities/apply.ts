import { Context } from '@temporalio/activity';
import { upgrade } from '../alembic/upgrade.ts';
import type { RevisionStart } from '../alembic/barrier.ts';
import type { AlembicCommandFacts } from '../alembic/command.ts';
import { rowsAlongPath } from '../alembic/upgrade-path.ts';
import type { ApplyActivities } from '../contract/activities.ts';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { UpgradeEvidence, UpgradeInput } from '../contract/evidence.ts';
import { withConnection } from '../postgres/connection.ts';
import { serializeObjectMap } from '../postgres/catalog/object-map.ts';
import { describeSession, endSessions, oldTransactions } from '../postgres/sessions.ts';
import { runStep, type StepTools } from './activity-step.ts';
import { BoundedLog } from './bounded-log.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { type GuardedProduction, withGuardedProduction } from './production-guard.ts';
import { readProduction, settleProduction } from './production-reading.ts';
import { commandFor, environmentFor, releaseAlembic } from './release-alembic.ts';
import { type RunStore, withRunStore } from './run-store.ts';
import { boundaryMapName, hasStarted, recordBoundary, recordStart } from './upgrade-record.ts';

const STEP = 'apply.upgrade';

/**
 * `alembic upgrade` of the planned revision in production. Every attempt reads the database first: it upgrades from an
 * unchanged state, resumes from a clean one between two revisions, confirms a complete one, and stops at anything else.
 */
export const upgradeProduction =
  (deps: ActivityDependencies): ApplyActivities['upgradeProduction'] =>
  (input) =>
    runStep(deps.secrets, async (tools) => {
      const { runId } = Context.current().info.workflowExecution ?? {};
      if (runId !== input.planRunId) {
        throw refusal(['the workflow was reset after its approval: the approval is void for this execution']);
      }
      return withRunStore(deps.secrets, input, tools.signal, (store) =>
        withGuardedProduction(
          deps,
          input,
          { step: STEP, signal: tools.signal, invalidBefore: input.before.invalidIndexes, progress: tools.progress },
          (production) => upgradeFromReality(deps, input, tools, store, production),
        ),
      );
    });

async function upgradeFromReality(
  deps: ActivityDependencies,
  input: UpgradeInput,
  tools: StepTools,
  store: RunStore,
  production: GuardedProduction,
): Promise<UpgradeEvidence> {
  const reading = readingOptions(production);
  const { found, droppedIndexes } = await settleProduction(input, reading, store);
  const done = (how: UpgradeEvidence['how'], milliseconds: number): UpgradeEvidence => ({
    revisions: [input.graph.targetRevision],
    milliseconds,
    how,
    droppedInvalidIndexes: [...production.indexes.dropped, ...droppedIndexes],
    endedSessions: production.endedSessions,
  });
  if (found.kind !== 'unchanged' && !(await hasStarted(store, production.signal))) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      'production was changed by somebody else after it was looked at: look at what changed, then decide',
      { found },
    );
  }
  switch (found.kind) {
    case 'fully-applied':
      return done('already-applied', 0);
    case 'foreign':
      throw new StepError(STEP_ERRORS.stateUnexpected, found.why, { found });
    case 'partly-applied':
      if (found.clean !== 'yes') throw new StepError(STEP_ERRORS.stateUnexpected, found.why, { found });
      break;
    case 'unchanged':
      break;
  }
  await refuseOldTransactions(input, production);
  await recordStart(store, tools.attempt);
  const { facts, log } = await runUpgrade(deps, input, tools, store, production);
  await confirm(deps, input, production, facts);
  const evidence = done(found.kind === 'unchanged' ? 'upgraded' : 'resumed', facts.result.durationMilliseconds);
  return { ...evidence, log };
}

const readingOptions = ({ administrator, migrator, signal }: GuardedProduction) => ({
  administrator,
  migratorRole: migrator.user,
  step: STEP,
  signal,
});

/** A lock the migration wants would wait for them, and the application would wait behind that lock. */
async function refuseOldTransactions({ run, profile }: UpgradeInput, production: GuardedProduction): Promise<void> {
  const age = profile.databases.production.maximumTransactionAge;
  const old = await withConnection(
    production.administrator,
    { runId: run.runId, step: STEP, signal: production.signal },
    (client) => oldTransactions(client, age),
  );
  if (old.length > 0) {
    throw refusal(
      old
        .slice(0, 10)
        .map(
          (session) =>
            `a transaction is open longer than ${age} ms: ${describeSession(session)}; end it and start again`,
        ),
    );
  }
}

async function runUpgrade(
  deps: ActivityDependencies,
  input: UpgradeInput,
  tools: StepTools,
  store: RunStore,
  production: GuardedProduction,
) {
  const { run, profile, graph } = input;
  const release = await releaseAlembic(deps, input, tools);
  const environment = environmentFor(release, production.migrator, profile.alembic, run);
  const log = new BoundedLog();
  let revision = '';
  let line = '';
  const report = (): void => tools.progress({ phase: 'alembic upgrade', target: graph.targetRevision, revision, line });

  const atBoundary = async (start: RevisionStart): Promise<void> => {
    revision = start.revision;
    report();
    // Inside a transaction that is still open nothing is durable, so there is nothing to write down.
    if (!start.committed) return;
    const { state, map } = await readProduction(input, readingOptions(production));
    const next = graph.path.find((entry) => entry.revision === start.revision);
    const objectMap =
      next?.transactional === 'yes'
        ? undefined
        : await store.record(boundaryMapName(start.revision), serializeObjectMap(map));
    await recordBoundary(store, {
      before: start.revision,
      rows: state.versionRows,
      objectMapDigest: state.objectMapDigest,
      ...(objectMap && { objectMap }),
      at: new Date().toISOString(),
    });
  };

  try {
    const facts = await upgrade({
      ...commandFor(release, environment, profile.alembic.commands.upgrade),
      target: graph.targetRevision,
      signal: production.signal,
      redactor: deps.secrets.redactor,
      atBoundary,
      onLine: (stream, text) => {
        log.add(stream, text);
        line = text.slice(0, 300);
        report();
      },
    });
    return { facts, log: await store.archive('apply/alembic.log', log.text, 'text/plain') };
  } catch (error) {
    await store.archive('apply/alembic.log', log.text, 'text/plain').catch(() => undefined);
    throw error;
  }
}

/** The exit code is a hint, the database is the answer. */
async function confirm(
  deps: ActivityDependencies,
  input: UpgradeInput,
  production: GuardedProduction,
  { command, result }: AlembicCommandFacts,
): Promise<void> {
  await withConnection(
    production.administrator,
    { runId: input.run.runId, step: STEP, signal: production.signal },
    (client) => endSessions(client, { of: { role: production.migrator.user }, signal: production.signal }),
  );
  if (result.kind !== 'exited' || result.code !== 0) {
    const ending = result.kind === 'exited' ? `code ${result.code}` : result.signal;
    const tail = deps.secrets.redactor.redact(result.stderrTail.trim() || result.stdoutTail.trim());
    throw new StepError(STEP_ERRORS.processFailed, `alembic ${command} ended with ${lastWords(ending, tail)}`, {
      ending,
    });
  }
  const { state } = await readProduction(input, readingOptions(production));
  const wanted = expectedRows(input);
  if (state.versionRows.join() !== wanted.join()) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `alembic ${command} ended with code 0, but production stands at ${state.versionRows.join(', ') || 'no revision'} instead of ${wanted.join(', ')}: does env.py use the address it is given?`,
    );
  }
}

const expectedRows = ({ graph, before }: UpgradeInput): readonly string[] =>
  rowsAlongPath(before.versionRows, graph.path).at(-1) ?? before.versionRows;

/** A program's last words, the exception that a Python traceback ends with first: the cause before the way to it. */
export function lastWords(ending: string, text: string): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  if (lines.length === 0)
    return ending.startsWith('SIG') ? `${ending} from outside (out of memory, or somebody’s kill)` : ending;
  const cause = lines.findLastIndex((line) =>
    /^[A-Za-z_][\w.]*(Error|Exception|Violation|Interrupt|Exit)\b/.test(line),
  );
  const shown = cause < 0 ? lines.slice(-6) : lines.slice(cause, cause + 6);
  return `${ending}: ${shown.join(' | ').slice(0, 1200)}`;
}
