/** One start of Alembic on production under the watch of locks, whichever way it goes. */
import type { AlembicCommandFacts, AlembicCommandOptions } from '../../alembic/command.ts';
import { getsOn, type StatementEvent } from '../../alembic/statements.ts';
import type { StepInput } from '../../contract/evidence/step.ts';
import { type BlockerRegister, describeBlocker } from '../../postgres/blocker-register.ts';
import { withConnection } from '../../postgres/connection.ts';
import type { LockWait } from '../../postgres/lock-waits.ts';
import { watchMigration, type WatchedMigration, type WatchStop } from '../../postgres/lock-watch.ts';
import { endSessions } from '../../postgres/sessions.ts';
import type { ProgramLog } from '../../process/program-log.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import type { GuardedProduction } from './production-guard.ts';
import { withProvenStop } from './proven-stop.ts';
import type { RehearsedLocks } from './rehearsed-locks.ts';
import { asBlockers, type UpgradeTelling } from './upgrade-progress.ts';

export interface WatchedContext {
  readonly deps: ActivityDependencies;
  readonly input: StepInput;
  readonly step: string;
  readonly production: GuardedProduction;
  /** Absent: no wait is beyond what was rehearsed. */
  readonly rehearsed?: Pick<RehearsedLocks, 'judge'>;
  readonly register: BlockerRegister;
  readonly telling: UpgradeTelling;
  readonly log: ProgramLog;
}

export interface WatchedEnd<T> {
  readonly result: T;
  readonly told: Told;
  readonly stop: WatchStop | undefined;
}

type SharedOptions = Required<
  Pick<AlembicCommandOptions, 'signal' | 'redactor' | 'timeouts' | 'onStatement' | 'onLine'>
> & {
  readonly force: AbortSignal;
};

/**
 * Runs `work` under the watch of locks, those in the way named in the heartbeat, and returns when no session of the migrator
 * is left.
 *
 * @param work starts Alembic with these options and settles when its processes are gone
 */
export async function runWatched<T>(
  context: WatchedContext,
  inTry: number,
  work: (options: SharedOptions, told: Told) => Promise<T>,
): Promise<WatchedEnd<T>> {
  const { deps, input, production, step, log, telling } = context;
  const { run, profile } = input;
  const { guard, alembic, databases } = profile;
  const { administrator, migrator, signal } = production;
  const told = new Told(context, inTry, (at) => watch.gotOn(at));
  const watch = watchMigration({
    administrator,
    runId: run.runId,
    step,
    role: migrator.user,
    versionTable: alembic.versionTable,
    limits: {
      lock: guard.lockTimeout,
      concurrentLock: guard.concurrentLockTimeout,
      statement: guard.statementTimeout,
    },
    limitsInside: () => told.limitsInside,
    isBeyond: (wait) => told.isBeyond(wait),
    register: context.register,
    inTry,
    signal,
    onLook: (seen) => told.look(seen, watch.stopped),
    onBlind: (why) => told.blind(why),
  });
  let result: T;
  try {
    result = await withProvenStop(
      {
        administrator,
        maintenanceDatabase: databases.production.maintenanceDatabase,
        role: migrator.user,
        runId: run.runId,
        step,
        signal,
      },
      ({ force }) =>
        work(
          {
            signal,
            force,
            redactor: deps.secrets.redactor,
            timeouts: {
              lock: guard.lockTimeout,
              concurrentLock: guard.concurrentLockTimeout,
              statement: guard.statementTimeout,
              concurrentStatement: 0,
            },
            onStatement: (event) => told.statement(event),
            onLine: (stream, text) => {
              log.line(stream, text);
              telling.tell({ line: text.slice(0, 300) });
            },
          },
          told,
        ),
    );
  } finally {
    await watch.end();
    told.endOfTry();
  }
  await withConnection(administrator, { runId: run.runId, step, signal }, (client) =>
    endSessions(client, { of: { role: migrator.user }, signal }),
  );
  return { result, told, stop: watch.stopped };
}

/** What Alembic, our part inside of it, and the watch tell while one try runs; the heartbeat is made from it. */
export class Told {
  private readonly context: WatchedContext;
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

  constructor(context: WatchedContext, inTry: number, gotOn: (at: number) => void) {
    this.context = context;
    this.inTry = inTry;
    this.gotOn = gotOn;
    context.telling.tell({ try: inTry, blockers: [] });
  }

  /** Our part sets the limits right before each statement, so one statement seen is enough. */
  get limitsInside(): 'kept' | 'not-known' {
    return this.isReported ? 'kept' : 'not-known';
  }

  isBeyond(wait: LockWait): boolean {
    const judgement = this.context.rehearsed?.judge(wait, this.revision);
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

  startsWith(revision: string): void {
    this.revision = revision;
    this.context.telling.tell({ revision });
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
    this.context.log.note(`try ${this.inTry}: ${text}`);
  }
}

/**
 * What a statement ends with that was stopped, and those after it in the same transaction: query_canceled, lock_not_available,
 * in_failed_sql_transaction (PostgreSQL documentation, Error Codes).
 */
const STOPPED: ReadonlySet<string> = new Set(['57014', '55P03', '25P02']);

/** deadlock_detected (PostgreSQL documentation, Error Codes): the server chose the migration to give way. */
const DEADLOCK = '40P01';

/** Why an Alembic that ended was kept from a lock; undefined where it failed for another reason. */
export function lockedOut(
  facts: Pick<AlembicCommandFacts, 'failedOn'> | undefined,
  { told, stop }: Pick<WatchedEnd<unknown>, 'told' | 'stop'>,
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
