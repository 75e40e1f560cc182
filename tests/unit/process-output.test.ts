import { describe, expect, test } from 'vitest';
import { LineSplitter, Tail } from '../../src/process/output.ts';
import { createRedactor } from '../../src/process/redactor.ts';

function split(
  chunks: readonly (string | Uint8Array)[],
  { secrets = [] as string[], lineLength = 100 } = {},
): string[] {
  const lines: string[] = [];
  const splitter = new LineSplitter(createRedactor(secrets), lineLength, (line) => lines.push(line));
  for (const chunk of chunks) splitter.write(typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
  splitter.end();
  return lines;
}

describe('output split into lines', () => {
  test('joins lines over chunk boundaries and keeps the last line without an end', () => {
    expect(split(['one\ntw', 'o\r\nthr', 'ee'])).toEqual(['one', 'two', 'three']);
  });

  test('keeps characters whole that a chunk boundary cuts', () => {
    const bytes = Buffer.from('gr\u00fc\u00dfe\n');
    expect(split([bytes.subarray(0, 3), bytes.subarray(3)])).toEqual(['gr\u00fc\u00dfe']);
  });

  test('finds a secret that arrives in pieces', () => {
    expect(split(['user hun', 'ter2-hunter2', '-hunter2 end\n'], { secrets: ['hunter2-hunter2-hunter2'] })).toEqual([
      'user [redacted] end',
    ]);
  });

  test('cuts a very long line and goes on with the next', () => {
    expect(split(['x'.repeat(5_000), 'x'.repeat(5_000), '\nnext\n'], { lineLength: 10 })).toEqual([
      `${'x'.repeat(10)} [cut]`,
      'next',
    ]);
  });

  test('shows no part of a secret where a long line is cut', () => {
    const secret = 'a-long-secret-value-of-forty-characters';
    for (let offset = 0; offset < 60; offset += 1) {
      const text = `${'x'.repeat(offset)}${secret}${secret}${'y'.repeat(200)}`;
      const [line] = split([text, '\n'], { secrets: [secret], lineLength: 30 });
      expect(line?.replaceAll('[redacted]', '')).toMatch(/^x*y*( \[cut\])$/);
    }
  });

  test('holds no more of an endless line than it shows', () => {
    let longest = 0;
    const splitter = new LineSplitter(createRedactor(['some-secret']), 1_000, (line) => {
      longest = Math.max(longest, line.length);
    });
    const chunk = Buffer.alloc(1_000_000, 'z');
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < 200; i += 1) splitter.write(chunk);
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(100_000_000);
    expect(longest).toBeLessThan(1_100);
  });

  test('keeps the end of what was said, within its bound', () => {
    const tail = new Tail(20);
    for (let i = 0; i < 1_000; i += 1) tail.push(`line ${i}`);
    expect(tail.toString()).toBe('7\nline 998\nline 999\n');
    expect(tail.toString().length).toBeLessThanOrEqual(20);
  });
});
