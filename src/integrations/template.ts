import { refusal } from '../contract/errors.ts';
import type { JsonValue } from '../contract/profile.ts';

/** Values by placeholder name. One that has none yet stops the step: half-filled commands are worse than none. */
export type TemplateValues = Readonly<Record<string, string | undefined>>;

/**
 * Replaces every `{{name}}`. Values are put in as they are and not looked at again.
 *
 * @throws StepError `StepRefused` naming the placeholders that have no value here
 */
export function fillTemplate(text: string, values: TemplateValues): string {
  return fill(text, values, (value) => value);
}

/** The same for addresses: values are percent-encoded, so that none can change where the request goes. */
export function fillAddress(text: string, values: TemplateValues): string {
  return fill(text, values, encodeURIComponent);
}

/** The same for every string of a JSON document. */
export function fillJson(value: JsonValue, values: TemplateValues): JsonValue {
  if (typeof value === 'string') return fillTemplate(value, values);
  if (typeof value !== 'object' || value === null) return value;
  if (isList(value)) return value.map((item) => fillJson(item, values));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fillJson(item, values)]));
}

const isList = (value: JsonValue): value is readonly JsonValue[] => Array.isArray(value);

function fill(text: string, values: TemplateValues, encode: (value: string) => string): string {
  const missing = new Set<string>();
  const filled = text.replaceAll(/\{\{\s*(\w+)\s*\}\}/g, (_match, name: string) => {
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    if (value === undefined) missing.add(name);
    return value === undefined ? '' : encode(value);
  });
  if (missing.size > 0) {
    throw refusal([...missing].map((name) => `{{${name}}} has no value at this step of this run`));
  }
  return filled;
}
