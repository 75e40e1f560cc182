/** Runs one check of the profile against production. */
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { Check, JsonValue } from '../contract/profile.ts';
import { canonicalJson } from '../archive/canonical.ts';
import { runDocument } from './actions.ts';
import { lastLine, runCommandAction } from './command-action.ts';
import type { IntegrationContext } from './context.ts';
import { runFlow } from './flows.ts';
import { sendHttpAction } from './http-action.ts';
import { onProduction } from './monitor.ts';
import { readSingleValue } from './single-value.ts';

/**
 * @returns a short answer for the evidence
 * @throws StepError `CheckFailed` when the check ran and said no, `OutsideUnavailable` when it got no answer; see also
 *   `runCommandAction`
 */
export async function runCheck(check: Check, context: IntegrationContext): Promise<string> {
  switch (check.kind) {
    case 'command':
      return runCommandCheck(check, context);
    case 'http': {
      const answer = await sendHttpAction(check.action, undefined, context);
      return `status ${answer.status}, as expected`;
    }
    case 'sql':
      return runQuery(check, context);
    case 'flow': {
      const result = await runFlow(check.flow, check.baseUrl, context);
      return `${result.requests} requests, as expected`;
    }
  }
}

async function runCommandCheck(check: Check & { kind: 'command' }, context: IntegrationContext): Promise<string> {
  try {
    const { output } = await runCommandAction(check.action, `${JSON.stringify(runDocument(context.run))}\n`, context);
    return output === '' ? 'exit code 0' : `exit code 0: ${lastLine(output)}`;
  } catch (error) {
    // An exit code is the check's answer, and asking again will not change it.
    if (error instanceof StepError && error.type === STEP_ERRORS.processFailed) {
      throw new StepError(STEP_ERRORS.checkFailed, error.message, error.details);
    }
    throw error;
  }
}

async function runQuery(check: Check & { kind: 'sql' }, context: IntegrationContext): Promise<string> {
  return judgeSqlAnswer(check, await onProduction(context, ({ client }) => readSingleValue(client, check.query)));
}

/**
 * @param found the first value of the first row; undefined without a row
 * @throws StepError `CheckFailed`
 */
export function judgeSqlAnswer(check: Pick<Check & { kind: 'sql' }, 'expect'>, found: JsonValue | undefined): string {
  if (found !== undefined && isEqual(found, check.expect)) return `${shown(found)}, as expected`;
  throw new StepError(
    STEP_ERRORS.checkFailed,
    `the query gave ${found === undefined ? 'no row' : shown(found)} instead of ${shown(check.expect)}`,
  );
}

/** bigint and numeric arrive as text: they equal the number they stand for. */
const isEqual = (found: JsonValue, expected: JsonValue): boolean =>
  typeof expected === 'number' && typeof found === 'string' && found.trim() !== ''
    ? Number(found) === expected
    : canonicalJson(found) === canonicalJson(expected);

const shown = (value: JsonValue): string => JSON.stringify(value).slice(0, 120);
