import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ProcessCancelled, ProcessFailed, ProcessNotStarted } from '../../src/process/errors.ts';
import { isGroupGone } from '../../src/process/group.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { requireSuccess, runProcess, startProcess, streamProcess } from '../../src/process/run.ts';

const base = () => ({ signal: new AbortController().signal, redactor: createRedactor([]) });
const shell = (script: string) => ({ ...base(), file: 'sh', args: ['-c', script] });
/** Ignores SIGTERM, as does its child, and tells the child's id. */
const stubborn = `trap "" TERM; sh -c 'trap "" TERM; echo $$; while :; do sleep 1; done' & while :; do sleep 1; done`;

interface ProcessEntry {
  readonly id: string;
  readonly parentId: number;
  readonly command: string;
}

/** All living processes of the machine. */
async function processes(): Promise<ProcessEntry[]> {
  const { stdout } = await promisify(execFile)('ps', ['-A', '-o', 'pid=,ppid=,state=,args=']);
  return stdout.split('\n').flatMap((line) => {
    const [, id, parentId, state, command] = /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line) ?? [];
    return id === undefined || command === undefined || state?.startsWith('Z') === true
      ? []
      : [{ id, parentId: Number(parentId), command }];
  });
}

describe('a process', () => {
  test('tells its exit code and the end of what it wrote', async () => {
    const result = await runProcess(shell('echo out; echo err >&2; exit 3'));
    expect(result).toMatchObject({ kind: 'exited', code: 3, stdoutTail: 'out\n', stderrTail: 'err\n' });
    expect(() => requireSuccess(result, 'the command')).toThrow('the command exited with code 3: err');
  });

  test('tells the signal that ended it', async () => {
    expect(await runProcess(shell('kill -9 $$'))).toMatchObject({ kind: 'signaled', signal: 'SIGKILL' });
  });

  test('gets PATH, HOME, LANG and TZ of the worker, what it is passed, and nothing else', async () => {
    process.env.RUNBOOK_TEST_LEAK = 'leaked';
    onTestFinished(() => {
      delete process.env.RUNBOOK_TEST_LEAK;
    });
    const result = await runProcess({ ...base(), file: 'env', environment: { GIVEN: "a b'c$d", HOME: '/tmp' } });
    const names = result.stdoutTail.split('\n').map((line) => line.split('=')[0]);
    expect(result.stdoutTail).toContain("GIVEN=a b'c$d\n");
    expect(result.stdoutTail).toContain('HOME=/tmp\n');
    // PWD and the like are the starting shell's own.
    expect(
      names.filter((name) => !['PATH', 'HOME', 'LANG', 'TZ', 'GIVEN', 'PWD', 'SHLVL', '_', ''].includes(name ?? '')),
    ).toEqual([]);
  });

  test('gets its arguments literally', async () => {
    const args = ['<%s>\\n', 'a b', '$HOME', `'"`, '', '*'];
    expect((await runProcess({ ...base(), file: 'printf', args })).stdoutTail).toBe(`<a b>\n<$HOME>\n<'">\n<>\n<*>\n`);
  });

  test.each([
    ['a program that is not on PATH', { file: 'no-such-program' }, 'program-not-found'],
    ['a path that is no program', { file: import.meta.filename }, 'program-not-found'],
    ['a working directory that is missing', { file: 'true', directory: '/no/such/folder' }, 'directory-not-found'],
    ['a name no variable can have', { file: 'true', environment: { 'A-B': 'x' } }, 'invalid-environment'],
  ])('is not started for %s', async (_case, options, reason) => {
    const failure = await runProcess({ ...base(), ...options }).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(ProcessNotStarted);
    expect(failure).toMatchObject({ reason });
  });

  test('shows no secret in lines and tails', async () => {
    const lines: string[] = [];
    const result = await runProcess({
      ...shell('printf "pass"; sleep 0.1; printf "word-1\\n"; echo password-1 >&2'),
      redactor: createRedactor(['password-1']),
      onLine: (stream, line) => lines.push(`${stream}: ${line}`),
    });
    expect(lines.sort()).toEqual(['stderr: [redacted]', 'stdout: [redacted]']);
    expect(result).toMatchObject({ stdoutTail: '[redacted]\n', stderrTail: '[redacted]\n' });
  });

  test('reports that it lives', async () => {
    const reports: number[] = [];
    await runProcess({ ...shell('echo started; sleep 2.5'), progress: ({ lines }) => reports.push(lines) });
    expect(reports.length).toBeGreaterThanOrEqual(1);
    expect(reports[0]).toBe(1);
  });

  test('reads its input', async () => {
    expect((await runProcess({ ...base(), file: 'cat', input: 'typed' })).stdoutTail).toBe('typed\n');
    expect((await runProcess({ ...base(), file: 'cat', input: Readable.from(['a', 'b']) })).stdoutTail).toBe('ab\n');
  });

  test('may close its input early', async () => {
    let read = 0;
    const input = Readable.from(
      (function* () {
        for (; read < 200; read += 1) yield Buffer.alloc(65_536);
      })(),
    );
    expect(await runProcess({ ...base(), file: 'head', args: ['-c', '10'], input })).toMatchObject({ code: 0 });
    await expect.poll(() => input.readableEnded).toBe(true);
    expect(read).toBe(200);
  });

  test('is stopped when its input fails, and never sees it as an ordinary end', async () => {
    const input = Readable.from(
      (async function* () {
        yield 'first';
        await delay(50);
        throw new Error('decryption failed');
      })(),
    );
    const finished = runProcess({ ...shell('cat >/dev/null; echo took it for whole'), input });
    await expect(finished).rejects.toThrow('decryption failed');
  });

  test('has channels beside its standard streams', async () => {
    const running = await startProcess({
      ...shell('read -r question <&5; echo "answer to $question" >&4'),
      channels: 2,
    });
    const answer = text(running.channels[0] as Readable);
    running.channels[1]?.write('question\n');
    expect(await answer).toBe('answer to question\n');
    expect(await running.result).toMatchObject({ kind: 'exited', code: 0 });
  });

  test('ends together with what it left in the background', async () => {
    const running = await startProcess(shell('(trap "" TERM; sleep 1000) & echo done'));
    expect(await running.result).toMatchObject({ kind: 'exited', code: 0, stdoutTail: 'done\n' });
    expect(await isGroupGone(running.pid)).toBe(true);
  });

  test('stops on request', async () => {
    const running = await startProcess(shell('sleep 1000'));
    expect(await running.stop()).toMatchObject({ kind: 'signaled', signal: 'SIGTERM' });
    expect(await isGroupGone(running.pid)).toBe(true);
  });
});

