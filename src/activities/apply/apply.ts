import { setTimeout as pause } from 'node:timers/promises';
import { Context } from '@temporalio/activity';
import type { Reconciliation } from '../../alembic/reconcile.ts';
import type { ApplyActivities } from '../../contract/activities.ts';
import { refusal, STEP_ERRORS, StepError } from '../../contract/errors.ts';
import type { UpgradeEvidence, UpgradeInput } from '../../contract/evidence/upgrade.ts';
import { BlockerRegister, describeBlocker } from '../../postgres/blocker-register.ts';
import { dropInvalidIndexes } from '../../postgres/catalog/leftover-indexes.ts';
import { withConnection } from '../../postgres/connection.ts';
import { readCounters } from '../../postgres/contents/write-counters.ts';
import { type BlockingSession, heldLocks, openTransactions } from '../../postgres/lock-waits.ts';
import { ProgramLog } from '../../process/program-log.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import { type TryContext, type TryEnd, tryUpgrade } from './alembic-try.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { type GuardedProduction, withGuardedProduction } from './production-guard.ts';
import { settleProduction } from './production-reading.ts';
import { readRehearsedLocks } from './rehearsed-locks.ts';
import { releaseAlembic } from '../release-alembic.ts';
import { type RunStore, withRunStore } from '../run-store.ts';
import { asBlockers, UpgradeTelling } from './upgrade-progress.ts';
import {
  readStart,
  recordCounters,
  recordDrop,
  recordFailure,
  recordStart,
  type UpgradeStart,
} from './upgrade-record.ts';

const STEP = 'apply.upgrade';
/** Whoever has waited behind the migration's lock comes first, then it tries again. */
const BETWEEN_TRIES = 500;

/**
 * `alembic upgrade` of the planned revisions in production. Every attempt, and every further try after a lock that could not
 * be had, reads the database first: it upgrades from an unchanged state, resumes from a clean one between two revisions,
 * confirms a complete one, and stops at anything else.
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
          {
            step: STEP,
            signal: tools.signal,
            invalidBefore: input.before.invalidIndexes,
            store,
            progress: tools.progress,
          },
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
  const { administrator, migrator, signal } = production;
  const reading = { administrator, migratorRole: migrator.user, step: STEP, signal };
  const { found, droppedIndexes } = await settleProduction(input, reading, store);
  const done = (how: UpgradeEvidence['how'], milliseconds: number): UpgradeEvidence => ({
    revisions: input.graph.targetRevisions,
    milliseconds,
    how,
    droppedInvalidIndexes: [
      ...new Set([...production.droppedEarlier, ...production.indexes.dropped, ...droppedIndexes]),
    ],
    endedSessions: production.endedSessions,
    tries: 0,
    blockers: [],
  });
  if (found.kind !== 'unchanged' && (await earlierStart(found, store, signal)) === 'is-done') {
    return done('already-applied', 0);
  }

  const { guard } = input.profile;
  const register = new BlockerRegister({
    endAfter: guard.endBlockersAfter,
    ownRoles: [administrator.user, migrator.user],
  });
  const context: TryContext = {
    deps,
    input,
    step: STEP,
    store,
    production,
    reading,
    release: await releaseAlembic(deps, input, tools),
    rehearsed: await readRehearsedLocks(input, store, signal),
    register,
    telling: new UpgradeTelling(tools.progress, 'alembic upgrade', input.graph.targetRevision),
    log: new ProgramLog(),
  };
  const began = Date.now();
  const starts: UpgradeStart[] = [];
  try {
    const { tries, dropped } = await tryUntilUpgraded(context, starts);
    await noteCounters(context);
    const evidence = done(found.kind === 'unchanged' ? 'upgraded' : 'resumed', Date.now() - began);
    return {
      ...evidence,
      droppedInvalidIndexes: [...evidence.droppedInvalidIndexes, ...dropped],
      tries,
      blockers: register.words(),
      log: await store.archive('apply/alembic.log', context.log.text, 'text/plain'),
    };
  } catch (error) {
    await store.archive('apply/alembic.log', context.log.text, 'text/plain').catch(() => undefined);
    const start = starts.at(-1);
    if (start !== undefined) {
      const why = error instanceof Error ? error.message : String(error);
      await recordFailure(store, start, deps.secrets.redactor.redact(why)).catch(() => undefined);
    }
    throw error;
  }
}

/** The migrator's sessions have ended, and with that reported. That it cannot be noted is told where it is missed. */
async function noteCounters({ input, production, store }: TryContext): Promise<void> {
  const { administrator, signal } = production;
  await withConnection(administrator, { runId: input.run.runId, step: STEP, signal }, readCounters)
    .then((counters) => recordCounters(store, counters))
    .catch(() => signal.throwIfAborted());
}

