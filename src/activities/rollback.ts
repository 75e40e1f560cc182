import { setTimeout as pause } from 'node:timers/promises';
import type { AlembicCommandFacts } from '../alembic/command.ts';
import { downgrade } from '../alembic/downgrade.ts';
import { downgradePlan } from '../alembic/downgrade-plan.ts';
import type { RecoveryActivities } from '../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { RollbackEvidence, RollbackInput } from '../contract/evidence.ts';
import type { ProductionReading } from '../postgres/catalog/production-state.ts';
import { isLeftover } from '../rehearsal/leftovers.ts';
import { objectDifferences } from '../rehearsal/object-difference.ts';
import { runStep, type StepTools } from './activity-step.ts';
import { lastWords } from '../process/last-words.ts';
import { BoundedLog } from './bounded-log.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { type GuardedProduction, withGuardedProduction } from './production-guard.ts';
import { readProduction } from './production-reading.ts';
import { withProvenStop } from './proven-stop.ts';
import { commandFor, environmentFor, type ReleaseAlembic, releaseAlembic, releaseGraph } from './release-alembic.ts';
import { RollbackArrivals } from './rollback-arrivals.ts';
import { type RunStore, withRunStore } from './run-store.ts';
import { readStoredObjectMap } from './stored-text.ts';

const STEP = 'recovery.rollback';

/**
 * The downgrade to the revisions recorded before the upgrade, planned from where production stands now, compared with the
 * version rows after each command and with the object map at the end. A lock that cannot be had in time is tried again.
 * What it drops is counted once more where nobody can add to it any more: see `RollbackArrivals`.
 *
 * @throws StepError `CheckFailed` when something came since it was counted, `ProcessFailed` when a downgrade fails,
 * `StateUnexpected` when version rows are not as planned, or objects neither as before nor as the rehearsed downgrade left them
 */
export const rollBackProduction =
  (deps: ActivityDependencies): RecoveryActivities['rollBackProduction'] =>
  (input) =>
    runStep(deps.secrets, (tools) =>
      withRunStore(deps.secrets, input, tools.signal, (store) =>
        withGuardedProduction(
          deps,
          input,
          { step: STEP, signal: tools.signal, invalidBefore: input.before.invalidIndexes, progress: tools.progress },
          (production) =>
            rollBack({ deps, input, tools, store, production, arrivals: new RollbackArrivals(input, production, STEP) }),
        ),
      ),
    );

interface Rollback {
  readonly deps: ActivityDependencies;
  readonly input: RollbackInput;
  readonly tools: StepTools;
  readonly store: RunStore;
  readonly production: GuardedProduction;
  readonly arrivals: RollbackArrivals;
}

async function rollBack(rollback: Rollback): Promise<RollbackEvidence> {
  const { deps, input, tools, store, production } = rollback;
  const release = await releaseAlembic(deps, input, tools);
  const log = new BoundedLog();
  const started = Date.now();
  const commands: string[] = [];
  try {
    for (let attempt = 1; ; attempt += 1) {
      const from = await readHere(rollback);
      const planned = await plan(rollback, release, from.state.versionRows);
      await rollback.arrivals.beforeAlembic();
      const facts = await runPlanned(rollback, release, planned, log);
      commands.push(...facts.filter(hasSucceeded).map(({ command }) => command.replace(/^downgrade /, '')));
      const failed = facts.find((one) => !hasSucceeded(one));
      if (failed === undefined) break;
      if (!(await mayTryAgain(rollback, failed, from, attempt))) throw commandFailed(deps, failed);
      await pause(Math.min(1000 * 2 ** (attempt - 1), 15_000), undefined, { signal: production.signal });
    }
  } finally {
    await store.archive('recovery/alembic.log', log.text, 'text/plain').catch(() => undefined);
  }
  const compared = await compareWithBefore(rollback);
  return {
    ...compared,
    commands,
    uncounted: rollback.arrivals.uncounted,
    milliseconds: Date.now() - started,
    log: await store.archive('recovery/alembic.log', log.text, 'text/plain'),
  };
}

/** `rowsAfter`: null where they cannot be known, as behind a command that hides the revisions. */
interface PlannedCommand {
  readonly argument: string;
  readonly rowsAfter: readonly string[] | null;
}

async function plan(
  { deps, input, production }: Rollback,
  release: ReleaseAlembic,
  from: readonly string[],
): Promise<readonly PlannedCommand[]> {
  const { graph, before } = input;
  const refused = (why: string): StepError =>
    new StepError(STEP_ERRORS.refused, `no downgrade from ${from.join(', ') || 'no revision'}: ${why}`);
  if (from.join() === before.versionRows.join()) return [];
  // What the service's command hides can be asked for by name only: as it was rehearsed.
  if (graph.path.some(({ sha256 }) => sha256 === '')) {
    if (graph.downgrade.kind === 'impossible') throw refused(graph.downgrade.why);
    const { commands } = graph.downgrade;
    return commands.map((argument, index) => ({
      argument,
      rowsAfter: index === commands.length - 1 ? before.versionRows : null,
    }));
  }
  const planned = downgradePlan(await releaseGraph(deps, release, production.signal), from, before.versionRows);
  if (planned.kind === 'impossible') throw refused(planned.why);
  return planned.commands;
}

