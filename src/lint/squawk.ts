import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { z } from 'zod';
import { refusal } from '../contract/errors.ts';
import type { StaticFinding } from '../contract/evidence/rehearsal.ts';
import { ProcessFailed, ProcessNotStarted } from '../process/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { requireSuccess, runProcess } from '../process/run.ts';
import { isBookkeeping, type LintedStatement, migrationScript, withoutIgnores, withPlaceholders } from './script.ts';

/** Where the linter is and what the profile says about it. */
export interface LinterOptions {
  /** `squawk`, on the worker's PATH or by a path. */
  readonly program: string;
  /** Rules whose findings are `refused`. */
  readonly refuse: readonly string[];
  /** Rules that are not looked at. */
  readonly exclude: readonly string[];
  readonly signal: AbortSignal;
  readonly redactor: Redactor;
}

export interface LintOptions extends LinterOptions {
  /** Major version of the production server: some rules hold for some versions only. */
  readonly serverMajor: number;
  /** What the upgrade executed, in order. */
  readonly statements: readonly LintedStatement[];
}

export type LintResult =
  | { readonly kind: 'linted'; readonly findings: readonly StaticFinding[]; readonly version: string }
  | { readonly kind: 'not-linted'; readonly why: string };

/** Rule of the finding that says that something was not looked at. */
export const NOT_LINTED = 'not-linted';

/** The time-outs of an upgrade are set by this project (`guard` in the profile), not by the migration's own SQL. */
const KEPT_ELSEWHERE = 'require-timeout-settings';
const aboutTimeouts = /^require-.*timeout/;

const MOST_STATEMENTS = 5_000;
const MOST_FINDINGS = 200;
const LONGEST_STATEMENT = 300;
const FILES_AT_ONCE = 400;
const LARGEST_ANSWER = 64 * 1024 * 1024;

/**
 * What squawk says about the SQL of an upgrade. A statement it cannot read is a finding of its own (`not-linted`).
 * @throws StepError `StepRefused` where `lintProfileFindings` finds something, and where there is nothing to look at although
 * the profile refuses rules
 */
