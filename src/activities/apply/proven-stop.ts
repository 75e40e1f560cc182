import { CancelledFailure } from '@temporalio/common';
import { prepareSessionStop, type SessionsStopped, type SessionStopOptions } from '../../postgres/session-stop.ts';

export interface ProvenStopOptions extends SessionStopOptions {
  /** Stops the work when it aborts. */
  readonly signal: AbortSignal;
  /** Milliseconds until whoever is left is reported. @default 15000 */
  readonly within?: number;
  /** Told when nothing is left after an abort. */
  readonly onStopped?: (stopped: SessionsStopped) => void;
}

export interface Stopping {
  /**
   * For the process group: aborts when waiting longer for an orderly end is of no use, because the migration has no session
   * any more and has had half a second since it was asked to end.
   */
  readonly force: AbortSignal;
}

const WITHIN = 15_000;
/** Between SIGTERM and SIGKILL at least, in milliseconds. */
const LEAST_GRACE = 500;

/**
 * Runs work that migrates. From the moment the signal aborts, the migrator's sessions are ended on the server, beside the
 * stopping of the process group by the work itself. Settles only when the work has settled (its processes are gone) and no
 * session is left; otherwise it says after `within` who is.
 *
 * @param work must stop when the signal aborts, and settle when its processes are gone
 * @throws CancelledFailure with the proof as its details, after a cancellation by Temporal; what the work threw after any
 * other abort
 */
export async function withProvenStop<T>(
  options: ProvenStopOptions,
  work: (stopping: Stopping) => Promise<T>,
): Promise<T> {
  const { signal } = options;
  signal.throwIfAborted();
  const sessions = await prepareSessionStop(options);
  const force = new AbortController();
  const settled = Promise.withResolvers<void>();
  let stopped: Promise<SessionsStopped> | undefined;
  const stop = (): void => {
    const notBefore = performance.now() + LEAST_GRACE;
    const onNoneLeft = (): void => {
      if (performance.now() >= notBefore) force.abort();
    };
    stopped = sessions.stop(settled.promise, onNoneLeft, options.within ?? WITHIN);
    stopped.catch(() => undefined);
  };
  signal.addEventListener('abort', stop, { once: true });
  try {
    if (signal.aborted) stop();
    return await work({ force: force.signal });
  } catch (error) {
    if (stopped === undefined) throw error;
    settled.resolve();
    const proof = await proven(stopped, signal);
    options.onStopped?.(proof);
    throw signal.reason instanceof CancelledFailure ? new CancelledFailure(signal.reason.message, [proof]) : error;
  } finally {
    signal.removeEventListener('abort', stop);
    settled.resolve();
    await stopped?.catch(() => undefined);
    await sessions.close();
  }
}

/** A stop without proof is told as such, and not as whatever the work threw. */
async function proven(stopped: Promise<SessionsStopped>, signal: AbortSignal): Promise<SessionsStopped> {
  try {
    return await stopped;
  } catch (error) {
    if (!(signal.reason instanceof CancelledFailure)) throw error;
    const notProven = error instanceof Error ? error.message : String(error);
    throw new CancelledFailure(signal.reason.message, [{ notProven }]);
  }
}
