/** What the documents promise and can be checked: links, names, commands, JSON. */
import { spawnSync } from 'node:child_process';
import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { SCENARIOS } from '../../scripts/scenarios/scenarios.ts';
import { programs } from '../../scripts/stack/layout.ts';
import { EXIT_CODES, type ExitCode } from '../../src/commands/command-error.ts';
import { runCommandLine } from '../../src/commands/program.ts';
import { ENDING_ERRORS, STEP_ERRORS } from '../../src/contract/errors.ts';
import { MESSAGE_NAMES, type MessageName, parseMessage } from '../../src/contract/messages.ts';
import { parseRequest, TASK_QUEUE, WORKFLOW_TYPE, workflowIdOf } from '../../src/contract/request.ts';
import { SEARCH_ATTRIBUTE_NAMES } from '../../src/contract/search-attributes.ts';

const root = path.resolve(import.meta.dirname, '../..');
const read = (file: string): string => readFileSync(path.join(root, file), 'utf8');
const documents = globSync(
  ['*.md', 'docs/**/*.md', 'tests/**/*.md', 'examples/**/*.md', 'config/**/*.md', 'scripts/**/*.md'],
  { cwd: root },
);
const readme = read('README.md');
const operations = read('docs/operations.md');

/** Text without fenced blocks and code spans, in which nothing is a link. */
const prose = (text: string): string => text.replaceAll(/^```[\s\S]*?^```/gm, '').replaceAll(/`[^`\n]*`/g, '');

/** The contents of fenced blocks of a language. */
const blocks = (text: string, language: string): string[] =>
  [...text.matchAll(/^```(\w*)\n([\s\S]*?)^```/gm)].flatMap(([, name, content = '']) =>
    name === language ? [content] : [],
  );

/** Commands of shell blocks, with continued lines joined. */
const commands = (text: string): string[] =>
  blocks(text, 'sh')
    .join('\n')
    .replaceAll(/\\\n\s*/g, '')
    .split('\n')
    .map((line) => line.replace(/\s+#.*$/, '').trim())
    .filter((line) => line !== '');

/** The words of a command line without expansions: quotes only. */
const words = (line: string): string[] =>
  [...line.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(([, single, double, plain]) => single ?? double ?? plain ?? '');

/** The anchors of a document, as forges make them of its headings. */
const anchors = (text: string): string[] =>
  [...text.replaceAll(/^```[\s\S]*?^```/gm, '').matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );

describe('links of the documents', () => {
  test('lead to files and headings that exist', () => {
    const broken: string[] = [];
    for (const document of documents) {
      for (const [, target = ''] of prose(read(document)).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target)) continue;
        const [file = '', anchor] = target.split('#');
        const found = file === '' ? document : path.join(path.dirname(document), file);
        if (!existsSync(path.join(root, found))) broken.push(`${document}: ${target}`);
        else if (anchor !== undefined && !anchors(read(found)).includes(anchor)) broken.push(`${document}: ${target}`);
      }
    }
    expect(documents.length).toBeGreaterThan(10);
    expect(broken).toEqual([]);
  });

  test('are found where they are broken', () => {
    const text = 'see [this](there.md#part) and `[not](that.md)`\n```\n[nor](this.md)\n```\n';
    expect([...prose(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target)).toEqual(['there.md#part']);
    expect(anchors('# Deciding at the gate `recovery`!\n```\n# no\n```\n')).toEqual(['deciding-at-the-gate-recovery']);
  });
});

describe('JSON of the documents', () => {
  const now = Date.parse('2026-11-21T00:00:00Z');

  test('requests are accepted', () => {
    const requests = [readme, operations].flatMap((text) => blocks(text, 'json').map((json) => JSON.parse(json)));
    expect(requests.length).toBeGreaterThanOrEqual(2);
    for (const request of requests) expect(parseRequest([request], now)).toMatchObject({ kind: 'valid' });
  });

  test('each message has an example, and every example is accepted', () => {
    const examples = [...readme.matchAll(/^\| `(\w+)` \| `(\{.*\})` \|/gm)];
    expect(examples.map(([, name]) => name)).toEqual([...MESSAGE_NAMES]);
    for (const [, name, json = ''] of examples)
      expect(parseMessage(name as MessageName, [JSON.parse(json)])).toMatchObject({ kind: 'valid' });
  });

  test('what is given to temporal and tctl is accepted by a run', () => {
    const lines = commands(readme).filter((line) => /^(temporal|tctl) .*--input/.test(line));
    expect(lines.length).toBeGreaterThanOrEqual(5);
    for (const line of lines) {
      const all = words(line);
      const option = (name: string): string => all[all.indexOf(name) + 1] ?? '';
      const input: unknown = JSON.parse(option('--input'));
      const parsed = all.includes('--name')
        ? parseMessage(option('--name') as MessageName, [input])
        : parseRequest([input], now);
      expect(parsed).toMatchObject({ kind: 'valid' });
    }
  });
});

