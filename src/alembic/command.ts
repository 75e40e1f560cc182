import { delimiter } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { StatementTimeouts } from '../contract/evidence/rehearsal.ts';
import type {
  OutputStream,
  ProcessOptions,
  ProcessProgress,
  ProcessResult,
  RunningProcess,
} from '../process/options.ts';
import type { Redactor } from '../process/redactor.ts';
import { startProcess } from '../process/run.ts';
import { channelDescriptor } from '../process/spawn.ts';
import { type BarrierHandlers, holdBarrier } from './barrier.ts';
import { CommandReport, type ReportedFacts } from './command-report.ts';
import { pythonPart } from './python-part.ts';
import { openReporterSocket } from './reporter-socket.ts';
import type { StatementEvent } from './statements.ts';
import { limitsByClass } from './timeouts.ts';

/** How the service runs Alembic. */
export interface AlembicCommandOptions extends BarrierHandlers {
  /** The service's own Python: an absolute path, or a name to be found on PATH. */
  readonly python: string;
  /** Alembic's working directory. */
  readonly directory: string;
  /** `alembic.ini`, absolute or relative to `directory`. */
  readonly config: string;
  /**
   * The command of a service that wraps Alembic; `{{revision}}` stands for the target. It runs in `directory`. Our part
   * comes into its Python processes by PYTHONPATH; where it does not, neither `onEvent`, `atBoundary` nor `onStatement` is
   * called. Absent: Alembic itself.
   */
  readonly command?: readonly string[];
  /** The child's environment, with the database's URL in it. */
  readonly environment: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** See `ProcessOptions.force`. */
  readonly force?: AbortSignal;
  readonly redactor: Redactor;
  /** Values of rows are struck out, as in the tails of the result. */
  readonly onLine?: (stream: OutputStream, line: string) => void;
  readonly progress?: (progress: ProcessProgress) => void;
  /** Time limits by class of statement, set right before each. Absent: none are set. */
  readonly timeouts?: StatementTimeouts;
  /** Looks up which relations are locked after every statement: for a rehearsal, it takes time. Absent: does not. */
  readonly traceLocks?: 'after-each-statement';
  /**
   * Tables, as SQL names, that are locked in SHARE ROW EXCLUSIVE mode before each revision of a downgrade, in its transaction:
   * writers in flight are waited for, new ones wait until the transaction ends. Those that do not exist are left out.
   */
  readonly keepWritersOut?: readonly string[];
  /** What the migration asks of the database. If it throws, the command is stopped. */
  readonly onStatement?: (event: StatementEvent) => void;
}

/** How one command ended. What it did to the database only the database tells. */
export interface AlembicCommandFacts extends ReportedFacts {
  /** What Alembic was asked for, e.g. `upgrade ae1027a6acf`. */
  readonly command: string;
  readonly result: ProcessResult;
}

/** A process told to stop ends at once; one that does not is stopped by force after this many milliseconds. */
const stopGrace = 5_000;

/**
 * Runs `alembic upgrade TARGET` or `alembic downgrade TARGET` to its end.
 * @throws what `atBoundary`, `onEvent` or `onStatement` threw; the signal's reason; ProcessNotStarted
 */
export async function runAlembic(
  verb: 'upgrade' | 'downgrade',
  target: string,
  options: AlembicCommandOptions,
): Promise<AlembicCommandFacts> {
  const command = `${verb} ${target}`;
  const common: CommonOptions = {
    directory: options.directory,
    signal: options.signal,
    redactor: options.redactor,
    rowValues: 'struck-out',
    label: `alembic ${command}`,
    ...(options.force === undefined ? {} : { force: options.force }),
    ...(options.onLine === undefined ? {} : { onLine: options.onLine }),
    ...(options.progress === undefined ? {} : { progress: options.progress }),
  };
  if (options.command === undefined) return runLauncher(command, [verb, target], options, common);
  const words = options.command.map((word) => word.replaceAll('{{revision}}', target));
  return runWrapper(command, words, options, common);
}

