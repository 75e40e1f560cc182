import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { CommandAction } from '../contract/profile.ts';
import { endingText, ProcessNotStarted } from '../process/errors.ts';
import type { ProcessResult } from '../process/options.ts';
import { runProcess } from '../process/run.ts';
import { type IntegrationContext, runValues } from './context.ts';
import { fillTemplate, type TemplateValues } from './template.ts';

export interface CommandAnswer {
  readonly result: ProcessResult;
  /** What it wrote to standard output, redacted, without surrounding space. At most the last 64 kB. */
  readonly output: string;
}

const OUTPUT_LIMIT = 64 * 1024;

/**
 * Runs a command of the profile: no shell, its own environment and time limit, `input` on standard input.
 *
 * @throws StepError `ProcessFailed` unless it exits with 0, `StepRefused` if it cannot be started; the signal's reason after an abort
 */
export async function runCommandAction(
  action: CommandAction,
  input: string,
  context: IntegrationContext,
  more: TemplateValues = {},
): Promise<CommandAnswer> {
  const literals = Object.values(action.environment).filter((value) => typeof value === 'string');
  const needsCheckout =
    action.directory === 'checkout' ||
    [...action.command, ...literals].some((text) => /\{\{\s*checkout\s*\}\}/.test(text));
  const checkout = needsCheckout ? await context.checkout() : undefined;
  const values = { ...runValues(context.run), ...more, checkout };
  const [file = '', ...args] = action.command.map((word) => fillTemplate(word, values));
  const environment = await commandEnvironment(action, context, values);
  const limit = AbortSignal.timeout(action.timeout);
  const label = `command ${file}`;
  try {
    const result = await runProcess({
      file,
      args,
      directory: action.directory === 'checkout' && checkout !== undefined ? checkout : context.profile.home,
      environment,
      input,
      signal: AbortSignal.any([context.signal, limit]),
      redactor: context.secrets.redactor,
      limits: { tail: OUTPUT_LIMIT, line: OUTPUT_LIMIT },
      label,
    });
    if (result.kind !== 'exited' || result.code !== 0) throw commandFailure(label, file, result);
    return { result, output: result.stdoutTail.trim() };
  } catch (error) {
    if (context.signal.aborted) throw context.signal.reason;
    if (limit.aborted) {
      throw new StepError(
        STEP_ERRORS.unavailable,
        `${label} did not end within ${action.timeout / 1000} s and was stopped`,
      );
    }
    if (error instanceof ProcessNotStarted) throw new StepError(STEP_ERRORS.refused, `${label}: ${error.message}`);
    throw error;
  }
}

async function commandEnvironment(
  action: CommandAction,
  context: IntegrationContext,
  values: TemplateValues,
): Promise<Record<string, string>> {
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(action.environment)) {
    environment[name] =
      typeof value === 'string' ? fillTemplate(value, values) : await context.secrets.resolveValue(value);
  }
  return environment;
}

function commandFailure(label: string, program: string, result: ProcessResult): StepError {
  const said = (result.stderrTail.trim() === '' ? result.stdoutTail : result.stderrTail).trim().slice(-1_000);
  return new StepError(STEP_ERRORS.processFailed, endingText(label, result, said), {
    program,
    exitCode: result.kind === 'exited' ? result.code : null,
    tail: said,
  });
}

/** The last line a command wrote, for evidence. */
export const lastLine = (output: string): string => (output.split('\n').at(-1) ?? '').trim().slice(0, 200);
