/** Building blocks of the profile's schema: strict objects, choices by key, durations, sizes, references. */
import { z } from 'zod';
import type { ConfiguredValue, JsonValue, SecretReference } from '../contract/profile.ts';
import { describeIssue } from './issue-text.ts';
import { parseDuration, parseSize } from './quantities.ts';

/** What the reference page and its test walk over: the variants behind a choice are invisible to zod's own introspection. */
const choices = new WeakMap<z.ZodType, readonly z.ZodType[]>();

export const variantsOf = (schema: z.ZodType): readonly z.ZodType[] => choices.get(schema) ?? [];

/** An object in which an unknown key is a finding that names the known ones. */
export function object<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys'
        ? `has ${(issue.keys ?? []).map((key) => `"${key}"`).join(', ')}, which is not a key here. Known: ${Object.keys(shape).join(', ')}`
        : undefined,
  });
}

/**
 * One of several forms, told apart by which of the distinguishing keys is present: one clear finding instead of those of
 * every form that did not match.
 *
 * @param variants schema by distinguishing key
 */
export function choice<const Variants extends Readonly<Record<string, z.ZodType>>>(
  variants: Variants,
): z.ZodType<z.output<Variants[keyof Variants]>> {
  const names = Object.keys(variants);
  const schema = z.unknown().transform((value, context): z.output<Variants[keyof Variants]> => {
    const finding = (message: string): never => {
      context.addIssue({ code: 'custom', message });
      return z.NEVER;
    };
    const expected = `expected an object with one of: ${names.join(', ')}`;
    if (value === undefined) return finding(`is missing: ${expected}`);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return finding(expected);
    const present = names.filter((name) => Object.hasOwn(value, name));
    const variant = variants[present[0] ?? ''];
    if (!variant) return finding(expected);
    if (present.length > 1) return finding(`has ${present.join(' and ')} at once: keep one of them`);
    const result = variant.safeParse(value);
    if (result.success) return result.data as z.output<Variants[keyof Variants]>;
    for (const issue of result.error.issues) {
      context.addIssue({ code: 'custom', message: describeIssue(issue, value), path: [...issue.path] });
    }
    return z.NEVER;
  });
  choices.set(schema, Object.values(variants));
  return schema;
}

/**
 * A word or an object: a mistake within the object is found at its place, and not as "neither the one nor the other".
 *
 * @param expected of what is neither, completes "must be ..."
 */
export function wordOr<Word extends z.ZodType, Form extends z.ZodType>(
  word: Word,
  form: Form,
  expected: string,
): z.ZodType<z.output<Word> | z.output<Form>> {
  const schema = z.unknown().transform((value, context): z.output<Word> | z.output<Form> => {
    const isForm = typeof value === 'object' && value !== null && !Array.isArray(value);
    const result = (isForm ? form : word).safeParse(value);
    if (result.success) return result.data;
    for (const issue of result.error.issues) {
      const message = isForm ? describeIssue(issue, value) : `must be ${expected}`;
      context.addIssue({ code: 'custom', message, path: [...issue.path] });
    }
    return z.NEVER;
  });
  choices.set(schema, [word, form]);
  return schema;
}

export const text = z.string().min(1).max(4_000);

/** Milliseconds. `lowest` and `highest` in the notation of the profile. */
export function duration(lowest = '1s', highest = '30d') {
  return z.string({ error: 'must be a duration such as 30s, 10m or 2h' }).transform((value, context) => {
    const milliseconds = parseDuration(value);
    const minimum = parseDuration(lowest) ?? 0;
    const maximum = parseDuration(highest) ?? Number.POSITIVE_INFINITY;
    if (milliseconds === undefined) {
      context.addIssue({ code: 'custom', message: 'must be a duration such as 30s, 10m or 2h' });
      return z.NEVER;
    }
    if (milliseconds < minimum || milliseconds > maximum) {
      context.addIssue({ code: 'custom', message: `must lie between ${lowest} and ${highest}` });
      return z.NEVER;
    }
    return milliseconds;
  });
}

export const size = z.string({ error: 'must be a size such as 512kB, 16MB or 1GB' }).transform((value, context) => {
  const bytes = parseSize(value);
  if (bytes !== undefined) return bytes;
  context.addIssue({ code: 'custom', message: 'must be a size such as 512kB, 16MB or 1GB' });
  return z.NEVER;
});

/** Program and arguments; no shell reads it. */
export const commandLine = z
  .array(z.string({ error: 'must be a string (quote numbers and true/false)' }).max(8_000), {
    error: 'must be a list: the program and its arguments, e.g. [pytest, tests/test_migrations.py]',
  })
  .min(1)
  .max(200)
  .refine((words) => words[0] !== '', 'must begin with the name of a program');

export const environmentName = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, 'must be the name of an environment variable');

/** A reference, never the value. */
export const secret: z.ZodType<SecretReference> = choice({
  command: object({ command: commandLine }).transform(({ command }) => ({ kind: 'command', command }) as const),
  environment: object({ environment: environmentName }).transform(
    ({ environment }) => ({ kind: 'environment', name: environment }) as const,
  ),
  file: object({ file: text }).transform(({ file }) => ({ kind: 'file', path: file }) as const),
});

/** A literal string, or a reference to a secret. */
export const configuredValue: z.ZodType<ConfiguredValue> = z.unknown().transform((value, context): ConfiguredValue => {
  if (typeof value === 'string') return value;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    context.addIssue({
      code: 'custom',
      message:
        'must be a string (quote numbers and true/false) or a reference to a secret: {command: [...]}, {environment: NAME} or {file: path}',
    });
    return z.NEVER;
  }
  const result = secret.safeParse(value);
  if (result.success) return { secret: result.data };
  for (const issue of result.error.issues) {
    context.addIssue({ code: 'custom', message: describeIssue(issue, value), path: [...issue.path] });
  }
  return z.NEVER;
});
choices.set(configuredValue, [secret]);

export const environment = z.record(environmentName, configuredValue).default({});
export const headers = z
  .record(z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, 'must be the name of an HTTP header'), configuredValue)
  .default({});

export const jsonValue: z.ZodType<JsonValue> = z.json();

/** JSON Pointer, RFC 6901. */
export const pointer = z
  .string()
  .regex(/^(\/([^~/]|~[01])*)*$/, 'must be a JSON Pointer such as /status or /items/0/id');

export const webAddress = z
  .string()
  .max(2_000)
  .refine((value) => /^https?:\/\/[^\s/]/.test(value), 'must be an address beginning with http:// or https://');

/** A path that stays below the folder it is relative to. */
export const innerPath = text.refine(
  (value) => !value.startsWith('/') && !value.split('/').includes('..'),
  'must be relative to the checkout and stay inside it',
);
