/**
 * Runs the gates (types, lint, format) and all tests, lists what was skipped and what failed, then prints one line that counts them.
 * A gate counts as one test, and so does a file or `describe` whose own set-up failed. Exit code 0 only if nothing failed and something passed.
 */
import { spawn } from 'node:child_process';
import { readFile, rm, statfs } from 'node:fs/promises';
import path from 'node:path';
import type { Failure, TestOutcome } from './test-outcome.ts';

const root = path.resolve(import.meta.dirname, '..');
/** GiB that the test servers take at their peak, with room to spare. */
const neededSpace = 4;
const outcomeFile = path.join(root, '.stack', 'test-outcome.json');
/** More than a few are a choice of the caller's (`-t NAME`), who knows them. */
const listedSkips = 20;

function run(command: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
    child.once('error', () => resolve(127));
    child.once('exit', (code, signal) => resolve(code ?? (signal ? 1 : 0)));
  });
}

async function gate(name: string, script: string): Promise<readonly Failure[]> {
  const code = await run('npm', ['run', '--silent', script]);
  console.log(`${code === 0 ? 'passed' : 'FAILED'}: ${name}`);
  return code === 0 ? [] : [{ name: `gate: ${name}`, error: `npm run ${script}` }];
}

/** What vitest's reporter wrote. A runner that died before, or that ended badly with nothing to show for it, is a failure itself. */
async function readOutcome(code: number): Promise<TestOutcome> {
  const outcome = await readFile(outcomeFile, 'utf8').then(
    (text) => JSON.parse(text) as TestOutcome,
    () => ({ passed: 0, failures: [], skipped: [], notRun: 0 }),
  );
  if (outcome.failures.length > 0 || (code === 0 && outcome.passed > 0)) return outcome;
  return { ...outcome, failures: [{ name: 'vitest', error: `ended with code ${code}: see its messages above` }] };
}

/** Said before, and again after a failure: a server that found the disk full is missed by every test after it, and none names the disk. */
async function tellSpace(needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(root);
  const free = (bavail * bsize) / 2 ** 30;
  if (free < needed) console.log(`disk: ${free.toFixed(1)} GiB free; the tests take up to ${neededSpace} GiB`);
}

await rm(outcomeFile, { force: true });
await tellSpace(neededSpace);
const gates = [await gate('types', 'typecheck'), await gate('lint', 'lint'), await gate('format', 'format:check')];
process.env.TEST_OUTCOME_FILE = outcomeFile;
const code = await run('vitest', [
  'run',
  '--reporter=default',
  `--reporter=${path.join(root, 'scripts', 'test-outcome.ts')}`,
  ...process.argv.slice(2),
]);
const outcome = await readOutcome(code);
const failures = [...gates.flat(), ...outcome.failures];
const passed = gates.filter((failed) => failed.length === 0).length + outcome.passed;

for (const name of outcome.skipped.slice(0, listedSkips)) console.log(`skipped ${name}`);
if (outcome.skipped.length > listedSkips) console.log(`skipped ${outcome.skipped.length - listedSkips} more`);
for (const { name, error } of failures) console.log(`FAILED ${name}\n${error.replace(/^/gm, '  ')}`);
if (failures.length > 0) await tellSpace(1);
console.log(`${passed} passed, ${failures.length} failed, ${outcome.skipped.length + outcome.notRun} skipped`);
process.exitCode = failures.length === 0 ? 0 : 1;
