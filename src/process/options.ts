import type { Duplex, Readable } from 'node:stream';
import type { Redactor } from './redactor.ts';

export type OutputStream = 'stdout' | 'stderr';

export interface ProcessLimits {
  /** Characters kept of the end of each output stream. @default 16384 */
  readonly tail?: number;
  /** Characters kept of one line; the rest of the line is dropped. @default 8192 */
  readonly line?: number;
  /** Milliseconds between SIGTERM and SIGKILL. @default 1000 */
  readonly grace?: number;
}

export interface ProcessProgress {
  readonly elapsedMilliseconds: number;
  readonly lines: number;
  /** The newest line of either stream, redacted. */
  readonly lastLine: string | undefined;
}

export interface ProcessOptions {
  /** The program: a name looked up in the child's PATH, or a path (relative to `directory`). */
  readonly file: string;
  readonly args?: readonly string[];
  /** Working directory. @default '/' */
  readonly directory?: string;
  /** The child's environment. Of the worker's own it gets PATH, HOME, LANG and TZ, and nothing else. */
  readonly environment?: Readonly<Record<string, string>>;
  /**
   * What the child reads from standard input; without it, `/dev/null`. A stream that fails stops the child. Of an iterable
   * that is no stream, the next chunk is asked for only when the one before is written, and no longer looked at.
   */
  readonly input?: string | Uint8Array | Readable | AsyncIterable<Uint8Array>;
  /**
   * What happens to an input stream whose reader has closed its end early (`pg_restore --list` does, and that is no
   * failure): `drain` reads it to its end for whoever else looks at it, `destroy` ends it. @default 'drain'
   */
  readonly unreadInput?: 'drain' | 'destroy';
  /** Stops the whole process group: SIGTERM, SIGKILL after the grace. */
  readonly signal: AbortSignal;
  /** Ends the grace: once it has aborted, a group that was sent SIGTERM is sent SIGKILL at once. */
  readonly force?: AbortSignal;
  readonly redactor: Redactor;
  /**
   * What becomes of values of rows that PostgreSQL and SQLAlchemy put beside an error: see `rowValueFilter`. Struck out, they
   * come neither into lines nor into the tails. @default 'as-written'
   */
  readonly rowValues?: 'as-written' | 'struck-out';
  readonly onLine?: (stream: OutputStream, line: string) => void;
  /** Called every second while the process lives. */
  readonly progress?: (progress: ProcessProgress) => void;
  readonly limits?: ProcessLimits;
  /** Number of additional two-way channels, found by the child at file descriptor 4 and up. At most 5. */
  readonly channels?: number;
  /** What messages call the process. @default the program's name */
  readonly label?: string;
}

interface ProcessFacts {
  readonly durationMilliseconds: number;
  /** The end of what it wrote, redacted and bounded. Empty for a stream that was handed out. */
  readonly stdoutTail: string;
  readonly stderrTail: string;
}

/** How a process ended. It says nothing about what the process did to the world. */
export type ProcessResult = ProcessFacts &
  ({ readonly kind: 'exited'; readonly code: number } | { readonly kind: 'signaled'; readonly signal: NodeJS.Signals });

export interface RunningProcess {
  /** Also the id of its process group. */
  readonly pid: number;
  /** The channels asked for; the first is the child's file descriptor `firstChannel`. */
  readonly channels: readonly Duplex[];
  /**
   * Resolves when the process has ended and nothing of its group is left. Rejects with the signal's reason after an
   * abort (`ProcessCancelled` where that is no Error), and with the error of a failed input stream or `onLine`.
   */
  readonly result: Promise<ProcessResult>;
  /** Stops the group and settles, as `result` does, when nothing of it is left. */
  stop(): Promise<ProcessResult>;
}

/** The file descriptor at which a child finds its first channel. */
export const firstChannel = 4;
