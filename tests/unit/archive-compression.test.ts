import { randomBytes } from 'node:crypto';
import { PassThrough, Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { chunksOf } from '../../src/archive/chunks.ts';
import { compressed, decompressed } from '../../src/archive/compression.ts';
import { fleeting } from '../../src/archive/fleeting.ts';

/** Copies: what is handed on may be gone later. */
async function whole(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

async function* pieces(content: Uint8Array, size = 65_536): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < content.length; start += size) yield content.subarray(start, start + size);
}

const text = (bytes: number): Buffer => Buffer.from(randomBytes(bytes / 2).toString('hex'));

describe('compression', () => {
  it.each([0, 2, 65_536, 1024 * 1024, 1024 * 1024 + 2, 4 * 1024 * 1024, 9_000_000])(
    'gives back %i bytes as they were',
    async (size) => {
      const content = text(size);
      const packed = await whole(fleeting(compressed(pieces(content))));
      expect(packed.length).toBeLessThan(size * 0.6 + 50);
      expect(content.equals(await whole(fleeting(decompressed(pieces(packed, 50_001)))))).toBe(true);
    },
  );

  it('is one standard frame with a checksum of its content', async () => {
    const content = text(3_000_000);
    const packed = await whole(compressed(pieces(content)));
    // RFC 8878, 3.1.1: magic number, then the descriptor with the checksum's flag.
    expect(packed.readUInt32LE(0)).toBe(0xfd2fb528);
    expect(packed[4]! & 0b100).toBe(0b100);
    expect(content.equals(zstdDecompressSync(packed))).toBe(true);
    const broken = Buffer.from(packed);
    broken[broken.length - 1]! ^= 1;
    await expect(whole(decompressed(pieces(broken)))).rejects.toThrow('checksum');
    await expect(whole(decompressed(pieces(packed.subarray(0, -10))))).rejects.toThrow('unexpected end');
    expect(content.equals(await whole(decompressed(pieces(zstdCompressSync(content)))))).toBe(true);
  });

  it('hands on the failure of its source as it is, and closes the source when its reader goes away', async () => {
    const reason = new Error('the source broke');
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield text(3_000_000);
      throw reason;
    }
    await expect(whole(compressed(failing()))).rejects.toBe(reason);
    let closed = 0;
    async function* endless(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield text(65_536);
      } finally {
        closed += 1;
      }
    }
    for await (const chunk of compressed(endless())) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    expect(closed).toBe(1);
  });
});

describe('chunksOf', () => {
  it('hands on the chunks one by one, and reads no more than a few ahead', async () => {
    let given = 0;
    const stream = new Readable({
      highWaterMark: 10,
      read() {
        given += 1;
        this.push(given > 100 ? null : Buffer.alloc(10, given));
      },
    });
    let taken = 0;
    for await (const chunk of chunksOf(stream)) {
      taken += 1;
      expect([...new Set(chunk)]).toEqual([taken]);
      expect(given - taken).toBeLessThan(10);
      if (taken % 10 === 0) await delay(1);
    }
    expect(taken).toBe(100);
  });

  it('fails with the error of the stream, also where that came first, and where it was closed before its end', async () => {
    const reason = new Error('broken');
    const broken = new PassThrough();
    broken.write('some');
    setImmediate(() => broken.destroy(reason));
    await expect(whole(chunksOf(broken))).rejects.toBe(reason);
    const before = new PassThrough();
    before.on('error', () => undefined);
    before.destroy(reason);
    await delay(5);
    await expect(whole(chunksOf(before))).rejects.toBe(reason);
    const closed = new PassThrough();
    closed.write('some');
    setImmediate(() => closed.destroy());
    await expect(whole(chunksOf(closed))).rejects.toThrow('closed before its end');
  });

  it('destroys the stream when its reader goes away', async () => {
    const stream = Readable.from([Buffer.from('a'), Buffer.from('b')]);
    for await (const _ of chunksOf(stream)) break;
    expect(stream.destroyed).toBe(true);
  });
});

describe('fleeting', () => {
  it('gives back the memory of a chunk of its own when the next is asked for, and never that of shared buffers', async () => {
    const own = [Buffer.allocUnsafeSlow(1000).fill(1), Buffer.allocUnsafeSlow(1000).fill(2)];
    const shared = Buffer.allocUnsafeSlow(200_000).fill(3);
    async function* source(): AsyncGenerator<Buffer> {
      yield* own;
      yield shared.subarray(0, 100_000);
      yield Buffer.from('small');
    }
    const neighbour = Buffer.from('a neighbour of the small one');
    for await (const chunk of fleeting(source())) expect(chunk.length).toBeGreaterThan(0);
    expect(own.map((chunk) => chunk.length)).toEqual([0, 0]);
    expect(shared[0]).toBe(3);
    expect(neighbour.toString()).toBe('a neighbour of the small one');
  });
});
