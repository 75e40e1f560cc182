import { randomBytes } from 'node:crypto';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { STEP_ERRORS, type StepError } from '../../src/contract/errors.ts';
import type { SecretReference } from '../../src/contract/profile.ts';
import { parseEnvironmentFile } from '../../src/profile/environment-file.ts';
import { parseProfile } from '../../src/profile/load.ts';
import { collectSecretReferences } from '../../src/profile/secret-references.ts';
import { describeReference, resolveSecret } from '../../src/profile/secrets.ts';
import { readFile } from 'node:fs/promises';
import { temporaryDirectory } from '../temporary-directory.ts';

let home: string;
const value = `s3cret ${randomBytes(8).toString('hex')}`;
const signal = new AbortController().signal;
const resolve = (reference: SecretReference): Promise<string> => resolveSecret(reference, { home, signal });
const failureOf = (reference: SecretReference): Promise<StepError> =>
  resolve(reference).then(
    () => {
      throw new Error('resolved');
    },
    (error: StepError) => error,
  );

beforeAll(async () => {
  home = await temporaryDirectory('secrets');
  await writeFile(join(home, 'value'), `${value}\n`, { mode: 0o600 });
  await writeFile(
    join(home, 'secretctl'),
    `#!/bin/sh
case "$1" in
  read) cat "$2" ;;
  twice) printf 'a\\n\\n' ;;
  fail) cat value; cat value >&2; exit 3 ;;
  endless) while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done ;;
  hang) sleep 600 ;;
  environment) printf '%s' "$RUNBOOK_TEST_ADDRESS" ;;
esac
`,
    { mode: 0o755 },
  );
});

describe('a secret', () => {
  test('comes from a command run without a shell, in the folder of the profile', async () => {
    expect(await resolve({ kind: 'command', command: ['./secretctl', 'read', 'value'] })).toBe(value);
    expect((await failureOf({ kind: 'command', command: ['./secretctl', 'read', 'value; echo x'] })).type).toBe(
      STEP_ERRORS.unavailable,
    );
  });

  test('comes from a command that finds its own settings in the environment of the worker', async () => {
    vi.stubEnv('RUNBOOK_TEST_ADDRESS', 'https://vault.example.com');
    expect(await resolve({ kind: 'command', command: ['./secretctl', 'environment'] })).toBe(
      'https://vault.example.com',
    );
    vi.unstubAllEnvs();
  });

  test('comes from an environment variable', async () => {
    vi.stubEnv('RUNBOOK_TEST_SECRET', value);
    expect(await resolve({ kind: 'environment', name: 'RUNBOOK_TEST_SECRET' })).toBe(value);
    vi.unstubAllEnvs();
  });

  test('comes from a file relative to the profile', async () => {
    expect(await resolve({ kind: 'file', path: 'value' })).toBe(value);
  });

  test('loses one trailing newline and no more', async () => {
    expect(await resolve({ kind: 'command', command: ['./secretctl', 'twice'] })).toBe('a\n');
  });
});

describe('a secret that cannot be had', () => {
  test.each<[string, SecretReference, string]>([
    [
      'an unset variable',
      { kind: 'environment', name: 'RUNBOOK_TEST_UNSET' },
      'the environment variable RUNBOOK_TEST_UNSET is not set',
    ],
    ['an absent file', { kind: 'file', path: 'absent' }, 'the file absent cannot be read (ENOENT)'],
    [
      'an absent program',
      { kind: 'command', command: ['no-such-secretctl', 'read'] },
      'the command "no-such-secretctl read" cannot be run',
    ],
    ['endless output', { kind: 'command', command: ['./secretctl', 'endless'] }, 'wrote too much for a secret'],
    ['an empty answer', { kind: 'command', command: ['true'] }, 'gave an empty value'],
  ])('is refused: %s', async (_name, reference, text) => {
    const failure = await failureOf(reference);
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.message).toContain(text);
  });

  test('is refused from a file that anybody may write', async () => {
    await writeFile(join(home, 'open'), value);
    await chmod(join(home, 'open'), 0o666);
    expect((await failureOf({ kind: 'file', path: 'open' })).message).toContain('may be written by anybody');
  });

  test('is worth another try where its manager failed, and what that wrote is not shown', async () => {
    const failure = await failureOf({ kind: 'command', command: ['./secretctl', 'fail'] });
    expect(failure.type).toBe(STEP_ERRORS.unavailable);
    expect(failure.message).toContain('./secretctl fail');
    expect(`${failure.message}${failure.stack}${JSON.stringify(failure.details)}`).not.toContain(value);
    expect(failure.cause).toBeUndefined();
  });

  test('is given up at once when the step is cancelled', async () => {
    const controller = new AbortController();
    const reason = new Error('cancelled');
    const waiting = resolveSecret(
      { kind: 'command', command: ['./secretctl', 'hang'] },
      { home, signal: controller.signal },
    );
    setTimeout(() => controller.abort(reason), 100);
    await expect(waiting).rejects.toBe(reason);
  });
});

test('every reference written in a profile is collected', async () => {
  const text = await readFile(new URL('../../config/profile-template.yaml', import.meta.url), 'utf8');
  const { profile } = parseProfile(text, home, 'f.yaml');
  const collected = collectSecretReferences(profile);
  const written = text
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .join('\n')
    .match(/\{ (command: \[secretctl|environment: [A-Z]|file: )[^}]*\}/g);
  expect(collected).toHaveLength(written?.length ?? 0);
  expect(collected.map(({ path }) => path)).toContain('application.flows[1].requests[0].secrets./password');
  for (const { reference } of collected) expect(describeReference(reference)).toMatch(/secretctl|BACKUP_/);
});

describe('an environment file', () => {
  test('is read with quotes, spaces, # and several lines', () => {
    const text = [
      '# staging',
      'export DATABASE_URL="postgresql://app:p%40ss#word@db:5432/app"',
      'PLAIN=two words # a comment',
      "SINGLE='it has # and $HOME'",
      'EMPTY=',
      'KEY="-----BEGIN',
      'line two',
      'END-----"',
      'SPACED = around',
    ].join('\n');
    expect(parseEnvironmentFile(text, '.env.staging')).toEqual({
      DATABASE_URL: 'postgresql://app:p%40ss#word@db:5432/app',
      PLAIN: 'two words',
      SINGLE: 'it has # and $HOME',
      EMPTY: '',
      KEY: '-----BEGIN\nline two\nEND-----',
      SPACED: 'around',
    });
  });

  test('is never put into the environment of this process', () => {
    parseEnvironmentFile('RUNBOOK_TEST_LEAK=1', '.env');
    expect(process.env['RUNBOOK_TEST_LEAK']).toBeUndefined();
  });

  test('is refused where a quote is not closed, naming the variable and not the value', () => {
    expect(() => parseEnvironmentFile('A=1\nADMIN_PASSWORD="hunter2\nB=2\n', '.env')).toThrow(
      '.env: the quote that begins the value of ADMIN_PASSWORD is not closed',
    );
  });
});