describe('names in the README', () => {
  test('starts name the workflow type, the task queue and the id of the service', () => {
    const starts = commands(readme).filter((line) => /workflow start/.test(line));
    expect(starts).toHaveLength(2);
    for (const line of starts) {
      expect(words(line)).toContain(WORKFLOW_TYPE);
      expect(words(line)).toContain(TASK_QUEUE);
      expect(words(line)).toContain(workflowIdOf('whisper-transcriber'));
    }
  });

  test('proofs and benches exist', () => {
    const named = [...readme.matchAll(/npm run (proof|bench) -- (\S+)/g)].filter(([, , name]) => name !== 'list');
    expect(named.length).toBeGreaterThanOrEqual(4);
    const missing = named
      .map(([, kind, name]) => `tests/${kind === 'proof' ? 'proofs' : 'bench'}/${name}.ts`)
      .filter((file) => !existsSync(path.join(root, file)));
    expect(missing).toEqual([]);
  });

  test('scenarios are those of the demo, with their ends', () => {
    const named = [...readme.matchAll(/^\| `([a-z-]+)` \| `([a-z-]+)` \|/gm)].map(([, name, end]) => `${name} ${end}`);
    expect(named).toEqual(SCENARIOS.map(({ name, expected }) => `${name} ${expected}`));
  });

  test('exit codes are those of the command', () => {
    const table = readme.slice(readme.indexOf('| code | |'), readme.indexOf('## Your own service'));
    const codes = [...table.matchAll(/^\| (\d+) \|/gm)].map(([, code]) => Number(code));
    expect(codes).toEqual(Object.values(EXIT_CODES).toSorted((one, other) => one - other));
  });

  test('failure types are those a run ends with', () => {
    for (const type of Object.values(ENDING_ERRORS)) expect(readme).toContain(type);
    const architecture = read('docs/architecture.md');
    for (const type of Object.values(STEP_ERRORS)) expect(architecture).toContain(`\`${type}\``);
    for (const name of SEARCH_ATTRIBUTE_NAMES) expect(operations).toContain(name);
  });

  test('scripts that a reader is told to run are there and can be run', () => {
    const scripts = [readme, operations].flatMap((text) =>
      commands(text).flatMap((line) => words(line).filter((word) => /^(\.\/scripts|docker)\/[\w-]+$/.test(word))),
    );
    expect(scripts).toContain('./scripts/demo');
    expect(scripts.filter((file) => !existsSync(path.join(root, file)))).toEqual([]);
  });
});

describe('commands of the documents', () => {
  /** Nothing listens there: a command that is understood fails to connect, one that is not is refused before. */
  const nowhere = ['--address', '127.0.0.1:1'];

  async function exitCodeOf(line: string): Promise<ExitCode> {
    const silent = { isTerminal: false, print: () => {}, note: () => {}, replace: () => {} };
    return runCommandLine([...words(line).slice(1), ...nowhere], silent);
  }

  test('are understood by runbook', { timeout: 30_000 }, async () => {
    const lines = [readme, operations]
      .flatMap(commands)
      .flatMap(
        (line) =>
          /\b(runbook (?:start|status|watch|approve|reject|abort|recover|report|setup) ?.*)$/.exec(line)?.[1] ?? [],
      );
    expect(lines.length).toBeGreaterThan(8);
    const codes = await Promise.all(lines.map(async (line) => `${line}: ${await exitCodeOf(line)}`));
    expect(codes).toEqual(lines.map((line) => `${line}: ${EXIT_CODES.refused}`));
  });

  test('are understood by temporal', { timeout: 30_000 }, () => {
    const lines = [readme, operations].flatMap(commands).filter((line) => line.startsWith('temporal '));
    const tables = [...operations.matchAll(/\| `(temporal [^`]+)` \|/g)].map(([, line = '']) => line);
    expect(lines.length + tables.length).toBeGreaterThan(8);
    // Options are read before help is given, so an unknown one is refused.
    const understands = (line: string): boolean =>
      spawnSync(programs.temporal, [...words(line).slice(1), '--help'], { stdio: 'ignore' }).status === 0;
    expect([...lines, ...tables].filter((line) => !understands(line))).toEqual([]);
    expect(understands('temporal workflow signal --workflow-id migrate-whisper-transcriber --names approve')).toBe(
      false,
    );
  });

  test('are refused by runbook where they are wrong', async () => {
    expect(await exitCodeOf('runbook approve whisper-transcriber --plan 3f2a9c61b07d')).toBe(EXIT_CODES.usage);
    expect(await exitCodeOf('runbook aprove whisper-transcriber --by erin@example.com')).toBe(EXIT_CODES.usage);
  });
});
