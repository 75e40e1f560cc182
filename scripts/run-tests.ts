/**
 * Runs the gates (types, lint, format) and all tests, then prints one line that counts them: a gate counts as one test.
 * Exit code 0 only if nothing failed and something passed.
 */
import { spawn } from 'node:child_process';
import { mkdir, readFile, rm, statfs } from 'node:fs/promises';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '..');
/** GiB that the test servers take at their peak, with room to spare. */
const neededSpace = 6;
const results = path.join(root, '.stack', 'test-results.json');

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** The parts of vitest's JSON report that are counted. */
interface VitestReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly numFailedTestSuites: number;
}

function run(command: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
    child.once('error', () => resolve(127));
    child.once('exit', (code, signal) => resolve(code ?? (signal ? 1 : 0)));
  });
}

async function gate(counts: Counts, name: string, script: string): Promise<void> {
  const code = await run('npm', ['run', '--silent', script]);
  console.log(`${code === 0 ? 'passed' : 'FAILED'}: ${name}`);
  if (code === 0) counts.passed += 1;
  else counts.failed += 1;
}

/** Said before, and again after a failure: a server that found the disk full is missed by every test after it, and none names the disk. */
async function tellSpace(needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(root);
  const free = (bavail * bsize) / 2 ** 30;
  if (free < needed) console.log(`disk: ${free.toFixed(1)} GiB free; the tests take up to ${neededSpace} GiB`);
}

const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
await mkdir(path.dirname(results), { recursive: true });
await rm(results, { force: true });
await tellSpace(neededSpace);
await gate(counts, 'types', 'typecheck');
await gate(counts, 'lint', 'lint');
await gate(counts, 'format', 'format:check');

const code = await run('vitest', [
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${results}`,
  ...process.argv.slice(2),
]);
const report = await readFile(results, 'utf8').then(
  (text) => JSON.parse(text) as VitestReport,
  () => undefined,
);
counts.passed += report?.numPassedTests ?? 0;
counts.failed += report?.numFailedTests ?? 0;
counts.skipped += (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0);
// A file that could not be loaded, or a runner that died, has no failed test to show for it.
if (code !== 0 && counts.failed === 0) counts.failed += Math.max(1, report?.numFailedTestSuites ?? 1);
if (counts.failed > 0) await tellSpace(1);
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = counts.failed === 0 && report !== undefined ? 0 : 1;
