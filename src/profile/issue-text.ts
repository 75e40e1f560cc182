/** Turns what zod found into one sentence a person can act on. Never quotes the value: it may be a misplaced secret. */
import type { z } from 'zod';

/**
 * @param root the value that was parsed, to tell "missing" from "of the wrong type"
 */
export function describeIssue(issue: z.core.$ZodIssue, root: unknown): string {
  switch (issue.code) {
    case 'invalid_type': {
      const found = valueAt(root, issue.path);
      if (found === undefined) return `is missing: expected ${nameOf(issue.expected)}`;
      return issue.message.startsWith('Invalid input')
        ? `must be ${nameOf(issue.expected)}, got ${typeName(found)}`
        : issue.message;
    }
    case 'invalid_value':
      return `must be ${issue.values.map((value) => JSON.stringify(value)).join(' or ')}`;
    case 'too_small':
      if (issue.origin === 'string' && issue.minimum > 1) return `must have at least ${issue.minimum} characters`;
      return issue.origin === 'number' ? `must be at least ${issue.minimum}` : 'must not be empty';
    case 'too_big':
      return `must be at most ${issue.maximum}${issue.origin === 'string' ? ' characters' : ''}`;
    case 'invalid_key':
      return issue.issues.map((inner) => `has a key that ${inner.message}`).join('; ');
    case 'invalid_union':
      if (issue.message !== 'Invalid input') return issue.message;
      return valueAt(root, issue.path) === undefined ? 'is missing' : 'is of a wrong type';
    case 'unrecognized_keys':
    case 'invalid_format':
    case 'invalid_element':
    case 'not_multiple_of':
    case 'custom':
      return issue.message;
  }
}

export function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  let value = root;
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

const NAMES: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
};

const nameOf = (expected: string): string => NAMES[expected] ?? expected;

const typeName = (value: unknown): string =>
  value === null ? 'nothing' : Array.isArray(value) ? 'a list' : (NAMES[typeof value] ?? typeof value);
