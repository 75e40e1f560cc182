/** What a newcomer reads first: the help of every command. */
import { describe, expect, test } from 'vitest';
import { EXIT_CODES } from '../../src/commands/command-error.ts';
import { runCommandLine } from '../../src/commands/program.ts';

async function runbook(...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let [stdout, stderr] = ['', ''];
  const code = await runCommandLine(words, {
    isTerminal: false,
    print: (text) => void (stdout += `${text.replace(/\n$/, '')}\n`),
    note: (text) => void (stderr += `${text}\n`),
    replace: () => undefined,
  });
  return { code, stdout, stderr };
}

const helpOf = async (command: string): Promise<string> => (await runbook(...command.split(' '), '--help')).stdout;

/** The commands that a help lists. */
const listed = (help: string): string[] =>
  [...help.matchAll(/^ {2}([a-z]+)(?= \[options\]| {3,}\S)/gm)].flatMap(([, name = '']) =>
    name === 'help' ? [] : [name],
  );

const top = listed((await runbook('--help')).stdout);
const groups = ['backup', 'quarantine'];
const commands = [
  ...top.filter((name) => !groups.includes(name)),
  ...(
    await Promise.all(groups.map(async (group) => listed(await helpOf(group)).map((name) => `${group} ${name}`)))
  ).flat(),
];

/** Command lines under "Examples", continued lines joined, without pipes and redirections. */
const examplesIn = (help: string): string[] =>
  [...help.replaceAll(/\\\n\s*/g, '').matchAll(/^ {2}(runbook .*)$/gm)].map(([, line = '']) =>
    line.replace(/ [|>] .*| {2,}.*/, ''),
  );

const TOMORROW = new Date(Date.now() + 86_400_000).toISOString().slice(0, 10);

const words = (line: string): string[] =>
  // A window that is over is refused as wrong usage, rightly.
  [...line.replaceAll('2026-11-22', TOMORROW).matchAll(/"([^"]*)"|(\S+)/g)]
    .map(([, quoted, plain]) => quoted ?? plain ?? '')
    .slice(1);

describe('the help', () => {
  test('lists every command under what it is for', async () => {
    expect(top).toHaveLength(16);
    expect(commands).toHaveLength(18);
    const { code, stdout } = await runbook('--help');
    expect(code).toBe(0);
    const headings = [...stdout.matchAll(/^([A-Z].*):$/gm)].map(([, heading]) => heading);
    expect(headings.slice(0, 5)).toEqual([
      'Options',
      'Before the first run',
      'A run',
      'Decisions, sent to a run',
      'Backups, drills, leftovers',
    ]);
  });

  test('of each command has an example', async () => {
    const without = await Promise.all(
      commands.map(async (command) =>
        examplesIn(await helpOf(command)).some((line) => line.startsWith(`runbook ${command}`)) ? [] : [command],
      ),
    );
    expect(without.flat()).toEqual([]);
  });

  test('has examples that are understood', { timeout: 30_000 }, async () => {
    // A worker would begin its work.
    const helps = await Promise.all(commands.filter((name) => name !== 'worker').map(helpOf));
    const lines = helps.flatMap((help) =>
      // Nothing listens there, and there is no such profile: what is understood is refused, what is not is wrong usage.
      examplesIn(help).map((line) => `${line}${help.includes('--address') ? ' --address 127.0.0.1:1' : ''}`),
    );
    expect(lines.length).toBeGreaterThan(25);
    const codes = await Promise.all(lines.map(async (line) => `${line}: ${(await runbook(...words(line))).code}`));
    expect(codes).toEqual(lines.map((line) => `${line}: ${EXIT_CODES.refused}`));
  });

  test.each([
    ['start', ['--tag', '--ticket', '--by'], '--namespace'],
    ['approve', ['--by'], '--namespace'],
    ['recover', ['--by', '--action', '--reason'], '--namespace'],
    ['worker', ['--state'], '--namespace'],
    ['backup verify', ['--service'], '--help'],
  ])(
    'of %s begins with what must be given, and ends with the server where one is needed',
    async (command, required, last) => {
      const help = await helpOf(command);
      const options = help.slice(help.indexOf('Options:'));
      const order = [...options.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm)].map(([, name]) => name);
      expect(order.slice(0, required.length)).toEqual(expect.arrayContaining(required));
      expect(options.match(/\(required\)/g)).toHaveLength(required.length);
      expect(order.at(-1)).toBe(last);
    },
  );

  test('is named where the words were not enough', async () => {
    expect(await runbook('backup')).toEqual({
      code: 2,
      stdout: '',
      stderr: 'runbook: say what to do; see runbook backup --help\n',
    });
    expect((await runbook()).stderr).toBe('runbook: say what to do; see runbook --help\n');
    expect((await runbook('aprove', 'x')).stderr).toBe("runbook: unknown command 'aprove' (Did you mean approve?)\n");
  });

  test('tells the version of the package', async () => {
    const { code, stdout } = await runbook('--version');
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\S*\n$/) as string });
  });
});
