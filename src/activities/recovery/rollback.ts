import { setTimeout as pause } from 'node:timers/promises';
import type { AlembicCommandFacts } from '../../alembic/command.ts';
import { downgrade } from '../../alembic/downgrade.ts';
import { downgradePlan } from '../../alembic/downgrade-plan.ts';
import type { RecoveryActivities } from '../../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import type { RollbackEvidence, RollbackInput } from '../../contract/evidence/rollback.ts';
import type { ProductionReading } from '../../postgres/catalog/production-state.ts';
import { isLeftover } from '../../rehearsal/leftovers.ts';
import { reorderedColumns } from '../../postgres/catalog/object-map-restore.ts';
import { objectDifferences } from '../../rehearsal/object-difference.ts';
import { BlockerRegister } from '../../postgres/blocker-register.ts';
import { withConnection } from '../../postgres/connection.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import { lastWords } from '../../process/last-words.ts';
import { ProgramLog } from '../../process/program-log.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { type GuardedProduction, withGuardedProduction } from '../apply/production-guard.ts';
import { readProduction } from '../apply/production-reading.ts';
import { commandFor, environmentFor, type ReleaseAlembic, releaseAlembic, releaseGraph } from '../release-alembic.ts';
import { RollbackArrivals } from './rollback-arrivals.ts';
import { isSame, RollbackRecord } from './rollback-record.ts';
import { type RunStore, withRunStore } from '../run-store.ts';
import { readStoredObjectMap } from '../stored-text.ts';
import { asBlockers, UpgradeTelling } from '../apply/upgrade-progress.ts';
import { lockedOut, runWatched, type WatchedContext, type WatchedEnd } from '../apply/watched-alembic.ts';

const STEP = 'recovery.rollback';

/**
 * The downgrade to the revisions recorded before the upgrade, planned from where production stands now, compared with the
 * version rows after each command and with the object map at the end. A lock that cannot be had in time is tried again.
 * What it drops is counted once more where nobody can add to it any more: see `RollbackArrivals`.
 *
 * @throws StepError `CheckFailed` when something came since it was counted, `ProcessFailed` when a downgrade fails, `StateUnexpected` when version rows are not as planned, or
 * objects neither as before nor as the rehearsed downgrade left them
 */
