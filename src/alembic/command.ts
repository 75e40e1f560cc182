import { setTimeout as delay } from 'node:timers/promises';
import type { OutputStream, ProcessProgress, ProcessResult } from '../process/options.ts';
import type { Redactor } from '../process/redactor.ts';
import { runProcess, startProcess } from '../process/run.ts';
import { channelDescriptor } from '../process/spawn.ts';
import { type AlembicEvent, type BarrierHandlers, holdBarrier } from './barrier.ts';
import type { Reporter, StatementTimeouts } from '../contract/rehearsal.ts';
import { pythonPart } from './python-part.ts';
import { type FailedOn, failedOnByText, type StatementEvent } from './statements.ts';

/** How the service runs Alembic. */
export interface AlembicCommandOptions extends BarrierHandlers {
  /** The service's own Python: an absolute path, or a name to be found on PATH. */
  readonly python: string;
  /** Alembic's working directory. */
  readonly directory: string;
  /** `alembic.ini`, absolute or relative to `directory`. */
  readonly config: string;
  /**
   * The command of a service that wraps Alembic; `{{revision}}` stands for the target. It runs in `directory` and
   * without a barrier: neither `onEvent` nor `atBoundary` is called. Absent: Alembic itself.
   */
  readonly command?: readonly string[];
  /** The child's environment, with the database's URL in it. */
  readonly environment: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** See `ProcessOptions.force`. */
  readonly force?: AbortSignal;
  readonly redactor: Redactor;
  readonly onLine?: (stream: OutputStream, line: string) => void;
  readonly progress?: (progress: ProcessProgress) => void;
  /** Time limits by class of statement, set right before each. Absent: none are set. */
  readonly timeouts?: StatementTimeouts;
  /** Looks up which relations are locked after every statement: for a rehearsal, it takes time. Absent: does not. */
  readonly traceLocks?: 'after-each-statement';
  /** What the migration asks of the database. If it throws, the command is stopped. */
  readonly onStatement?: (event: StatementEvent) => void;
}

/** How one command ended. What it did to the database only the database tells. */
export interface AlembicCommandFacts {
  /** What Alembic was asked for, e.g. `upgrade ae1027a6acf`. */
  readonly command: string;
  readonly result: ProcessResult;
  /** `held` before each revision; `absent` for a custom command, or an Alembic that cannot be held. */
  readonly barrier: 'held' | 'absent';
  /** Did our part load inside the service's Python? */
  readonly reporter: Reporter;
  /** The time limit that the command failed on. */
  readonly failedOn?: FailedOn;
  /** What our part met and a reader of the run should know, e.g. that a revision sets its own lock_timeout. */
  readonly notes: readonly string[];
}

/** A launcher told to stop ends at once; one that does not is stopped by force after this many milliseconds. */
const stopGrace = 5_000;

/**
 * Runs `alembic upgrade TARGET` or `alembic downgrade TARGET` to its end.
 * @throws what `atBoundary` or `onEvent` threw; the signal's reason; ProcessNotStarted
 */
export async function runAlembic(
  verb: 'upgrade' | 'downgrade',
  target: string,
  options: AlembicCommandOptions,
): Promise<AlembicCommandFacts> {
  const command = `${verb} ${target}`;
  const common = {
    directory: options.directory,
    signal: options.signal,
    ...(options.force === undefined ? {} : { force: options.force }),
    redactor: options.redactor,
    label: `alembic ${command}`,
    ...(options.onLine === undefined ? {} : { onLine: options.onLine }),
    ...(options.progress === undefined ? {} : { progress: options.progress }),
  };
  if (options.command !== undefined) {
    const [file = '', ...args] = options.command.map((word) => word.replaceAll('{{revision}}', target));
    const result = await runProcess({ ...common, file, args, environment: options.environment });
    return { command, result, barrier: 'absent', ...withoutReporter(result) };
  }
  return runLauncher(command, [verb, target], options, common);
}

async function runLauncher(
  command: string,
  args: readonly string[],
  options: AlembicCommandOptions,
  common: Pick<AlembicCommandOptions, 'directory' | 'signal' | 'force' | 'redactor' | 'onLine' | 'progress'>,
): Promise<AlembicCommandFacts> {
  const running = await startProcess({
    ...common,
    file: options.python,
    args: [pythonPart('launch.py'), '-c', options.config, ...args],
    environment: {
      PYTHONUNBUFFERED: '1',
      ...options.environment,
      RUNBOOK_EVENTS_FD: channelDescriptor(0),
      RUNBOOK_ACK_FD: channelDescriptor(1),
      RUNBOOK_WORKER_PID: String(process.pid),
    },
    channels: 2,
  });
  const [events, answers] = running.channels;
  if (events === undefined || answers === undefined) throw new Error('the launcher has no channels');
  let barrier: AlembicCommandFacts['barrier'] = 'held';
  const onEvent = (told: AlembicEvent): void => {
    if (told.event === 'barrier-unavailable') barrier = 'absent';
    options.onEvent?.(told);
  };
  let failure: { readonly error: unknown } | undefined;
  const held = holdBarrier(events, answers, { ...options, onEvent }).catch(async (error: unknown) => {
    failure = { error };
    await Promise.race([running.result, delay(stopGrace, undefined, { ref: false })]).catch(() => undefined);
    await running.stop().catch(() => undefined);
  });
  const result = await running.result;
  await held;
  if (failure !== undefined) throw failure.error;
  return { command, result, barrier, ...withoutReporter(result) };
}

function withoutReporter(result: ProcessResult): Pick<AlembicCommandFacts, 'reporter' | 'failedOn' | 'notes'> {
  const failedOn = result.kind === 'exited' && result.code === 0 ? undefined : failedOnByText(result.stderrTail);
  return {
    reporter: { kind: 'absent', why: 'the command did not load it' },
    ...(failedOn === undefined ? {} : { failedOn }),
    notes: [],
  };
}