describe('a cancelled process', () => {
  test('is gone with its descendants, even those that ignore SIGTERM, before the reason is thrown', async () => {
    const abort = new AbortController();
    const reason = new Error('the window is over');
    const running = await startProcess({ ...shell(stubborn), signal: abort.signal, onLine: () => abort.abort(reason) });
    await expect(running.result).rejects.toBe(reason);
    expect(await isGroupGone(running.pid)).toBe(true);
  });

  test('may clean up on SIGTERM', async () => {
    const abort = new AbortController();
    const lines: string[] = [];
    const onLine = (stream: string, line: string): void => {
      if (stream === 'stdout') lines.push(line);
      if (line === 'ready') abort.abort('no error');
    };
    const script = 'trap "echo cleaned; exit 0" TERM; echo ready; while :; do sleep 0.05; done';
    await expect(runProcess({ ...shell(script), signal: abort.signal, onLine })).rejects.toBeInstanceOf(
      ProcessCancelled,
    );
    expect(lines).toEqual(['ready', 'cleaned']);
  });

  test('lets go of its input', async () => {
    const abort = new AbortController();
    const input = Readable.from(
      (async function* () {
        for (;;) {
          yield 'more\n';
          await delay(5);
        }
      })(),
    );
    const finished = runProcess({
      ...shell('cat'),
      input,
      signal: abort.signal,
      onLine: () => abort.abort(new Error('stop')),
    });
    await expect(finished).rejects.toThrow('stop');
    await expect.poll(() => input.destroyed).toBe(true);
  });

  test('is not started at all when the signal has fired before', async () => {
    const reason = new Error('too late');
    await expect(runProcess({ ...shell('true'), signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

describe('a streamed process', () => {
  test('hands over every byte and ends when the exit code is 0', async () => {
    const { stdout, result } = await streamProcess(shell('head -c 3000000 /dev/zero'));
    let bytes = 0;
    for await (const chunk of stdout) bytes += (chunk as Uint8Array).length;
    expect(bytes).toBe(3_000_000);
    expect(await result).toMatchObject({ kind: 'exited', code: 0 });
  });

  test.each([
    ['exits with an error', 'echo part; echo "disk full" >&2; exit 1', 'exited with code 1: disk full'],
    ['is killed', 'echo part; kill -9 $$', 'was ended by SIGKILL'],
  ])('fails its stream when it %s, instead of an ordinary end', async (_case, script, message) => {
    const { stdout } = await streamProcess(shell(script));
    const failure = await text(stdout).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(ProcessFailed);
    expect(String(failure)).toContain(message);
  });

  test('stops when its reader gives up', async () => {
    const running = await streamProcess(shell('while :; do echo more; done'));
    await once(running.stdout, 'data');
    running.stdout.destroy();
    await running.result;
    expect(await isGroupGone(running.pid)).toBe(true);
  });

  test('fails its stream with the reason when it is cancelled while nobody reads', async () => {
    const abort = new AbortController();
    const running = await streamProcess({ ...shell('while :; do echo more; done'), signal: abort.signal });
    const failed = once(running.stdout, 'error');
    abort.abort(new Error('cancelled'));
    expect(String((await failed)[0])).toContain('cancelled');
    await expect(running.result).rejects.toThrow('cancelled');
  });
});

describe('when the worker is killed', () => {
  const run = new URL('../../src/process/run.ts', import.meta.url).href;
  const redactor = new URL('../../src/process/redactor.ts', import.meta.url).href;
  const worker = (script: string) =>
    spawn(
      process.execPath,
      [
        '--input-type=module',
        '--eval',
        `import { startProcess } from ${JSON.stringify(run)};
         import { createRedactor } from ${JSON.stringify(redactor)};
         console.log('begin');
         const running = await startProcess({ file: 'sh', args: ['-c', ${JSON.stringify(script)}], redactor: createRedactor([]),
           signal: new AbortController().signal, onLine: (_, line) => console.log(line) });
         console.log('group ' + running.pid);`,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );

  test('its processes die with it, even descendants that ignore SIGTERM', async () => {
    const parent = worker(stubborn);
    const lines: string[] = [];
    for await (const line of createInterface({ input: parent.stdout })) {
      lines.push(line);
      if (lines.length === 3) break;
    }
    const group = Number(lines.find((line) => line.startsWith('group '))?.slice(6));
    expect(await isGroupGone(group)).toBe(false);
    parent.kill('SIGKILL');
    await expect.poll(() => isGroupGone(group), { timeout: 10_000 }).toBe(true);
  });

  test('at whatever moment, it leaves nothing running', async () => {
    const marker = `19${Date.now() % 10_000_000}`;
    for (let round = 0; round < 8; round += 1) {
      const parent = worker(`trap '' TERM; (trap '' TERM; sleep ${marker}) & sleep ${marker}`);
      const exited = once(parent, 'exit');
      await once(parent.stdout, 'data');
      await delay(round * 6);
      parent.kill('SIGKILL');
      await exited;
    }
    await expect
      .poll(async () => (await processes()).filter(({ command }) => command.includes(marker)), { timeout: 10_000 })
      .toEqual([]);
  });

  test('no watcher of it stays behind', async () => {
    const parent = worker('sleep 1000');
    const children = async (): Promise<string[]> =>
      (await processes()).filter(({ parentId }) => parentId === parent.pid).map(({ id }) => id);
    await expect.poll(async () => (await children()).length, { timeout: 10_000 }).toBe(2);
    const before = await children();
    parent.kill('SIGKILL');
    await expect
      .poll(async () => (await processes()).filter(({ id }) => before.includes(id)), { timeout: 10_000 })
      .toEqual([]);
  });
});