export const rollBackProduction =
  (deps: ActivityDependencies): RecoveryActivities['rollBackProduction'] =>
  (input) =>
    runStep(deps.secrets, (tools) =>
      withRunStore(deps.secrets, input, tools.signal, (store) =>
        withGuardedProduction(
          deps,
          input,
          {
            step: STEP,
            signal: tools.signal,
            invalidBefore: input.before.invalidIndexes,
            store,
            progress: tools.progress,
          },
          async (production) => {
            const arrivals = new RollbackArrivals(input, production, STEP);
            const record = await RollbackRecord.read(store, production.signal);
            const rollback: Rollback = { deps, input, tools, store, production, arrivals, record };
            return rollBack(rollback).catch((error: unknown) => throwTelling(rollback, error));
          },
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
  readonly record: RollbackRecord;
}

async function rollBack(rollback: Rollback): Promise<RollbackEvidence> {
  const { deps, input, tools, store, production, record } = rollback;
  const release = await releaseAlembic(deps, input, tools);
  const log = new ProgramLog();
  const watched: WatchedContext = {
    deps,
    input,
    step: STEP,
    production,
    register: new BlockerRegister({
      endAfter: input.profile.guard.endBlockersAfter,
      ownRoles: [production.administrator.user, production.migrator.user],
    }),
    telling: new UpgradeTelling(tools.progress, 'alembic downgrade', input.before.versionRows.join(', ')),
    log,
  };
  const started = Date.now();
  const commands: string[] = [];
  let tries = 0;
  try {
    for (let attempt = 1; ; attempt += 1) {
      const from = await readHere(rollback);
      if (attempt === 1) rollback.arrivals.remember(rollback.record.notesOf(from.state));
      const planned = await plan(rollback, release, from.state.versionRows);
      await rollback.arrivals.beforeAlembic();
      await recordStanding(rollback, from);
      tries = attempt;
      const began = Date.now();
      const end = await runPlanned(rollback, release, planned, watched, attempt);
      const facts = end.result;
      commands.push(...facts.filter(hasSucceeded).map(({ command }) => command.replace(/^downgrade /, '')));
      const failed = facts.find((one) => !hasSucceeded(one));
      if (failed === undefined) break;
      await recordFailed(rollback, failed);
      const lockOut = lockedOut(failed, end);
      if (lockOut === undefined || !(await mayTryAgain(rollback, from, attempt))) {
        throw commandFailed(deps, failed, lockOut, watched.register.words(began));
      }
      log.note(`try ${attempt}: ${lockOut}`);
      await awaitNextTry(rollback, watched, attempt, began);
    }
  } finally {
    await store.archive('recovery/alembic.log', log.text, 'text/plain').catch(() => undefined);
  }
  const compared = await compareWithBefore(rollback);
  await recordStanding(rollback, null);
  return {
    ...compared,
    commands,
    resumed: (record.earlier.begun !== null || tries > 1) && !takesBackItself(rollback),
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

function runPlanned(
  rollback: Rollback,
  release: ReleaseAlembic,
  commands: readonly PlannedCommand[],
  watched: WatchedContext,
  inTry: number,
): Promise<WatchedEnd<readonly AlembicCommandFacts[]>> {
  const { input, production } = rollback;
  const { run, profile } = input;
  const { telling } = watched;
  const tell = (next: PlannedCommand | undefined): void => {
    if (next) telling.tell({ phase: `alembic downgrade ${next.argument}`, target: next.argument, revision: '' });
  };
  tell(commands[0]);
  return runWatched(watched, inTry, (options) =>
    downgrade({
      ...commandFor(
        release,
        environmentFor(release, production.migrator, profile.alembic, run),
        profile.alembic.commands.downgrade,
      ),
      ...options,
      ...rollback.arrivals.handlers,
      commands,
      afterCommand: async (index, facts) => {
        rollback.arrivals.commandEnded(facts);
        if (index + 1 < commands.length) await rollback.arrivals.beforeAlembic();
        tell(commands[index + 1]);
        const reading = await readHere(rollback);
        await recordStanding(rollback, reading);
        compareRows(reading, commands[index]!);
      },
    }),
  );
}

/**
 * Those in the way are named while the next try is waited for. Where the profile allows to end them, they are waited for until
 * that is due, for no longer than `guard.patience`.
 */
async function awaitNextTry(
  { input, production }: Rollback,
  { register, telling }: WatchedContext,
  inTry: number,
  from: number,
): Promise<void> {
  const { endBlockersAfter, patience } = input.profile.guard;
  const { administrator, signal } = production;
  const began = Date.now();
  const atLeast = Math.min(1000 * 2 ** (inTry - 1), 15_000);
  await withConnection(administrator, { runId: input.run.runId, step: STEP, signal }, (client) =>
    register.outlast(client, {
      from,
      patience: endBlockersAfter === 'never' ? atLeast : Math.max(atLeast, Math.min(patience, endBlockersAfter + 1000)),
      signal,
      tell: (blocking) =>
        telling.tell({ phase: 'waiting for those in the way to end', blockers: asBlockers(blocking) }),
    }),
  );
  await pause(Math.max(0, atLeast - (Date.now() - began)), undefined, { signal });
}

const readHere = ({ input, production: { administrator, migrator, signal } }: Rollback): Promise<ProductionReading> =>
  readProduction(input, { administrator, migratorRole: migrator.user, step: STEP, signal });

async function recordStanding({ arrivals, record }: Rollback, reading: ProductionReading | null): Promise<void> {
  await record.write(arrivals.notes, reading && reading.state);
}

/** A downgrade that is interrupted takes back all that it did: what stands then is what the version rows say. */
const takesBackItself = ({ input }: Rollback): boolean =>
  input.graph.path.every(({ downgradeTransactional }) => downgradeTransactional === 'yes');

/**
 * Says in the failure's details where it is proven that nothing was changed: Alembic was not started, or what was begun has
 * taken itself back. Everything else is unknown.
 */
async function throwTelling(rollback: Rollback, error: unknown): Promise<never> {
  if (!(error instanceof StepError) || !(await isUntouched(rollback).catch(() => false))) throw error;
  throw new StepError(error.type, error.message, { ...error.details, untouched: true });
}

async function isUntouched(rollback: Rollback): Promise<boolean> {
  const { record, arrivals } = rollback;
  if (record.earlier.begun !== null) return false;
  if (record.first === null) return true;
  if (!takesBackItself(rollback)) return false;
  const { state } = await readHere(rollback);
  if (!isSame(record.first, state)) return false;
  // Nothing is left open for whoever rolls back next.
  await record.write(arrivals.notes, null);
  return true;
}

/** A command that failed may have committed revisions before that. */
async function recordFailed(rollback: Rollback, failed: AlembicCommandFacts): Promise<void> {
  const reading = await readHere(rollback);
  if (rollback.record.hasMoved(reading.state)) rollback.arrivals.commandEnded(failed);
  await recordStanding(rollback, reading);
}

function compareRows({ state: { versionRows } }: ProductionReading, { argument, rowsAfter }: PlannedCommand): void {
  if (rowsAfter === null) return;
  if (versionRows.join() === rowsAfter.join()) return;
  throw new StepError(
    STEP_ERRORS.stateUnexpected,
    `after "downgrade ${argument}" production stands at ${versionRows.join(', ') || 'no revision'}, planned was ${rowsAfter.join(', ') || 'no revision'}`,
  );
}

const hasSucceeded = ({ result }: AlembicCommandFacts): boolean => result.kind === 'exited' && result.code === 0;

/** After a lock that could not be had: only from a state that the failed command has not spoiled. */
async function mayTryAgain(rollback: Rollback, from: ProductionReading, attempt: number): Promise<boolean> {
  if (attempt >= rollback.input.profile.guard.tries) return false;
  if (takesBackItself(rollback)) return true;
  const { state } = await readHere(rollback);
  return isSame(state, from.state);
}

function commandFailed(
  { secrets }: ActivityDependencies,
  { command, result, failedOn }: AlembicCommandFacts,
  lockOut: string | undefined,
  blockers: readonly string[],
): StepError {
  const ending = result.kind === 'exited' ? `code ${result.code}` : result.signal;
  const words = lastWords(ending, secrets.redactor.redact(result.stderrTail.trim() || result.stdoutTail.trim()));
  const limit = failedOn === undefined ? '' : ` (its ${failedOn.replace('-', ' ')}, guard in the profile)`;
  const inTheWay =
    lockOut === undefined
      ? ''
      : `; ${lockOut}; ${blockers.length === 0 ? 'nobody was seen in the way' : `in the way: ${blockers.join('; ')}`}`;
  return new StepError(STEP_ERRORS.processFailed, `alembic ${command} ended with ${words}${limit}${inTheWay}`, {
    ending,
    ...(lockOut !== undefined && { blockers }),
  });
}

async function compareWithBefore(
  rollback: Rollback,
): Promise<Pick<RollbackEvidence, 'versionRows' | 'objectMapDigest' | 'objects' | 'differences' | 'reordered'>> {
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
  const mapBefore = await readStoredObjectMap(store, before.objectMap, production.signal);
  const differences = state.objectMapDigest === before.objectMapDigest ? [] : objectDifferences(mapBefore, map);
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
    objectMapDigest: state.objectMapDigest,
    objects: differences.length === 0 ? 'equal' : 'as-rehearsed',
    differences: differences.slice(0, 100),
    reordered: reorderedColumns(mapBefore, map).slice(0, 100),
  };
}
