import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { runProcess } from '../process/run.ts';

/** What makes a fresh checkout usable, e.g. `uv sync --frozen`. */
export interface Prepare {
  readonly command: readonly string[];
  /** Milliseconds. */
  readonly timeout: number;
}

export interface PrepareOptions {
  readonly signal: AbortSignal;
  readonly redactor: Redactor;
  readonly progress?: (line: string) => void;
}

/** Package managers find their index, proxy and certificates in these variables of the worker. */
const PASSED =
  /^(?:(?:https?|all|no)_proxy|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|NODE_EXTRA_CA_CERTS|XDG_CACHE_HOME|(?:PIP|UV|POETRY|NPM_CONFIG)_\w+)$/i;

/** @throws StepError `StepRefused` where the program is missing, `ProcessFailed` where it fails or takes too long */
export async function prepareCheckout(directory: string, prepare: Prepare, options: PrepareOptions): Promise<void> {
  const [file = '', ...args] = prepare.command;
  const shown = prepare.command.join(' ').slice(0, 160);
  const environment = Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) =>
      value !== undefined && PASSED.test(name) ? [[name, value]] : [],
    ),
  );
  const limit = AbortSignal.timeout(prepare.timeout);
  try {
    const result = await runProcess({
      file,
      args,
      directory,
      environment,
      signal: AbortSignal.any([options.signal, limit]),
      // An index address may carry a password of its own.
      redactor: options.redactor.with(Object.values(environment).filter((value) => /:\/\/[^/]*@/.test(value))),
      onLine: (_stream, line) => options.progress?.(line),
    });
    if (result.kind === 'exited' && result.code === 0) return;
    const said = (result.stderrTail || result.stdoutTail).trim().slice(-800);
    throw failure(`repository.prepare (${shown}) failed in the checkout: ${said || 'it said nothing'}`);
  } catch (error) {
    options.signal.throwIfAborted();
    if (limit.aborted) throw failure(`repository.prepare (${shown}) took longer than ${prepare.timeout / 1000} s.`);
    if (error instanceof ProcessNotStarted) {
      throw new StepError(STEP_ERRORS.refused, `repository.prepare (${shown}) cannot be run: ${error.message}.`);
    }
    throw error;
  }
}

const failure = (message: string): StepError =>
  new StepError(STEP_ERRORS.processFailed, message, { program: 'prepare' });
