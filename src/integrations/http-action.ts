import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { ConfiguredValue, HttpAction, JsonValue } from '../contract/profile.ts';
import { type IntegrationContext, runValues } from './context.ts';
import { unmetExpectations } from './http-check.ts';
import { type HttpAnswer, sendRequest } from './http-request.ts';
import { fillAddress, fillJson, fillTemplate, type TemplateValues } from './template.ts';

/** What messages call an address: without its query, which may be long; a secret one not at all. */
export function describeAddress(url: ConfiguredValue): string {
  return typeof url === 'string' ? (url.split(/[?#]/, 1)[0] ?? '') : 'the address given by reference';
}

/**
 * Sends the request of an action of the profile.
 *
 * @param facts sent as JSON where the action has no body of its own; undefined for requests that only ask
 * @param key same for the same act: a receiver that knows `Idempotency-Key` does not do it twice
 * @throws StepError `CheckFailed` when the answer is not as expected, `OutsideUnavailable` without an answer or with one of
 *   429, 502, 503, 504 that is not expected; the signal's reason after an abort
 */
export async function sendHttpAction(
  action: HttpAction,
  facts: JsonValue | undefined,
  context: IntegrationContext,
  more: TemplateValues & { readonly idempotencyKey?: string } = {},
): Promise<HttpAnswer> {
  const values = { ...runValues(context.run), ...more };
  const label = `${action.method} ${describeAddress(action.url)}`;
  const body = action.body === undefined ? facts : fillJson(action.body, values);
  const headers = await filledHeaders(action.headers, context, values);
  const answer = await sendRequest({
    method: action.method,
    url:
      typeof action.url === 'string' ? fillAddress(action.url, values) : await context.secrets.resolveValue(action.url),
    headers: {
      ...(body === undefined || action.method === 'GET' ? {} : { 'content-type': 'application/json' }),
      ...(more.idempotencyKey === undefined ? {} : { 'idempotency-key': more.idempotencyKey }),
      ...headers,
    },
    ...(body === undefined || action.method === 'GET' ? {} : { body: JSON.stringify(body) }),
    timeout: action.timeout,
    signal: context.signal,
    label,
  });
  const unmet = unmetExpectations(answer, action.expect, values);
  if (unmet.length > 0)
    throw answerFailure(label, answer, unmet, context.secrets.redactor.redact.bind(context.secrets.redactor));
  return answer;
}

/** Header values with placeholders filled in and references resolved; names in lower case. */
export async function filledHeaders(
  headers: HttpAction['headers'],
  context: IntegrationContext,
  values: TemplateValues,
): Promise<Record<string, string>> {
  const filled: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    filled[name.toLowerCase()] =
      typeof value === 'string' ? fillTemplate(value, values) : await context.secrets.resolveValue(value);
  }
  return filled;
}

const BUSY: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/** One sentence about an answer that is not as expected, with the beginning of its body. */
export function answerFailure(
  label: string,
  answer: HttpAnswer,
  unmet: readonly string[],
  redact: (text: string) => string,
): StepError {
  const said = redact(answer.text.replaceAll(/\s+/g, ' ').trim()).slice(0, 200);
  return new StepError(
    BUSY.has(answer.status) ? STEP_ERRORS.unavailable : STEP_ERRORS.checkFailed,
    redact(`${label}: ${unmet.join('; ')}${said === '' ? '' : `; it said: ${said}`}`),
    { status: answer.status, unmet: unmet.map(redact) },
  );
}
