/** Judges an HTTP answer by status and body. A health page that says "degraded" with status 200 is not healthy. */
import type { HttpExpectation, JsonValue } from '../contract/profile.ts';
import { canonicalJson } from '../archive/canonical.ts';
import type { HttpAnswer } from './http-request.ts';
import { valueAtPointer } from './json-pointer.ts';
import { fillJson, fillTemplate, type TemplateValues } from './template.ts';

/** What is not as expected; empty when all is. Answers are quoted in part: redact before showing. */
export function unmetExpectations(answer: HttpAnswer, expect: HttpExpectation, values: TemplateValues = {}): string[] {
  const unmet: string[] = [];
  if (!expect.status.includes(answer.status)) {
    const elsewhere = answer.status >= 300 && answer.status < 400 ? ', a redirect that is not followed' : '';
    unmet.push(`status ${answer.status}${elsewhere} instead of ${expect.status.join(' or ')}`);
  }
  const pointers = Object.entries(expect.json);
  if (pointers.length > 0 && answer.json === undefined) {
    unmet.push('the answer is not JSON');
  } else {
    for (const [pointer, expected] of pointers) {
      const wanted = fillJson(expected, values);
      const found = valueAtPointer(answer.json, pointer);
      if (found === undefined) unmet.push(`${pointer} is missing instead of ${shown(wanted)}`);
      else if (canonicalJson(found) !== canonicalJson(wanted)) {
        unmet.push(`${pointer} is ${shown(found)} instead of ${shown(wanted)}`);
      }
    }
  }
  for (const part of expect.contains) {
    const wanted = fillTemplate(part, values);
    if (!answer.text.includes(wanted)) unmet.push(`the answer does not contain ${shown(wanted)}`);
  }
  return unmet;
}

const shown = (value: JsonValue): string => {
  const text = JSON.stringify(value);
  return text.length > 120 ? `${text.slice(0, 120)}...` : text;
};
