/** Walks through an application as a user would: requests one after the other, each judged, values carried on. */
import { setTimeout as delay } from 'node:timers/promises';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { Flow, FlowRequest, JsonValue } from '../contract/profile.ts';
import { type IntegrationContext, runValues } from './context.ts';
import { answerFailure, filledHeaders } from './http-action.ts';
import { unmetExpectations } from './http-check.ts';
import { type HttpAnswer, type HttpRequest, sendRequest } from './http-request.ts';
import { valueAtPointer, withValueAt } from './json-pointer.ts';
import { fillAddress, fillJson, fillTemplate, type TemplateValues } from './template.ts';

export interface FlowResult {
  readonly name: string;
  readonly requests: number;
  readonly milliseconds: number;
}

const PAUSE = 500;

/**
 * @throws StepError `CheckFailed` naming flow, request and what was not as expected, `OutsideUnavailable` without an answer;
 *   the signal's reason after an abort. Saved values (session tokens, for instance) are struck out of the text.
 */
export async function runFlow(flow: Flow, baseUrl: string, context: IntegrationContext): Promise<FlowResult> {
  const started = performance.now();
  const saved: Record<string, string> = {};
  for (const request of flow.requests) {
    const label = `flow "${flow.name}", ${request.name}: ${request.method} ${request.path}`;
    const answer = await expectedAnswer(request, baseUrl, label, { ...runValues(context.run), ...saved }, context);
    Object.assign(saved, savedValues(request, answer, label));
  }
  return { name: flow.name, requests: flow.requests.length, milliseconds: Math.round(performance.now() - started) };
}

/** The first answer that is as expected, within the request's `retryFor`. */
async function expectedAnswer(
  request: FlowRequest,
  baseUrl: string,
  label: string,
  values: TemplateValues,
  context: IntegrationContext,
): Promise<HttpAnswer> {
  const deadline = performance.now() + request.retryFor;
  const run = runValues(context.run);
  const carried = Object.entries(values).flatMap(([name, value]) =>
    name in run || value === undefined ? [] : [value],
  );
  const redactor = context.secrets.redactor.with(carried);
  for (;;) {
    const answer = await sendRequest(await httpRequest(request, baseUrl, label, values, context));
    const unmet = unmetExpectations(answer, request.expect, values);
    if (unmet.length === 0) return answer;
    if (performance.now() + PAUSE > deadline)
      throw answerFailure(label, answer, unmet, (text) => redactor.redact(text));
    await delay(PAUSE, undefined, { signal: context.signal }).catch(() => {
      throw context.signal.reason;
    });
  }
}

async function httpRequest(
  request: FlowRequest,
  baseUrl: string,
  label: string,
  values: TemplateValues,
  context: IntegrationContext,
): Promise<HttpRequest> {
  const headers = await filledHeaders(request.headers, context, values);
  let body: string | FormData | undefined;
  if (request.upload !== undefined) {
    const { field, fileName, contentType, content } = request.upload;
    body = new FormData();
    body.append(
      field,
      new Blob([fillTemplate(content, values)], { type: contentType }),
      fillTemplate(fileName, values),
    );
  } else if (request.json !== undefined && request.method !== 'GET') {
    let document: JsonValue = fillJson(request.json, values);
    for (const [pointer, reference] of Object.entries(request.secrets)) {
      document = withValueAt(document, pointer, await context.secrets.resolve(reference));
    }
    body = JSON.stringify(document);
    headers['content-type'] ??= 'application/json';
  }
  return {
    method: request.method,
    url: baseUrl.replace(/\/+$/, '') + fillAddress(request.path, values),
    headers,
    ...(body === undefined ? {} : { body }),
    timeout: request.timeout,
    signal: context.signal,
    label,
  };
}

function savedValues(request: FlowRequest, answer: HttpAnswer, label: string): Record<string, string> {
  const saved: Record<string, string> = {};
  for (const [name, pointer] of Object.entries(request.save)) {
    const value = valueAtPointer(answer.json, pointer);
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
      throw new StepError(
        STEP_ERRORS.checkFailed,
        `${label}: the answer has no value at ${pointer} to save as ${name}`,
      );
    }
    saved[name] = String(value);
  }
  return saved;
}
