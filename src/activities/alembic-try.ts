import type { RevisionStart } from '../alembic/barrier.ts';
import type { AlembicCommandFacts } from '../alembic/command.ts';
import { rowsAtTarget } from '../alembic/reconcile.ts';
import { getsOn, type StatementEvent } from '../alembic/statements.ts';
import { upgrade } from '../alembic/upgrade.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { UpgradeInput } from '../contract/evidence.ts';
import { describeBlocker, type BlockerRegister } from '../postgres/blocker-register.ts';
import { serializeObjectMap } from '../postgres/catalog/object-map.ts';
import { withConnection } from '../postgres/connection.ts';
import type { LockWait } from '../postgres/lock-waits.ts';
import { watchMigration, type WatchedMigration, type WatchStop } from '../postgres/lock-watch.ts';
import { endSessions } from '../postgres/sessions.ts';
import { lastWords } from '../process/last-words.ts';
import type { BoundedLog } from './bounded-log.ts';
import type { ActivityDependencies } from './dependencies.ts';
import type { GuardedProduction } from './production-guard.ts';
import { type ReadingOptions, readProduction } from './production-reading.ts';
import { withProvenStop } from './proven-stop.ts';
import type { RehearsedLocks } from './rehearsed-locks.ts';
import { commandFor, environmentFor, type ReleaseAlembic } from './release-alembic.ts';
import type { RunStore } from './run-store.ts';
import { asBlockers, type UpgradeTelling } from './upgrade-progress.ts';
import { boundaryMapName, recordBoundary } from './upgrade-record.ts';

export interface TryContext {
  readonly deps: ActivityDependencies;
  readonly input: UpgradeInput;
  readonly step: string;
  readonly store: RunStore;
  readonly production: GuardedProduction;
  readonly reading: ReadingOptions;
  readonly release: ReleaseAlembic;
  readonly rehearsed: RehearsedLocks;
  readonly register: BlockerRegister;
  readonly telling: UpgradeTelling;
  readonly log: BoundedLog;
}

/** How one start of Alembic ended, by the database where that can tell. */
export type TryEnd =
  | { readonly kind: 'upgraded' }
  /** A lock could not be had: it may be tried again. */
  | { readonly kind: 'locked-out'; readonly why: string; readonly stop: WatchStop | undefined };

/**
 * Runs `alembic upgrade` to each target, one after the other, under the watch of locks, and returns when no session of the
 * migrator is left.
 *
 * @throws StepError `ProcessFailed` when Alembic failed for another reason than a lock, `StateUnexpected` when it ended well
 * and production is not where it should be
 */
export async function tryUpgrade(context: TryContext, inTry: number): Promise<TryEnd> {
  const { input, production, step, log } = context;
  const { profile, run, graph } = input;
  const told = new Told(context, inTry, (at) => watch.gotOn(at));
  const watch = watchMigration({
    administrator: production.administrator,
    runId: run.runId,
    step,
    role: production.migrator.user,
    versionTable: profile.alembic.versionTable,
    limits: {
      lock: profile.guard.lockTimeout,
      concurrentLock: profile.guard.concurrentLockTimeout,
      statement: profile.guard.statementTimeout,
    },
    limitsInside: () => told.limitsInside,
    isBeyond: (wait) => told.isBeyond(wait),
    register: context.register,
    inTry,
    signal: production.signal,
    onLook: (seen) => told.look(seen, watch.stopped),
    onBlind: (why) => told.blind(why),
  });
  let facts: AlembicCommandFacts | undefined;
  try {
    await withProvenStop(
      {
        administrator: production.administrator,
        maintenanceDatabase: profile.databases.production.maintenanceDatabase,
        role: production.migrator.user,
        runId: run.runId,
        step,
        signal: production.signal,
      },
      async ({ force }) => {
        for (const target of graph.targetRevisions) {
          facts = await runOne(context, told, target, force);
          for (const note of facts.notes) log.add('stderr', `[migration-runbook] ${note}`);
          if (facts.result.kind !== 'exited' || facts.result.code !== 0) break;
        }
      },
    );
  } finally {
    await watch.end();
    told.endOfTry();
  }
  await withConnection(production.administrator, { runId: run.runId, step, signal: production.signal }, (client) =>
    endSessions(client, { of: { role: production.migrator.user }, signal: production.signal }),
  );
  return judge(context, facts, told, watch.stopped);
}

