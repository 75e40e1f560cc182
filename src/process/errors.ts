import type { ProcessResult } from './options.ts';

/** The program could not be started: not found, not executable, or its working directory does not exist. */
export class ProcessNotStarted extends Error {
  override readonly name = 'ProcessNotStarted';
  readonly reason: 'program-not-found' | 'directory-not-found' | 'invalid-environment' | 'not-spawned';

  constructor(reason: ProcessNotStarted['reason'], message: string) {
    super(message);
    this.reason = reason;
  }
}

/** The process was stopped because its `AbortSignal` fired with a reason that is no `Error`. */
export class ProcessCancelled extends Error {
  override readonly name = 'ProcessCancelled';
}

/** The process ended otherwise than with an accepted exit code. The message is redacted and bounded. */
export class ProcessFailed extends Error {
  override readonly name = 'ProcessFailed';
  readonly result: ProcessResult;

  constructor(label: string, result: ProcessResult) {
    super(describeFailure(label, result));
    this.result = result;
  }
}

const shownTail = 1_200;

function describeFailure(label: string, result: ProcessResult): string {
  const said = (result.stderrTail.trim() === '' ? result.stdoutTail : result.stderrTail).trim();
  return endingText(label, result, said.slice(-shownTail));
}

/** How a process ended that did not succeed, in one sentence. @param said end of its output, may be empty */
export function endingText(label: string, result: ProcessResult, said: string): string {
  const ending = result.kind === 'exited' ? `exited with code ${result.code}` : `was ended by ${result.signal}`;
  return said === '' ? `${label} ${ending} and said nothing` : `${label} ${ending}: ${said}`;
}

/** What an operation stopped by the signal throws: the signal's reason, or `ProcessCancelled` where that is no Error. */
export function cancellation(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new ProcessCancelled('the process was stopped');
}
