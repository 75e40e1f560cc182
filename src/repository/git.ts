import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import type { ProcessResult } from '../process/options.ts';
import type { Redactor } from '../process/redactor.ts';
import { runProcess } from '../process/run.ts';

export interface GitOptions {
  readonly signal: AbortSignal;
  readonly redactor: Redactor;
  /** Working directory. */
  readonly directory?: string;
  readonly onLine?: (line: string) => void;
}

/**
 * What git and ssh need of the worker's environment to reach a repository: their own settings, agents and proxies.
 * Everything else of the worker stays with the worker.
 */
const PASSED =
  /^(?:SSH_AUTH_SOCK|GIT_SSH|GIT_SSH_COMMAND|GIT_ASKPASS|SSH_ASKPASS|GIT_SSL_\w+|SSL_CERT_FILE|SSL_CERT_DIR|XDG_CONFIG_HOME|GIT_CONFIG_GLOBAL|(?:https?|all|no)_proxy)$/i;

const environment = (): Record<string, string> => ({
  ...Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) =>
      value !== undefined && PASSED.test(name) ? [[name, value]] : [],
    ),
  ),
  // A question would wait for somebody who is not there.
  GIT_TERMINAL_PROMPT: '0',
  // Messages are read below.
  LC_ALL: 'C',
});

/** The checkout is the release as it is in the repository: nobody's hooks, templates or background maintenance. */
const SETTINGS = [
  'core.hooksPath=/dev/null',
  'init.templateDir=',
  'gc.auto=0',
  'maintenance.auto=false',
  'advice.detachedHead=false',
  'core.fsmonitor=false',
  'protocol.ext.allow=never',
];

/** Runs git; any exit code is a result. @throws StepError `StepRefused` where there is no git; the signal's reason */
export async function runGit(args: readonly string[], options: GitOptions): Promise<ProcessResult> {
  const directory = options.directory ?? '/';
  const settings = [...SETTINGS, `safe.directory=${directory}`].flatMap((setting) => ['-c', setting]);
  try {
    return await runProcess({
      file: 'git',
      args: [...settings, ...args],
      directory,
      environment: environment(),
      signal: options.signal,
      redactor: options.redactor,
      label: `git ${args[0] ?? ''}`,
      limits: { tail: 1024 * 1024 },
      ...(options.onLine === undefined ? {} : { onLine: (_stream, line) => options.onLine?.(line) }),
    });
  } catch (error) {
    if (!(error instanceof ProcessNotStarted)) throw error;
    throw new StepError(STEP_ERRORS.refused, `git cannot be run (${error.message}): install it on the worker's host.`);
  }
}

/** Runs git and returns what it wrote. @throws StepError that names the remedy */
export async function git(args: readonly string[], url: string, options: GitOptions): Promise<string> {
  const result = await runGit(args, options);
  if (result.kind === 'exited' && result.code === 0) return result.stdoutTail;
  throw gitFailure(args[0] ?? '', url, result, options.redactor);
}

interface KnownFailure {
  readonly pattern: RegExp;
  readonly type: (typeof STEP_ERRORS)['refused' | 'unavailable'];
  readonly remedy: string;
}

const KNOWN: readonly KnownFailure[] = [
  {
    pattern:
      /could not read (?:Username|Password)|Authentication failed|terminal prompts disabled|Permission denied \(publickey|HTTP (?:401|403)|returned error: 40[13]/i,
    type: STEP_ERRORS.refused,
    remedy: "Give the worker's user a credential that may read it (deploy key or credential helper).",
  },
  {
    pattern: /Host key verification failed/i,
    type: STEP_ERRORS.refused,
    remedy: "Add the server's host key to known_hosts of the worker's user.",
  },
  {
    pattern: /dubious ownership/i,
    type: STEP_ERRORS.refused,
    remedy: "It belongs to another user: add it to safe.directory in the git configuration of the worker's user.",
  },
  {
    pattern:
      /does not appear to be a git repository|repository .* not found|Repository not found|does not exist|not a git repository|returned error: 404|protocol .* is not supported|transport '.*' not allowed/i,
    type: STEP_ERRORS.refused,
    remedy: 'Correct repository.url in the profile.',
  },
  {
    pattern:
      /Could not resolve|Failed to connect|Couldn't connect|Connection (?:refused|reset|timed out|closed)|timed out|early EOF|unexpected disconnect|hung up|Network is unreachable|returned error: 5\d\d|RPC failed/i,
    type: STEP_ERRORS.unavailable,
    remedy: 'The server does not answer at present.',
  },
  { pattern: /No space left/i, type: STEP_ERRORS.unavailable, remedy: "Make room in the worker's state directory." },
];

function gitFailure(command: string, url: string, result: ProcessResult, redactor: Redactor): StepError {
  const said = result.stderrTail.trim().slice(-600);
  const known = KNOWN.find(({ pattern }) => pattern.test(said));
  return new StepError(
    known?.type ?? STEP_ERRORS.processFailed,
    `git ${command} of ${shownUrl(url, redactor)} failed. ${known?.remedy ?? ''} git says: ${withoutUserinfo(said) || 'nothing'}`,
    { program: 'git', exitCode: result.kind === 'exited' ? result.code : null, tail: withoutUserinfo(said) },
  );
}

export const shownUrl = (url: string, redactor: Redactor): string =>
  redactor.redact(withoutUserinfo(url)).slice(0, 200);

const withoutUserinfo = (text: string): string => text.replaceAll(/(\w+:\/\/)[^\s/@]*@/g, '$1');

/** An address git cannot mistake for an option. @throws StepError `StepRefused` */
export function requireUrl(url: string): string {
  if (url.trim() === '' || url.startsWith('-') || /[\0\r\n]/.test(url)) {
    throw new StepError(STEP_ERRORS.refused, 'repository.url is not the address of a git repository.');
  }
  return url;
}
