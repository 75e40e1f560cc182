import { constants, createZstdCompress, createZstdDecompress, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import type { Transform } from 'node:stream';
import { drained } from './backpressure.ts';
import { chunksOf } from './chunks.ts';

/** Zstandard (RFC 8878), one frame with its content's checksum: what the `zstd` program reads. */
export const COMPRESSION = 'zstd';

/** Measured in docs/decisions/0008: from level 3 on time grows and size does not. */
const LEVEL = 1;

const parameters = {
  [constants.ZSTD_c_compressionLevel]: LEVEL,
  [constants.ZSTD_c_checksumFlag]: 1,
};

/** Bytes handed to the compressor at a time. Work of 64 KiB each, as they come out of a pipe, costs a fifth more time. */
const BATCH = 1024 * 1024;
const OUTPUT = 256 * 1024;

/** Batches that wait for the compressor, so that it and its source work at the same time. */
const WAITING = 3;

/** Compresses a stream, on a thread of its own. */
export async function* compressed(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  const queue = { highWaterMark: WAITING * BATCH };
  yield* through(source, createZstdCompress({ chunkSize: OUTPUT, params: parameters, ...queue }), BATCH);
}

/**
 * Decompresses a stream, on a thread of its own.
 * @throws Error with a `code` of zlib for what is no Zstandard; what the source throws
 */
export async function* decompressed(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  const queue = { highWaterMark: BATCH };
  yield* through(source, createZstdDecompress({ chunkSize: OUTPUT, ...queue }), OUTPUT);
}

export const compressDocument = (content: string): Uint8Array =>
  zstdCompressSync(Buffer.from(content, 'utf8'), { params: parameters });

/** @param limit bytes the content may have at most */
export const decompressDocument = (content: Uint8Array, limit: number): Uint8Array =>
  zstdDecompressSync(content, { maxOutputLength: limit });

async function* through(
  source: AsyncIterable<Uint8Array>,
  transform: Transform,
  batchSize: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  // Its reader meets it; without a listener an error between two reads would end the process.
  transform.on('error', () => undefined);
  const iterator = source[Symbol.asyncIterator]();
  const feeding = feed(iterator, transform, batchSize).catch((error: unknown) => {
    transform.destroy(error as Error);
  });
  let outcome: 'ended' | 'left' = 'left';
  try {
    yield* chunksOf(transform);
    outcome = 'ended';
  } finally {
    transform.destroy();
    if (outcome === 'ended') await feeding;
    // A source that waits for more is ended by whoever made it wait.
    else await iterator.return?.();
  }
}

/** Hands on what comes in batches, in buffers that are used over and over: fresh megabytes are slow and slow to be freed. */
async function feed(iterator: AsyncIterator<Uint8Array>, transform: Transform, size: number): Promise<void> {
  const free: Buffer[] = [];
  const take = (): Buffer => free.pop() ?? Buffer.allocUnsafeSlow(size);
  let batch = take();
  let used = 0;
  let written: Promise<void> | undefined;
  const pass = async (): Promise<void> => {
    const full = batch;
    let ready = true;
    written = new Promise((resolve) => {
      ready = transform.write(full.subarray(0, used), () => {
        free.push(full);
        resolve();
      });
    });
    [batch, used] = [take(), 0];
    if (!ready && !transform.destroyed) await drained(transform);
  };
  for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
    let rest = next.value;
    while (rest.byteLength > 0) {
      const taken = Math.min(size - used, rest.byteLength);
      batch.set(rest.subarray(0, taken), used);
      used += taken;
      rest = rest.subarray(taken);
      if (used === size) await pass();
      if (transform.destroyed) return;
    }
  }
  if (used > 0) await pass();
  // Ended with work still waiting, zlib adds an empty frame of its own behind the one that holds it all.
  await written;
  transform.end();
}