async function runOne(
  { deps, input, production, release, log, telling }: TryContext,
  told: Told,
  target: string,
  force: AbortSignal,
): Promise<AlembicCommandFacts> {
  const { profile, run } = input;
  const { guard } = profile;
  telling.tell({ target });
  return upgrade({
    ...commandFor(
      release,
      environmentFor(release, production.migrator, profile.alembic, run),
      profile.alembic.commands.upgrade,
    ),
    target,
    signal: production.signal,
    force,
    redactor: deps.secrets.redactor,
    timeouts: {
      lock: guard.lockTimeout,
      concurrentLock: guard.concurrentLockTimeout,
      statement: guard.statementTimeout,
      concurrentStatement: 0,
    },
    atBoundary: (start) => told.boundary(start),
    onStatement: (event) => told.statement(event),
    onLine: (stream, text) => {
      log.add(stream, text);
      telling.tell({ line: text.slice(0, 300) });
    },
  });
}

/** What Alembic, our part inside of it, and the watch tell while one try runs; the heartbeat is made from it. */
class Told {
  private readonly context: TryContext;
  private readonly inTry: number;
  private readonly gotOn: (at: number) => void;
  private readonly noted = new Set<string>();
  private revision = '';
  private running: Extract<StatementEvent, { event: 'statement-start' }> | undefined;
  private isReported = false;
  private lastFailed = false;
  /** Looks in a row that saw nobody in the way. */
  private withoutBlockers = 0;
  /** SQLSTATE of a failure after which the migration has not got on. */
  sqlstate: string | undefined;

  constructor(context: TryContext, inTry: number, gotOn: (at: number) => void) {
    this.context = context;
    this.inTry = inTry;
    this.gotOn = gotOn;
    context.telling.tell({ phase: 'alembic upgrade', try: inTry, blockers: [] });
  }

  /** Our part sets the limits right before each statement, so one statement seen is enough. */
  get limitsInside(): 'kept' | 'not-known' {
    return this.isReported ? 'kept' : 'not-known';
  }

  isBeyond(wait: LockWait): boolean {
    const judgement = this.context.rehearsed.judge(wait, this.revision);
    if (typeof judgement === 'object') this.note(`a lock was waited for: ${judgement.notKnown}`);
    return judgement === 'beyond';
  }

  statement(event: StatementEvent): void {
    this.isReported = true;
    if (event.event === 'transaction-end') return;
    if (event.revision !== null) this.revision = event.revision;
    this.running = event.event === 'statement-start' ? event : undefined;
    if (event.event === 'statement' && getsOn(event)) {
      this.lastFailed = event.sqlstate !== undefined;
      this.sqlstate = event.sqlstate;
      if (event.sqlstate === undefined || !STOPPED.has(event.sqlstate))
        this.gotOn(event.startedAt + event.milliseconds);
    }
    if (this.running) this.tellStatement(this.running.statement, this.running.startedAt);
  }

  /** Whoever made a statement fail stays named until he has ended or the migration has got on: nobody waits for him just now. */
  look({ blockers, running, index, versionRows }: WatchedMigration, stopped: WatchStop | undefined): void {
    const seen = running.toSorted((a, b) => (b.running ?? 0) - (a.running ?? 0))[0];
    if (!this.isReported) this.tellStatement(seen?.statement, Date.now() - (seen?.running ?? 0));
    else if (!this.running) this.tellStatement(undefined, 0);
    this.withoutBlockers = blockers.length === 0 ? this.withoutBlockers + 1 : 0;
    // The end of a wait is seen before the failure that ended it is heard of.
    const isGivingUp = this.lastFailed || (stopped !== undefined && running.length === 0);
    const isClear = this.withoutBlockers > 1 && !isGivingUp;
    this.context.telling.tell({
      ...(blockers.length > 0 || isClear ? { blockers: asBlockers(blockers) } : {}),
      index,
      versionRows,
      blind: undefined,
    });
  }

  blind(why: string): void {
    this.note(`locks could not be watched: ${why}`);
    this.context.telling.tell({ blind: why });
  }

