import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';

const commands = join(import.meta.dirname, '../../src/commands');
/** Prints a megabyte, while something keeps the process alive, and ends with code 3. */
const program = `
  import { exitWhenWritten } from '${commands}/exit.ts';
  import { processOutput } from '${commands}/output.ts';
  setInterval(() => {}, 1000);
  processOutput().print('x'.repeat(1_000_000));
  await exitWhenWritten(3);
`;
const start = () =>
  spawn(process.execPath, ['--no-warnings', '--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });

describe('a command that has printed much', () => {
  it('ends when its reader has all of it, however slow that is', async () => {
    const child = start();
    const ended = once(child, 'close');
    await once(child.stdout, 'readable');
    // The pipe is full by now.
    await delay(500);
    let bytes = 0;
    child.stdout.on('data', (chunk: Buffer) => (bytes += chunk.length));
    expect(await ended).toEqual([3, null]);
    expect(bytes).toBe(1_000_001);
  });

  it('ends when its reader has gone away', async () => {
    const child = start();
    const ended = once(child, 'exit');
    await once(child.stdout, 'readable');
    child.stdout.destroy();
    expect(await ended).toEqual([3, null]);
  });
});
