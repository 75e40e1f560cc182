import type { ExitCode } from './command-error.ts';
import type { Output } from './output.ts';

/** What a command handler needs beside its options. */
export interface CommandContext {
  readonly output: Output;
  /** Sets the exit code; the command ends by returning. */
  readonly exit: (code: ExitCode) => void;
}
