import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import type { Reporter, SerializedError, TestModule, TestSuite } from 'vitest/node';

/** Of an error's text: enough to know it again; vitest prints the whole. */
const errorLines = 3;
const errorLength = 300;

export interface Failure {
  /** What failed: `tests/unit/x.test.ts: name of the test`. */
  readonly name: string;
  readonly error: string;
}

export interface TestOutcome {
  readonly passed: number;
  /** Failed tests, files and `describe` blocks whose own set-up or tear-down failed, errors that belong to no test. */
  readonly failures: readonly Failure[];
  /** Tests left out by choice: `tests/unit/x.test.ts: name of the test`. */
  readonly skipped: readonly string[];
  /** Tests left out because a set-up failed or their process died; the failure's name says so too. */
  readonly notRun: number;
}

/**
 * A vitest reporter that writes a {@link TestOutcome} as JSON to the file named by TEST_OUTCOME_FILE. vitest's own JSON report leaves out
 * why the set-up of a `describe` failed, and every error that belongs to no test.
 */
export default class TestOutcomeReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const file = process.env.TEST_OUTCOME_FILE;
    if (file === undefined) throw new Error('TEST_OUTCOME_FILE is not set: it names the file for the outcome');
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, JSON.stringify(outcomeOf(modules, unhandled)));
  }
}

function outcomeOf(modules: readonly TestModule[], unhandled: readonly SerializedError[]): TestOutcome {
  let passed = 0;
  let notRun = 0;
  const failures: Failure[] = [];
  const skipped: string[] = [];
  for (const module of modules) {
    const file = module.relativeModuleId;
    const leftOut = new Set<string>();
    for (const block of [module, ...module.children.allSuites()]) {
      const error = blockError(block);
      if (error === undefined) continue;
      const tests = [...block.children.allTests()];
      const ran = tests.some((test) => ['passed', 'failed'].includes(test.result().state));
      if (!ran) for (const { id } of tests) leftOut.add(id);
      const part = ran ? 'set-up or tear-down' : `not run: ${tests.length} tests`;
      failures.push({
        name: block.type === 'module' ? `${file}: (${part})` : `${file}: ${block.fullName} (${part})`,
        error,
      });
    }
    for (const test of module.children.allTests()) {
      const result = test.result();
      const name = `${file}: ${test.fullName}`;
      if (result.state === 'passed') passed += 1;
      else if (result.state === 'failed') failures.push({ name, error: errorText(result.errors) });
      else if (leftOut.has(test.id) || result.state === 'pending') notRun += 1;
      else skipped.push(result.note === undefined ? name : `${name} (${result.note})`);
    }
  }
  for (const error of unhandled) {
    const during = typeof error.VITEST_TEST_NAME === 'string' ? ` (while ${error.VITEST_TEST_NAME} ran)` : '';
    failures.push({ name: `outside the tests${during}`, error: errorText([error]) });
  }
  return { passed, failures, skipped, notRun };
}

function blockError(block: TestModule | TestSuite): string | undefined {
  if (block.errors().length > 0) return errorText(block.errors());
  const unfinished = block.type === 'module' && ['pending', 'queued'].includes(block.state());
  return unfinished ? 'the process that ran this file ended before it did' : undefined;
}

interface ErrorText {
  readonly name?: string;
  readonly message: string;
  readonly cause?: unknown;
}

function errorText(errors: readonly ErrorText[]): string {
  const lines = errors.flatMap(messages).flatMap((text) => stripVTControlCharacters(text).split('\n'));
  const text = lines
    .map((line) => line.trimEnd())
    .filter((line) => line !== '')
    .slice(0, errorLines)
    .join('\n');
  return text.length > errorLength ? `${text.slice(0, errorLength - 3)}...` : text;
}

/** An error's own message, then those of its causes: the last one is often the only one that tells. */
function messages(error: ErrorText): string[] {
  const own = error.name === undefined || error.name === 'Error' ? error.message : `${error.name}: ${error.message}`;
  const { cause } = error;
  const told = typeof cause === 'object' && cause !== null && 'message' in cause && typeof cause.message === 'string';
  return told ? [own, ...messages(cause as ErrorText)] : [own];
}