async function runPlanned(
  rollback: Rollback,
  release: ReleaseAlembic,
  commands: readonly PlannedCommand[],
  log: BoundedLog,
): Promise<readonly AlembicCommandFacts[]> {
  const { deps, input, tools, production } = rollback;
  const { run, profile } = input;
  let now: { readonly command: string; readonly revision?: string; readonly statement?: string } = {
    command: `downgrade ${commands[0]?.argument ?? ''}`,
  };
  let line = '';
  const report = (): void => tools.progress({ phase: 'alembic downgrade', ...now, line });
  report();
  return withProvenStop(
    {
      administrator: production.administrator,
      maintenanceDatabase: profile.databases.production.maintenanceDatabase,
      role: production.migrator.user,
      runId: run.runId,
      step: STEP,
      signal: production.signal,
    },
    ({ force }) =>
      downgrade({
        ...commandFor(
          release,
          environmentFor(release, production.migrator, profile.alembic, run),
          profile.alembic.commands.downgrade,
        ),
        commands,
        signal: production.signal,
        force,
        redactor: deps.secrets.redactor,
        timeouts: {
          lock: profile.guard.lockTimeout,
          concurrentLock: profile.guard.concurrentLockTimeout,
          statement: profile.guard.statementTimeout,
          concurrentStatement: 0,
        },
        ...rollback.arrivals.handlers,
        onLine: (stream, text) => {
          log.add(stream, text);
          line = text.slice(0, 300);
          report();
        },
        onStatement: (event) => {
          if (event.event !== 'statement-start') return;
          now = {
            command: now.command,
            ...(event.revision !== null && { revision: event.revision }),
            statement: event.statement.slice(0, 200),
          };
          report();
        },
        afterCommand: async (index, ended) => {
          const next = commands[index + 1];
          if (next) now = { command: `downgrade ${next.argument}` };
          await compareRows(rollback, commands[index]!);
          rollback.arrivals.commandEnded(ended);
          if (next) await rollback.arrivals.beforeAlembic();
        },
      }),
  );
}

const readHere = ({ input, production: { administrator, migrator, signal } }: Rollback): Promise<ProductionReading> =>
  readProduction(input, { administrator, migratorRole: migrator.user, step: STEP, signal });

async function compareRows(rollback: Rollback, { argument, rowsAfter }: PlannedCommand): Promise<void> {
  if (rowsAfter === null) return;
  const { versionRows } = (await readHere(rollback)).state;
  if (versionRows.join() === rowsAfter.join()) return;
  throw new StepError(
    STEP_ERRORS.stateUnexpected,
    `after "downgrade ${argument}" production stands at ${versionRows.join(', ') || 'no revision'}, planned was ${rowsAfter.join(', ') || 'no revision'}`,
  );
}

const hasSucceeded = ({ result }: AlembicCommandFacts): boolean => result.kind === 'exited' && result.code === 0;

/** Only where a lock was not to be had, and only from a state that the failed command has not spoiled. */
async function mayTryAgain(
  rollback: Rollback,
  { failedOn }: AlembicCommandFacts,
  from: ProductionReading,
  attempt: number,
): Promise<boolean> {
  const { graph, profile } = rollback.input;
  if (failedOn !== 'lock-timeout' || attempt >= profile.guard.tries) return false;
  if (graph.path.every(({ transactional }) => transactional === 'yes')) return true;
  const { state } = await readHere(rollback);
  return (
    state.versionRows.join() === from.state.versionRows.join() && state.objectMapDigest === from.state.objectMapDigest
  );
}

function commandFailed(
  { secrets }: ActivityDependencies,
  { command, result, failedOn }: AlembicCommandFacts,
): StepError {
  const ending = result.kind === 'exited' ? `code ${result.code}` : result.signal;
  const words = lastWords(ending, secrets.redactor.redact(result.stderrTail.trim() || result.stdoutTail.trim()));
  const limit = failedOn === undefined ? '' : ` (its ${failedOn.replace('-', ' ')}, guard in the profile)`;
  return new StepError(STEP_ERRORS.processFailed, `alembic ${command} ended with ${words}${limit}`, { ending });
}

async function compareWithBefore(
  rollback: Rollback,
): Promise<Pick<RollbackEvidence, 'versionRows' | 'objects' | 'differences'>> {
  const { input, store, production } = rollback;
  const { before, expectedLeftovers } = input;
  const { state, map } = await readHere(rollback);
  const { versionRows } = state;
  if (versionRows.join() !== before.versionRows.join()) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `the downgrade ended with code 0, but production stands at ${versionRows.join(', ') || 'no revision'} instead of ${before.versionRows.join(', ') || 'no revision'}`,
    );
  }
  const differences =
    state.objectMapDigest === before.objectMapDigest
      ? []
      : objectDifferences(await readStoredObjectMap(store, before.objectMap, production.signal), map);
  const isExpected = isLeftover(expectedLeftovers);
  const unexpected = differences.filter((line) => !isExpected(line));
  if (unexpected.length > 0) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `the downgrade went through, but ${unexpected.length} object(s) are neither as before nor as it left them in the rehearsal: ${unexpected.slice(0, 5).join('; ')}`,
      { differences: unexpected.slice(0, 100) },
    );
  }
  return {
    versionRows,
    objects: differences.length === 0 ? 'equal' : 'as-rehearsed',
    differences: differences.slice(0, 100),
  };
}
