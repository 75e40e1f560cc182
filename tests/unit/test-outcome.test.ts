import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it, vi } from 'vitest';
import type { TestOutcome } from '../../scripts/test-outcome.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const root = path.resolve(import.meta.dirname, '../..');
const run = promisify(execFile);
vi.setConfig({ testTimeout: 60_000 });

/** What a run of these test files leaves: in a project of their own, so that they fail in nobody's way. */
async function outcomeOf(files: Readonly<Record<string, string>>): Promise<TestOutcome> {
  await mkdir(path.join(root, '.stack'), { recursive: true });
  const folder = await temporaryDirectory('outcome', path.join(root, '.stack'));
  await writeFile(path.join(folder, 'vitest.config.js'), 'export default {};');
  for (const [name, text] of Object.entries(files)) await writeFile(path.join(folder, name), text);
  const outcome = path.join(folder, 'outcome.json');
  const reporter = path.join(root, 'scripts', 'test-outcome.ts');
  await run(
    path.join(root, 'node_modules/.bin/vitest'),
    ['run', '--root', folder, '--globals', `--reporter=${reporter}`],
    { env: { ...process.env, TEST_OUTCOME_FILE: outcome } },
  ).catch(() => undefined);
  return JSON.parse(await readFile(outcome, 'utf8')) as TestOutcome;
}

it('tells a failed test, and a skipped one with its reason', async () => {
  const outcome = await outcomeOf({
    'sums.test.js': `
      it('adds', () => expect(1 + 1).toBe(2));
      it('subtracts', () => expect(3 - 1).toBe(1));
      it.skip('divides (skipped: no divisor)', () => {});
      it('roots', (context) => context.skip('no root'));
      it.todo('multiplies');`,
  });
  expect(outcome).toEqual({
    passed: 1,
    failures: [{ name: 'sums.test.js: subtracts', error: expect.stringContaining('expected 2 to be 1') as string }],
    skipped: [
      'sums.test.js: divides (skipped: no divisor)',
      'sums.test.js: roots (no root)',
      'sums.test.js: multiplies',
    ],
    notRun: 0,
  });
});

it('tells why a set-up failed, of a file and of a block, although its tests are only skipped', async () => {
  const outcome = await outcomeOf({
    'file.test.js': `
      beforeAll(() => { throw new Error('the server did not start\\n\\n\\u001b[31mport taken\\u001b[39m\\nline\\nfourth line'); });
      it('one', () => {});
      it('two', () => {});`,
    'block.test.js': `
      it('outside', () => {});
      describe('with a server', () => {
        beforeAll(() => { throw new Error('no server'); });
        it('inside', () => {});
      });`,
  });
  expect(outcome).toEqual({
    passed: 1,
    failures: [
      { name: 'block.test.js: with a server (not run: 1 tests)', error: 'no server' },
      { name: 'file.test.js: (not run: 2 tests)', error: 'the server did not start\nport taken\nline' },
    ],
    skipped: [],
    notRun: 3,
  });
});

it('counts a file that cannot be loaded, and one whose tear-down fails, beside what passed', async () => {
  const outcome = await outcomeOf({
    'load.test.js': `import './nowhere.js';\nit('one', () => {});`,
    'tear-down.test.js': `afterAll(() => { throw new Error('${'x'.repeat(1000)}'); });\nit('one', () => {});`,
  });
  expect(outcome).toEqual({
    passed: 1,
    failures: [
      { name: 'load.test.js: (not run: 0 tests)', error: expect.stringContaining('nowhere.js') as string },
      { name: 'tear-down.test.js: (set-up or tear-down)', error: `${'x'.repeat(297)}...` },
    ],
    skipped: [],
    notRun: 0,
  });
});

it('tells a file whose process died, and an error that belongs to no test', async () => {
  const { failures, notRun, passed } = await outcomeOf({
    'dies.test.js': `it('one', () => process.kill(process.pid, 'SIGKILL'));`,
    'late.test.js': `
      it('one', () => { setTimeout(() => { throw new Error('too late'); }); });
      it('two', () => new Promise((resolve) => setTimeout(resolve, 50)));`,
  });
  expect({ passed, notRun }).toEqual({ passed: 2, notRun: 1 });
  expect(failures.find(({ name }) => name === 'dies.test.js: (not run: 1 tests)')?.error).toContain('process');
  expect(failures.map(({ error }) => error).join('\n')).toMatch(/too late[^]*SIGKILL/);
});