export async function lintStatements(options: LintOptions): Promise<LintResult> {
  const wrong = await lintProfileFindings(options);
  if (wrong.length > 0) throw refusal(wrong);
  const linter = await findLinter(options);
  if (linter.kind === 'not-found') return { kind: 'not-linted', why: linter.why };
  // Alembic's own statements are there at least, wherever any are reported.
  if (options.statements.length === 0) {
    const why = "no statement of the upgrade was reported: our part could not be loaded inside the service's Python";
    if (options.refuse.length === 0) return { kind: 'not-linted', why };
    throw refusal([`lint.refuse names ${options.refuse.join(', ')}, but ${why}`]);
  }
  const folder = await mkdtemp(path.join(tmpdir(), 'runbook-lint-'));
  try {
    await writeFile(path.join(folder, 'no-configuration.toml'), '');
    return { kind: 'linted', version: linter.version, findings: await lintIn(folder, options) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * What is wrong with the linter's part of a profile, before anything is rehearsed: rules squawk does not know, rules both
 * refused and excluded, rules to be refused where there is no squawk. Empty: nothing.
 */
export async function lintProfileFindings(options: LinterOptions): Promise<readonly string[]> {
  const linter = await findLinter(options);
  if (linter.kind === 'not-found') {
    if (options.refuse.length === 0) return [];
    return [
      `lint.refuse names ${options.refuse.join(', ')}, but ${linter.why}: install squawk on the worker, or name it as lint.program`,
    ];
  }
  const findings: string[] = [];
  for (const key of ['refuse', 'exclude'] as const) {
    const unknown: string[] = [];
    for (const rule of options[key]) {
      if (!(await knows(options, rule))) unknown.push(rule);
    }
    if (unknown.length > 0) findings.push(`lint.${key}: ${linter.version} has no rule ${unknown.join(', ')}`);
  }
  const both = options.refuse.filter((rule) => options.exclude.includes(rule));
  if (both.length > 0) findings.push(`lint: ${both.join(', ')} is both refused and excluded`);
  return findings;
}

async function lintIn(folder: string, options: LintOptions): Promise<readonly StaticFinding[]> {
  const distinct = distinctStatements(options.statements);
  const looked = distinct.slice(0, MOST_STATEMENTS);
  const reading = await readStatements(folder, options, looked);
  const readable = reading.filter(({ error }) => error === undefined);
  const script = migrationScript(readable);
  const inScript = (extra: readonly string[]): Promise<readonly RawFinding[]> =>
    ask(options, folder, rulesAnd(options, extra), script.text);
  const all = await inScript([]);
  // Rules have old names too, and findings carry the new one: what is refused is found by leaving it out.
  const tolerated = options.refuse.length === 0 ? all : await inScript(options.refuse);
  const toleratedKeys = new Set(tolerated.map(keyOf));
  const found = all.flatMap((raw): readonly StaticFinding[] => {
    const at = readable[script.statementAt[raw.line] ?? -1];
    if (at === undefined) return [];
    const level = toleratedKeys.has(keyOf(raw)) ? 'advice' : 'refused';
    return [findingOf(at, raw.rule_name, [raw.message, raw.help ?? ''].filter(Boolean).join(' '), level)];
  });
  const unread = reading.flatMap(({ error, ...at }) =>
    error === undefined ? [] : [findingOf(at, NOT_LINTED, `squawk cannot read it: ${error}`, 'advice')],
  );
  const left = distinct.length - looked.length;
  const cut = left <= 0 ? [] : [overall(`${left} more statements were not looked at`)];
  return bounded([...found, ...unread, ...cut]);
}

const rulesAnd = ({ refuse, exclude, serverMajor }: LintOptions, extra: readonly string[]): readonly string[] => {
  const kept = refuse.some((rule) => aboutTimeouts.test(rule)) ? [] : [KEPT_ELSEWHERE];
  const excluded = [...new Set([...kept, ...exclude, ...extra])];
  return [
    '--config',
    'no-configuration.toml',
    '--pg-version',
    String(serverMajor),
    '--no-assume-in-transaction',
    ...excluded.flatMap((rule) => ['--exclude', rule]),
    // Some rules are off unless they are asked for. Those left out above stay out: exclusion wins.
    ...refuse.flatMap((rule) => ['--include', rule]),
  ];
};

/** The same statement a thousand times, as a loop of a migration makes it, is one to look at. */
function distinctStatements(statements: readonly LintedStatement[]): readonly LintedStatement[] {
  const known = new Set<string>();
  return statements.flatMap((given) => {
    const statement = withoutIgnores(given.statement);
    const key = JSON.stringify([given.revision, statement]);
    if (statement.trim() === '' || isBookkeeping(statement) || known.has(key)) return [];
    known.add(key);
    return [{ ...given, statement }];
  });
}

type Reading = LintedStatement & { readonly error?: string };

/** One statement that squawk cannot read would keep it from all others: such are found first, each in a file of its own. */
async function readStatements(
  folder: string,
  options: LintOptions,
  statements: readonly LintedStatement[],
): Promise<readonly Reading[]> {
  const errors = await syntaxErrors(folder, options, statements);
  const second = statements.map((given, index) =>
    errors.has(index) ? { ...given, statement: withPlaceholders(given.statement) } : given,
  );
  const still = await syntaxErrors(folder, options, second, new Set(errors.keys()));
  return second.map((given, index) => {
    const error = still.get(index);
    return error === undefined ? given : { ...given, error };
  });
}

async function syntaxErrors(
  folder: string,
  options: LintOptions,
  statements: readonly LintedStatement[],
  only?: ReadonlySet<number>,
): Promise<ReadonlyMap<number, string>> {
  const errors = new Map<number, string>();
  const indexes = [...statements.keys()].filter((index) => only?.has(index) !== false);
  for (let from = 0; from < indexes.length; from += FILES_AT_ONCE) {
    const batch = indexes.slice(from, from + FILES_AT_ONCE);
    await Promise.all(
      batch.map((index) => writeFile(path.join(folder, `${index}.sql`), statements[index]?.statement ?? '')),
    );
    const files = batch.map((index) => `${index}.sql`);
    const findings = await ask(options, folder, ['--config', 'no-configuration.toml', ...files]);
    for (const raw of findings) {
      const index = Number.parseInt(raw.file, 10);
      if (raw.rule_name === 'syntax-error' && !errors.has(index)) errors.set(index, raw.message);
    }
  }
  return errors;
}

const rawFinding = z.object({
  file: z.string(),
  line: z.number(),
  column: z.number(),
  message: z.string(),
  help: z.string().nullish(),
  rule_name: z.string(),
});
type RawFinding = z.infer<typeof rawFinding>;

const keyOf = (raw: RawFinding): string => JSON.stringify([raw.line, raw.column, raw.rule_name, raw.message]);

const unknownArgument = 2;

/** @throws ProcessFailed when squawk gives no answer */
async function ask(
  { program, signal, redactor }: LinterOptions,
  directory: string,
  args: readonly string[],
  input?: string,
): Promise<readonly RawFinding[]> {
  let answer = '';
  const result = await runProcess({
    file: program,
    args: ['--reporter', 'json', ...args],
    directory,
    ...(input === undefined ? {} : { input }),
    signal,
    redactor,
    limits: { line: LARGEST_ANSWER },
    onLine: (stream, line) => {
      if (stream === 'stdout') answer += line;
    },
    label: 'squawk',
  });
  // 0: nothing found, 1: something.
  requireSuccess(result, 'squawk', [0, 1]);
  const parsed = z.array(rawFinding).safeParse(parseJson(answer));
  if (!parsed.success) throw new ProcessFailed('squawk', result);
  return parsed.data;
}

async function knows({ program, signal, redactor }: LinterOptions, rule: string): Promise<boolean> {
  const args = ['--exclude', rule];
  const result = await runProcess({ file: program, args, input: '', signal, redactor, label: 'squawk' });
  requireSuccess(result, 'squawk', [0, unknownArgument]);
  return result.code === 0;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function findLinter({
  program,
  signal,
  redactor,
}: LinterOptions): Promise<
  { readonly kind: 'found'; readonly version: string } | { readonly kind: 'not-found'; readonly why: string }
> {
  try {
    const result = await runProcess({ file: program, args: ['--version'], signal, redactor, label: 'squawk' });
    const version = /^squawk \d+\.\d+\.\d+/m.exec(result.stdoutTail)?.[0];
    return version === undefined
      ? { kind: 'not-found', why: `${program} does not say that it is squawk` }
      : { kind: 'found', version };
  } catch (error) {
    if (error instanceof ProcessNotStarted) return { kind: 'not-found', why: error.message };
    throw error;
  }
}

function findingOf(
  { revision, statement }: LintedStatement,
  rule: string,
  message: string,
  level: StaticFinding['level'],
): StaticFinding {
  const text = statement.replaceAll(/\s+/g, ' ').trim();
  return {
    rule,
    revision,
    statement: text.length > LONGEST_STATEMENT ? `${text.slice(0, LONGEST_STATEMENT - 1)}…` : text,
    message: message.slice(0, 500),
    level,
  };
}

const overall = (message: string): StaticFinding => ({
  rule: NOT_LINTED,
  revision: null,
  statement: '',
  message,
  level: 'advice',
});

/** What is refused comes first and is never left out for the sake of advice. */
function bounded(findings: readonly StaticFinding[]): readonly StaticFinding[] {
  const sorted = [
    ...findings.filter(({ level }) => level === 'refused'),
    ...findings.filter(({ level }) => level === 'advice'),
  ];
  if (sorted.length <= MOST_FINDINGS) return sorted;
  return [...sorted.slice(0, MOST_FINDINGS), overall(`${sorted.length - MOST_FINDINGS} more findings are left out`)];
}