type CommonOptions = Pick<
  ProcessOptions,
  'directory' | 'signal' | 'force' | 'redactor' | 'rowValues' | 'label' | 'onLine' | 'progress'
>;

async function runLauncher(
  command: string,
  args: readonly string[],
  options: AlembicCommandOptions,
  common: CommonOptions,
): Promise<AlembicCommandFacts> {
  const report = new CommandReport(options, 'Alembic ended before it reached a database', 'held');
  const running = await startProcess({
    ...common,
    file: options.python,
    args: [pythonPart('launch.py'), '-c', options.config, ...args],
    environment: {
      PYTHONUNBUFFERED: '1',
      ...options.environment,
      ...settings(options),
      RUNBOOK_EVENTS_FD: channelDescriptor(0),
      RUNBOOK_ACK_FD: channelDescriptor(1),
      RUNBOOK_WORKER_PID: String(process.pid),
    },
    channels: 2,
  });
  const [events, answers] = running.channels;
  if (events === undefined || answers === undefined) throw new Error('the launcher has no channels');
  const conversation = new Conversation(report);
  conversation.stops(running);
  const held = conversation.hold(events, answers);
  const result = await running.result;
  await held;
  conversation.throwIfFailed();
  return { command, result, ...report.facts(result) };
}

async function runWrapper(
  command: string,
  [file = '', ...args]: readonly string[],
  options: AlembicCommandOptions,
  common: CommonOptions,
): Promise<AlembicCommandFacts> {
  const report = new CommandReport(options, noProcessCame, 'absent');
  const conversation = new Conversation(report);
  const socket = await openReporterSocket((connection) => conversation.hold(connection, connection));
  let result: ProcessResult;
  try {
    const running = await startProcess({
      ...common,
      file,
      args,
      environment: {
        ...options.environment,
        ...settings(options),
        PYTHONPATH: [pythonPart('wrapped'), options.environment['PYTHONPATH'] ?? '']
          .filter((folder) => folder !== '')
          .join(delimiter),
        RUNBOOK_EVENTS_SOCKET: socket.path,
      },
    });
    conversation.stops(running);
    result = await running.result;
  } finally {
    await socket.close();
  }
  conversation.throwIfFailed();
  return { command, result, ...report.facts(result) };
}

const noProcessCame =
  'no process of the command loaded it: the command is not Python, or its environment does not reach Python (PYTHONPATH replaced, or python -I, -E or -S), or it runs elsewhere, or it ended before Alembic began';

function settings({ timeouts, traceLocks, keepWritersOut }: AlembicCommandOptions): Record<string, string> {
  return {
    ...(timeouts === undefined ? {} : { RUNBOOK_LIMITS: JSON.stringify(limitsByClass(timeouts)) }),
    ...(traceLocks === undefined ? {} : { RUNBOOK_TRACE_LOCKS: traceLocks }),
    ...(keepWritersOut === undefined ? {} : { RUNBOOK_KEEP_WRITERS_OUT: JSON.stringify(keepWritersOut) }),
  };
}

/** Hears the processes of one command, and stops it when a handler throws. */
class Conversation {
  readonly #report: CommandReport;
  readonly #failed = Promise.withResolvers<void>();
  #failure: { readonly error: unknown } | undefined;

  constructor(report: CommandReport) {
    this.#report = report;
  }

  /** Never rejects. */
  async hold(events: Readable, answers: Writable): Promise<void> {
    try {
      await holdBarrier(events, answers, this.#report.handlers());
    } catch (error) {
      this.#failure ??= { error };
      this.#failed.resolve();
    }
  }

  stops(running: RunningProcess): void {
    void this.#failed.promise.then(async () => {
      await Promise.race([running.result, delay(stopGrace, undefined, { ref: false })]).catch(() => undefined);
      await running.stop().catch(() => undefined);
    });
  }

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