  async boundary(start: RevisionStart): Promise<void> {
    const { input, store, reading, telling } = this.context;
    this.revision = start.revision;
    telling.tell({ revision: start.revision });
    // Inside a transaction that is still open nothing is durable, so there is nothing to write down.
    if (!start.committed) return;
    const { state, map } = await readProduction(input, reading);
    const next = input.graph.path.find((entry) => entry.revision === start.revision);
    const objectMap =
      next?.transactional === 'yes'
        ? undefined
        : await store.record(boundaryMapName(start.revision), serializeObjectMap(map));
    await recordBoundary(store, {
      before: start.revision,
      rows: state.versionRows,
      objectMapDigest: state.objectMapDigest,
      ...(objectMap && { objectMap }),
      invalidIndexes: state.invalidIndexes,
      at: new Date().toISOString(),
    });
  }

  endOfTry(): void {
    this.context.telling.tell({ statement: undefined, statementSince: undefined, index: undefined });
  }

  private tellStatement(statement: string | undefined, startedAt: number): void {
    this.context.telling.tell(
      statement === undefined || statement === ''
        ? { statement: undefined, statementSince: undefined }
        : {
            revision: this.revision,
            statement: statement.replaceAll(/\s+/g, ' ').slice(0, 300),
            statementSince: new Date(startedAt).toISOString(),
          },
    );
  }

  private note(text: string): void {
    if (this.noted.has(text)) return;
    this.noted.add(text);
    this.context.log.add('stderr', `[migration-runbook] try ${this.inTry}: ${text}`);
  }
}

/**
 * What a statement ends with that was stopped, and those after it in the same transaction: query_canceled, lock_not_available,
 * in_failed_sql_transaction (PostgreSQL documentation, Error Codes).
 */
const STOPPED: ReadonlySet<string> = new Set(['57014', '55P03', '25P02']);

/** deadlock_detected (PostgreSQL documentation, Error Codes): the server chose the migration to give way. */
const DEADLOCK = '40P01';

/** The exit code is a hint, the database is the answer. */
async function judge(
  context: TryContext,
  facts: AlembicCommandFacts | undefined,
  told: Told,
  stop: WatchStop | undefined,
): Promise<TryEnd> {
  const { deps, input, reading } = context;
  const failed = facts !== undefined && (facts.result.kind !== 'exited' || facts.result.code !== 0);
  const { state } = await readProduction(input, reading);
  const wanted = rowsAtTarget(input.before.versionRows, input.graph);
  const arrived = state.versionRows.join() === wanted.join();
  if (!failed && arrived) return { kind: 'upgraded' };

  const lockOut = lockedOut(facts, told, stop);
  if (lockOut !== undefined) return { kind: 'locked-out', why: lockOut, stop };
  const command = facts?.command ?? 'upgrade';
  if (failed) {
    const { result } = facts;
    const ending = result.kind === 'exited' ? `code ${result.code}` : result.signal;
    const tail = deps.secrets.redactor.redact(result.stderrTail.trim() || result.stdoutTail.trim());
    const limit =
      stop?.kind === 'statement-timeout' || facts.failedOn === 'statement-timeout'
        ? `a statement ran longer than ${input.profile.guard.statementTimeout} ms (guard.statementTimeout): `
        : '';
    throw new StepError(STEP_ERRORS.processFailed, `${limit}alembic ${command} ended with ${lastWords(ending, tail)}`, {
      ending,
    });
  }
  throw new StepError(
    STEP_ERRORS.stateUnexpected,
    `alembic ${command} ended with code 0, but production stands at ${state.versionRows.join(', ') || 'no revision'} instead of ${wanted.join(', ')}: does env.py use the address it is given?`,
  );
}

function lockedOut(
  facts: AlembicCommandFacts | undefined,
  told: Told,
  stop: WatchStop | undefined,
): string | undefined {
  if (stop?.kind === 'beyond-footprint') {
    const { wait } = stop;
    const by = wait.blockers.map(describeBlocker).join('; ');
    return `${wait.waitedFor}, which the rehearsal was not seen to take${by === '' ? '' : `, held up by ${by}`}`;
  }
  if (stop?.kind === 'lock-timeout') return `${stop.wait.waitedFor} could not be had within its limit`;
  if (facts?.failedOn === 'lock-timeout') return 'a lock could not be had within its limit';
  return told.sqlstate === DEADLOCK ? 'a deadlock with another session was broken up' : undefined;
}
