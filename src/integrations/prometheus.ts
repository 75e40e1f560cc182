/** Prometheus' HTTP API, "Instant queries": GET /api/v1/query?query=... */
import { z } from 'zod';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { HttpAnswer } from './http-request.ts';

/** A sample is [seconds since the epoch, "number as text"]; histograms have no single value. */
const sample = z.tuple([z.number(), z.string()]);
const answerForm = z.discriminatedUnion('status', [
  z.object({
    status: z.literal('success'),
    data: z.discriminatedUnion('resultType', [
      z.object({ resultType: z.literal('scalar'), result: sample }),
      z.object({ resultType: z.literal('vector'), result: z.array(z.object({ value: sample.optional() })) }),
      z.object({ resultType: z.literal('matrix') }),
      z.object({ resultType: z.literal('string') }),
    ]),
  }),
  z.object({ status: z.literal('error'), errorType: z.string(), error: z.string() }),
]);

export const queryAddress = (base: string, query: string): string =>
  `${base.replace(/\/+$/, '')}/api/v1/query?${new URLSearchParams({ query }).toString()}`;

/**
 * The one number of an instant query's answer. May be NaN or infinite: the caller decides.
 *
 * @throws StepError `StepRefused` for a query that can never give one number, `CheckFailed` for one without data now,
 *   `OutsideUnavailable` when Prometheus itself is in trouble
 */
export function readInstantValue(answer: HttpAnswer, label: string): number {
  const refused = (text: string): StepError =>
    new StepError(STEP_ERRORS.refused, `${label}: ${text}`, { findings: [`${label}: ${text}`] });
  const form = answerForm.safeParse(answer.json);
  if (!form.success) {
    throw new StepError(
      STEP_ERRORS.unavailable,
      `${label}: status ${answer.status} without an answer of Prometheus' query API`,
    );
  }
  if (form.data.status === 'error') {
    const text = `Prometheus says ${form.data.errorType}: ${form.data.error.slice(0, 300)}`;
    if (form.data.errorType === 'bad_data') throw refused(text);
    throw new StepError(STEP_ERRORS.unavailable, `${label}: ${text}`);
  }
  const { data } = form.data;
  switch (data.resultType) {
    case 'scalar':
      return numberOf(data.result[1]);
    case 'vector': {
      const [first, ...others] = data.result;
      if (first === undefined) throw new StepError(STEP_ERRORS.checkFailed, `${label}: the query has no data`);
      if (others.length > 0) {
        throw refused(`the query gives ${data.result.length} series instead of one: aggregate them, e.g. sum(...)`);
      }
      if (first.value === undefined) throw refused('the query gives a histogram instead of a number');
      return numberOf(first.value[1]);
    }
    case 'matrix':
    case 'string':
      throw refused(`the query gives a ${data.resultType} instead of one number`);
  }
}

/** Go writes +Inf and -Inf. */
const numberOf = (text: string): number =>
  text === '+Inf' ? Number.POSITIVE_INFINITY : text === '-Inf' ? Number.NEGATIVE_INFINITY : Number(text);