/** @throws StepError `StateUnexpected` where this run did not make what was found, or the upgrade must not be run from it */
async function earlierStart(
  found: Reconciliation,
  store: RunStore,
  signal: AbortSignal,
): Promise<'is-to-run' | 'is-done'> {
  const start = await readStart(store, signal);
  if (start === undefined) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      'production was changed by somebody else after it was looked at: look at what changed, then decide',
      { found },
    );
  }
  return whetherToRun(
    found,
    start.failed === undefined
      ? 'an earlier start of the upgrade was cut off'
      : `an earlier start of the upgrade failed (${start.failed.slice(0, 600)})`,
  );
}

/**
 * @param earlier what is known of the starts before this one
 * @throws StepError `StateUnexpected` where the upgrade must not be run from what was found
 */
function whetherToRun(found: Reconciliation, earlier: string): 'is-to-run' | 'is-done' {
  switch (found.kind) {
    case 'fully-applied':
      return 'is-done';
    case 'foreign':
      throw new StepError(STEP_ERRORS.stateUnexpected, found.why, { found });
    case 'partly-applied':
      if (found.clean !== 'yes')
        throw new StepError(
          STEP_ERRORS.stateUnexpected,
          `${earlier}, and from what it left it is not resumed: ${found.why}; take a way back, or put production right by hand, accept, and start a new run`,
          { found },
        );
      return 'is-to-run';
    case 'unchanged':
      return 'is-to-run';
  }
}

const isResumable = (found: Reconciliation): boolean =>
  found.kind !== 'foreign' && (found.kind !== 'partly-applied' || found.clean === 'yes');

/** Starts Alembic, noting each start, until it has come through or its tries, or the patience for those who stand in the way, are used up. */
async function tryUntilUpgraded(
  context: TryContext,
  starts: UpgradeStart[],
): Promise<{ readonly tries: number; readonly dropped: readonly string[] }> {
  const { input, production, store, reading, telling } = context;
  const { guard } = input.profile;
  const patience = new Patience(guard.patience);
  const dropped: string[] = [];
  for (let inTry = 1; ; inTry += 1) {
    telling.tell({ try: inTry });
    await awaitOldTransactions(context, patience, inTry);
    starts.push(await recordStart(store));
    const began = Date.now();
    const end = await tryUpgrade(context, inTry);
    if (end.kind === 'upgraded') return { tries: inTry, dropped };

    const { found, droppedIndexes, invalidIndexes } = await settleProduction(input, reading, store);
    dropped.push(...droppedIndexes);
    context.log.note(`try ${inTry}: ${end.why}; production is ${describe(found)}`);
    // An invalid index of a build that was stopped cannot be dropped while those in its way are there.
    if (invalidIndexes.length === 0) {
      // What kept it from the lock is the cause; that it cannot be tried again from here comes second.
      if (!isResumable(found)) throw givenUp(context, end, found, `after try ${inTry} of ${guard.tries}`, began);
      if (found.kind === 'fully-applied') return { tries: inTry, dropped };
    }
    if (inTry >= guard.tries) throw givenUp(context, end, found, `after ${inTry} of ${guard.tries} tries`, began);
    const left = await awaitBlockers(context, patience, began);
    if (left.length > 0) {
      throw givenUp(
        context,
        end,
        found,
        `after ${inTry === 1 ? 'one try' : `${inTry} tries`} and ${guard.patience} ms of patience`,
        began,
      );
    }
    await pause(BETWEEN_TRIES, undefined, { signal: production.signal });
    if (invalidIndexes.length > 0) dropped.push(...(await dropLeftIndexes(context, end.why)));
  }
}

