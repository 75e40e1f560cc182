import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { parse, parseDocument } from 'yaml';
import { z } from 'zod';
import { TEMPLATE_VARIABLES } from '../../src/contract/profile.ts';
import { valueAt } from '../../src/profile/issue-text.ts';
import { parseProfile } from '../../src/profile/load.ts';
import { parseDuration, parseSize } from '../../src/profile/quantities.ts';
import { profileSchema } from '../../src/profile/schema.ts';
import { variantsOf } from '../../src/profile/schema-values.ts';

const reference = await readFile(new URL('../../docs/profile.md', import.meta.url), 'utf8');

/** Every key that a profile may have, however deep. */
function keysOf(schema: z.ZodType, seen = new Set<z.ZodType>()): Set<string> {
  const keys = new Set<string>();
  if (seen.has(schema)) return keys;
  seen.add(schema);
  const below: z.ZodType[] = [...variantsOf(schema)];
  const add = (inner: unknown): void => void below.push(inner as z.ZodType);
  if (schema instanceof z.ZodObject) {
    for (const [key, value] of Object.entries<z.ZodType>(schema.shape)) {
      keys.add(key);
      below.push(value);
    }
  } else if (schema instanceof z.ZodArray) add(schema.element);
  else if (schema instanceof z.ZodPipe) add(schema.in);
  else if (schema instanceof z.ZodUnion) for (const option of schema.options) add(option);
  else if (schema instanceof z.ZodRecord) add(schema.valueType);
  else if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) {
    add(schema.unwrap());
  }
  for (const inner of below) for (const key of keysOf(inner, seen)) keys.add(key);
  return keys;
}

test('the reference names every key of a profile', () => {
  const keys = keysOf(profileSchema);
  // The walk itself is worth nothing if it stops at the surface: some of the deepest keys there are.
  for (const deep of [
    'statePointer',
    'contentType',
    'retryFor',
    'minimumReviewers',
    'ratio',
    'queues',
    'upgrade',
    'prometheus',
  ]) {
    expect(keys).toContain(deep);
  }
  expect(keys.size).toBeGreaterThan(110);
  const missing = [...keys].filter((key) => !new RegExp(`[\`.\\s{\\]]${key}\\b`).test(reference));
  expect(missing).toEqual([]);
});

test('the reference names every placeholder', () => {
  const section = reference.slice(reference.indexOf('### Placeholders'), reference.indexOf('## Service, repository'));
  expect(TEMPLATE_VARIABLES.filter((name) => !section.includes(`\`${name}\``))).toEqual([]);
});

const template = await readFile(new URL('../../config/profile-template.yaml', import.meta.url), 'utf8');
const stated = [...reference.matchAll(/^\| `([\w.]+)` \| `([^`]+)` \|/gm)]
  .map((match) => [match[1] ?? '', match[2] ?? ''] as const)
  .filter(([path]) => Object.hasOwn(profileSchema.shape, path.split('.', 1)[0] ?? ''));

test('the reference states defaults', () => {
  expect(stated.length).toBeGreaterThan(30);
});

test.each(stated)('the default of %s is %s, as the reference says', (path, text) => {
  const document = parseDocument(template);
  if (document.hasIn(path.split('.'))) document.deleteIn(path.split('.'));
  const { profile } = parseProfile(String(document), '/srv/profiles', 'whisper-transcriber.yaml');
  const expected = parseDuration(text) ?? parseSize(text) ?? (parse(text) as unknown);
  expect(valueAt(profile, path.split('.'))).toEqual(expected);
});
