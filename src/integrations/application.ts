/** Boots the service's application for a while, on a port of its own, and stops all of it. */
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import type { ProcessResult, RunningProcess } from '../process/options.ts';
import { startProcess } from '../process/run.ts';
import type { Redactor } from '../process/redactor.ts';
import { sendRequest } from './http-request.ts';
import { fillTemplate, type TemplateValues } from './template.ts';

export interface ApplicationStart {
  /** Program and arguments; `{{port}}` is filled in. */
  readonly command: readonly string[];
  readonly directory: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Added to the environment, placeholders filled in. */
  readonly templates: Readonly<Record<string, string>>;
  readonly readyPath: string;
  /** Milliseconds until it must be ready. */
  readonly timeout: number;
  readonly values: TemplateValues;
  readonly redactor: Redactor;
  readonly signal: AbortSignal;
}

export interface BootedApplication {
  /** `http://127.0.0.1:PORT` */
  readonly baseUrl: string;
  readonly bootMilliseconds: number;
}

const POLL = 250;

/**
 * Starts the application, waits until its ready path answers with success, hands it to `work`, and stops its whole process
 * group whatever happens.
 *
 * @throws StepError `CheckFailed` with the end of its output when it ends or does not get ready in time
 */
export async function withApplication<T>(
  start: ApplicationStart,
  work: (application: BootedApplication) => Promise<T>,
): Promise<T> {
  const port = await freePort();
  const values = { ...start.values, port: String(port) };
  const [file = '', ...args] = start.command.map((word) => fillTemplate(word, values));
  const filled = Object.fromEntries(
    Object.entries(start.templates).map(([name, template]) => [name, fillTemplate(template, values)]),
  );
  const began = performance.now();
  const running = await startProcess({
    file,
    args,
    directory: start.directory,
    environment: { PYTHONUNBUFFERED: '1', ...start.environment, ...filled },
    signal: start.signal,
    redactor: start.redactor,
    label: 'application',
  }).catch((error: unknown) => {
    throw error instanceof ProcessNotStarted
      ? new StepError(STEP_ERRORS.refused, `the application cannot be started: ${error.message}`)
      : error;
  });
  // Observed below; without this an early end during a request would be an unhandled rejection.
  running.result.catch(() => undefined);
  try {
    const baseUrl = `http://127.0.0.1:${port}`;
    await waitUntilReady(baseUrl, start, running);
    return await work({ baseUrl, bootMilliseconds: Math.round(performance.now() - began) });
  } finally {
    await running.stop().catch(() => undefined);
  }
}

async function waitUntilReady(baseUrl: string, start: ApplicationStart, running: RunningProcess): Promise<void> {
  const deadline = performance.now() + start.timeout;
  let ended: ProcessResult | undefined;
  void running.result.then(
    (result) => (ended = result),
    () => undefined,
  );
  let last = 'no answer';
  while (performance.now() < deadline) {
    start.signal.throwIfAborted();
    if (ended !== undefined) throw notReady(`ended while it started (${endingOf(ended)})`, ended);
    try {
      const answer = await sendRequest({
        method: 'GET',
        url: baseUrl + start.readyPath,
        headers: {},
        timeout: 5_000,
        signal: start.signal,
        label: start.readyPath,
      });
      // Somebody else may have taken the port in between and answer in its place.
      if (answer.status >= 200 && answer.status <= 299 && ended === undefined) return;
      last = `status ${answer.status}`;
    } catch (error) {
      if (start.signal.aborted || !(error instanceof StepError)) throw error;
    }
    await delay(POLL);
  }
  const result = ended ?? (await running.stop().catch(() => undefined));
  throw notReady(`was not ready within ${start.timeout / 1000} s (${start.readyPath}: ${last})`, result);
}

const endingOf = (result: ProcessResult): string =>
  result.kind === 'exited' ? `exit code ${result.code}` : `signal ${result.signal}`;

function notReady(what: string, result: ProcessResult | undefined): StepError {
  const tail = `${result?.stdoutTail ?? ''}${result?.stderrTail ?? ''}`.trim().slice(-1_000);
  return new StepError(STEP_ERRORS.checkFailed, `the application ${what}${tail === '' ? '' : `: ${tail}`}`, { tail });
}

/** A port of the loopback interface that nobody listens on now. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === 'string') throw new Error('the loopback interface has no port');
  return address.port;
}
