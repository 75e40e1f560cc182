import { describe, expect, it } from 'vitest';
import { ArchiveHead } from '../../src/postgres/restore/archive-head.ts';

/** A reader of archives whose list ends at a place of its own; counts how often it is asked. */
function listEndingAt(end: number) {
  const asked: number[] = [];
  return {
    asked,
    holdsList: async (beginning: Buffer): Promise<boolean> => {
      asked.push(beginning.byteLength);
      return beginning.byteLength >= end;
    },
  };
}

async function collect(head: ArchiveHead, archive: Buffer, chunk: number): Promise<void> {
  for (let from = 0; from < archive.byteLength; from += chunk) await head.add(archive.subarray(from, from + chunk));
}

const MEGABYTE = 1024 ** 2;
const archive = Buffer.alloc(6 * MEGABYTE, 'definitions and then rows; ');

describe('the head of an archive', () => {
  it.each([1, 100, 300_000, MEGABYTE, 4 * MEGABYTE + 17])(
    'is cut to the byte where the list ends, at %i',
    async (end) => {
      const { holdsList, asked } = listEndingAt(end);
      const head = new ArchiveHead(holdsList);
      await collect(head, archive, 65_536);
      expect((await head.contentsList()).equals(archive.subarray(0, end))).toBe(true);
      expect(asked.length).toBeLessThan(40);
    },
  );

  it('is found in an archive smaller than the first try', async () => {
    const head = new ArchiveHead(listEndingAt(500).holdsList);
    await collect(head, archive.subarray(0, 700), 100);
    expect((await head.contentsList()).byteLength).toBe(500);
  });

  it('is missing in what is no archive', async () => {
    const head = new ArchiveHead(listEndingAt(Number.POSITIVE_INFINITY).holdsList);
    await collect(head, archive, MEGABYTE);
    await expect(head.contentsList()).rejects.toThrow('contents list cannot be read');
  });
});
