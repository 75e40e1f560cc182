/** Exit codes of `runbook`. Those of a run that was waited for tell its outcome. */
export const EXIT_CODES = {
  succeeded: 0,
  /** Refused, not found, or not reachable: the message says which. */
  refused: 1,
  usage: 2,
  aborted: 3,
  'rolled-back': 4,
  restored: 5,
  'handed-over': 6,
  /** The run was terminated or ended without an outcome: nothing is proven. */
  lost: 7,
  /** Ctrl-C: no longer watched; the run goes on. */
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT_CODES)[keyof typeof EXIT_CODES];

/** Ends a command with one line on standard error. */
export class CommandError extends Error {
  readonly exitCode: ExitCode;

  constructor(message: string, exitCode: ExitCode = EXIT_CODES.refused) {
    super(message);
    this.name = 'CommandError';
    this.exitCode = exitCode;
  }
}

/** Several findings on one line, numbered. */
export const usageError = (findings: readonly string[]): CommandError =>
  new CommandError(
    findings.length === 1
      ? findings[0]!
      : `${findings.length} findings: ${findings.map((finding, index) => `(${index + 1}) ${finding}`).join(' ')}`,
    EXIT_CODES.usage,
  );
