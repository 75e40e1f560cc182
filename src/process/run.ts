import { basename } from 'node:path';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { cancellation, ProcessFailed } from './errors.ts';
import type { ProcessOptions, ProcessResult, RunningProcess } from './options.ts';
import { spawnGroup } from './spawn.ts';

/**
 * Runs a process to its end and tells how it ended. Any exit code is a result: see `requireSuccess`.
 * @throws ProcessNotStarted; the signal's reason (or `ProcessCancelled`) after an abort, once nothing of the group lives
 */
export async function runProcess(options: ProcessOptions): Promise<ProcessResult> {
  const running = await startProcess(options);
  return running.result;
}

/** Starts a process that is to live on beside the caller, such as a server. @throws ProcessNotStarted */
export async function startProcess(options: ProcessOptions): Promise<RunningProcess> {
  const { running, stdout } = await spawnGroup(options);
  running.readLines('stdout', stdout);
  return running;
}

export interface StreamingProcess extends RunningProcess {
  /**
   * What the process writes to standard output. The stream ends only after the process has ended with code 0; otherwise
   * it fails, with `ProcessFailed` or the signal's reason, so a program that dies half-way is never taken for a whole.
   * Destroying it stops the process.
   */
  readonly stdout: Readable;
}

/** Starts a process whose standard output is a stream of bytes for a pipeline. @throws ProcessNotStarted */
export async function streamProcess(options: ProcessOptions): Promise<StreamingProcess> {
  const { running, stdout } = await spawnGroup(options);
  const succeeded = running.result.then((result) => {
    requireSuccess(result, labelOf(options));
  });
  const held = new Transform({
    transform: (chunk, _encoding, done) => done(null, chunk),
    flush: (done) => {
      succeeded.then(() => done(), done);
    },
  });
  succeeded.catch((error: unknown) => held.destroy(error as Error));
  const abort = (): void => {
    held.destroy(cancellation(options.signal));
  };
  options.signal.addEventListener('abort', abort, { once: true });
  held.once('close', () => {
    options.signal.removeEventListener('abort', abort);
    running.stop().catch(() => undefined);
  });
  // The errors reach the consumer by `held` itself.
  pipeline(stdout, held).catch(() => undefined);
  return {
    pid: running.pid,
    channels: running.channels,
    result: running.result,
    stop: () => running.stop(),
    stdout: held,
  };
}

/** @throws ProcessFailed unless the process exited with one of the accepted codes */
export function requireSuccess(
  result: ProcessResult,
  label: string,
  accepted: readonly number[] = [0],
): asserts result is ProcessResult & { kind: 'exited' } {
  if (result.kind !== 'exited' || !accepted.includes(result.code)) throw new ProcessFailed(label, result);
}

function labelOf(options: ProcessOptions): string {
  return options.label ?? basename(options.file);
}