/** @throws StepError `StateUnexpected` where production is not as a further try needs it after that */
async function dropLeftIndexes(
  { input, production, reading, store }: TryContext,
  why: string,
): Promise<readonly string[]> {
  const { dropped } = await withConnection(
    production.administrator,
    { runId: input.run.runId, step: STEP, signal: production.signal, statementTimeout: 180_000 },
    (client) => dropInvalidIndexes(client, input.before.invalidIndexes, recordDrop(store, STEP)),
  );
  const { found, droppedIndexes } = await settleProduction(input, reading, store);
  whetherToRun(found, `the upgrade was stopped (${why})`);
  return [...dropped, ...droppedIndexes];
}

/** What is left of the time for which others are waited for. */
class Patience {
  left: number;

  constructor(milliseconds: number) {
    this.left = milliseconds;
  }

  /** Counts the time that `waiting` takes. */
  async during<T>(waiting: () => Promise<T>): Promise<T> {
    const began = Date.now();
    try {
      return await waiting();
    } finally {
      this.left = Math.max(0, this.left - (Date.now() - began));
    }
  }
}

/**
 * A lock the migration wants would wait for them, and the application would wait behind that lock. Those who hold nothing
 * that the rehearsed migration needs are waited for too, since nobody knows what they lock next, but never ended.
 */
async function awaitOldTransactions(context: TryContext, patience: Patience, inTry: number): Promise<void> {
  const { input, production, rehearsed, register, telling } = context;
  const { signal } = production;
  const age = input.profile.databases.production.maximumTransactionAge;
  const began = Date.now();
  const old = await patience.during(() => {
    const until = began + patience.left;
    return withConnection(production.administrator, { runId: input.run.runId, step: STEP, signal }, async (client) => {
      for (;;) {
        const found = await openTransactions(client, age, production.migrator.user);
        if (found.length === 0 || Date.now() >= until) return found;
        telling.tell({ phase: `waiting for transactions older than ${age} ms`, blockers: asBlockers(found) });
        const held = await heldLocks(client, found);
        const isInTheWay = ({ key }: BlockingSession): boolean => rehearsed.areInTheWay(held.get(key) ?? []);
        await register.meetBoth(
          client,
          { blocking: found.filter(isInTheWay), awaited: found.filter((session) => !isInTheWay(session)) },
          inTry,
        );
        await pause(250, undefined, { signal });
      }
    });
  });
  telling.tell({ blockers: [] });
  if (old.length === 0) return;
  const findings = old
    .slice(0, 10)
    .map(
      (session) => `a transaction is open longer than ${age} ms: ${describeBlocker(session)}; end it and start again`,
    );
  // Not a refusal once Alembic has run: then there may be something to undo.
  throw inTry === 1
    ? refusal(findings)
    : new StepError(STEP_ERRORS.processFailed, `not tried again: ${findings.join('; ')}`, { findings });
}

const awaitBlockers = (
  { input, production, register, telling }: TryContext,
  patience: Patience,
  from: number,
): Promise<readonly BlockingSession[]> =>
  patience.during(() =>
    withConnection(
      production.administrator,
      { runId: input.run.runId, step: STEP, signal: production.signal },
      (client) =>
        register.outlast(client, {
          from,
          patience: patience.left,
          signal: production.signal,
          tell: (blocking) =>
            telling.tell({ phase: 'waiting for those in the way to end', blockers: asBlockers(blocking) }),
        }),
    ),
  );

function givenUp(
  { register }: TryContext,
  end: Extract<TryEnd, { kind: 'locked-out' }>,
  found: Reconciliation,
  when: string,
  from: number,
): StepError {
  const blockers = register.words(from);
  const inTheWay = blockers.length === 0 ? 'nobody was seen in the way' : `in the way: ${blockers.join('; ')}`;
  const isForPeople = end.stop?.kind === 'beyond-footprint' || !isResumable(found);
  return new StepError(
    isForPeople ? STEP_ERRORS.stateUnexpected : STEP_ERRORS.processFailed,
    `the upgrade was given up ${when}: ${end.why}; production is ${describe(found)}${isResumable(found) ? '' : ', from which it is not tried again'}; ${inTheWay}`,
    { found, blockers },
  );
}

function describe(found: Reconciliation): string {
  if (found.kind !== 'partly-applied') return found.kind.replaceAll('-', ' ');
  const { revisions, clean, why } = found;
  return `partly applied (${revisions.join(', ') || 'no whole revision'}${clean === 'yes' ? '' : `; ${why}`})`;
}
