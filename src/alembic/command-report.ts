import type { Reporter } from '../contract/evidence/rehearsal.ts';
import type { ProcessResult } from '../process/options.ts';
import type { Redactor } from '../process/redactor.ts';
import type { BarrierHandlers, ReporterEvent, ReportHandlers } from './barrier.ts';
import { type FailedOn, failedOnByText, type StatementEvent, StatementReader } from './statements.ts';

/** What our part inside the service's Python told about one command. */
export interface ReportedFacts {
  /** `held` before each revision; `absent` for an Alembic that cannot be held, or a command that our part did not reach. */
  readonly barrier: 'held' | 'absent';
  /** Did our part load inside the service's Python? */
  readonly reporter: Reporter;
  /** The time limit that the command failed on. */
  readonly failedOn?: FailedOn;
  /** What our part met and a reader of the run should know, e.g. that a revision sets its own lock_timeout. */
  readonly notes: readonly string[];
}

interface ReportOptions extends BarrierHandlers {
  readonly redactor: Redactor;
  readonly onStatement?: (event: StatementEvent) => void;
}

const mostNotes = 100;

/** Puts together what the processes of one command tell, until it has ended. */
export class CommandReport {
  readonly #options: ReportOptions;
  readonly #readers: StatementReader[] = [];
  readonly #notes = new Set<string>();
  #reporter: Reporter;
  #barrier: ReportedFacts['barrier'];
  #barrierUnavailable = false;
  #dropped = 0;

  /** @param absentBecause why our part is absent, as long as no process has said that it loaded */
  constructor(options: ReportOptions, absentBecause: string, barrier: ReportedFacts['barrier']) {
    this.#options = options;
    this.#reporter = { kind: 'absent', why: absentBecause };
    this.#barrier = barrier;
  }

  /** For one process. */
  handlers(): BarrierHandlers & ReportHandlers {
    const reader = new StatementReader(this.#options.redactor);
    this.#readers.push(reader);
    const { atBoundary, atWritersKeptOut, onEvent, onStatement } = this.#options;
    return {
      ...(atBoundary === undefined ? {} : { atBoundary }),
      ...(atWritersKeptOut === undefined ? {} : { atWritersKeptOut }),
      onEvent: (event) => {
        if (event.event === 'barrier-unavailable') this.#barrierUnavailable = true;
        if (event.event === 'revision-start') this.#barrier = 'held';
        onEvent?.(event);
      },
      onReporter: (event) => this.#reporterSaid(event),
      onStatementLine: (line) => {
        const event = reader.read(line);
        onStatement?.(event);
      },
    };
  }

  /** Call it once, when the command has ended. @throws what `onStatement` throws */
  facts(result: ProcessResult): ReportedFacts {
    for (const reader of this.#readers) {
      for (const end of reader.end(Date.now())) this.#options.onStatement?.(end);
    }
    const failedOn = this.#failedOn(result);
    if (this.#dropped > 0) {
      this.#notes.add(`${this.#dropped} lines about statements were dropped: the worker read too slowly`);
    }
    return {
      barrier: this.#barrierUnavailable ? 'absent' : this.#barrier,
      reporter: this.#reporter,
      ...(failedOn === undefined ? {} : { failedOn }),
      notes: [...this.#notes].slice(0, mostNotes),
    };
  }

  #reporterSaid(event: ReporterEvent): void {
    switch (event.event) {
      case 'reporter-loaded':
        this.#reporter = { kind: 'loaded' };
        break;
      case 'reporter-absent':
        this.#reporter = { kind: 'absent', why: this.#options.redactor.redact(event.why) };
        break;
      case 'note':
        this.#notes.add(this.#options.redactor.redact(event.text));
        break;
      case 'dropped':
        this.#dropped += event.count;
        break;
    }
  }

  #failedOn(result: ProcessResult): FailedOn | undefined {
    const code = result.kind === 'exited' ? result.code : undefined;
    if (this.#reporter.kind === 'absent') return code === 0 ? undefined : failedOnByText(result.stderrTail);
    return this.#readers.map((reader) => reader.failedOn).findLast((found) => found !== undefined);
  }
}
