/**
 * Hands on chunks whose reader has done with each when it asks for the next, and gives their memory back at that moment.
 * Left to the garbage collector, every 50 MB of them cost a collection of the whole heap: more time than compressing them.
 * For sources that make a fresh buffer for each chunk and forget it: pipes, zlib.
 */
export async function* fleeting<Chunk extends Uint8Array>(
  source: AsyncIterable<Chunk>,
): AsyncGenerator<Chunk, void, undefined> {
  for await (const chunk of source) {
    yield chunk;
    release(chunk);
  }
}

/** Gives back the memory of a chunk: a buffer of its own, or the last piece of one that is larger than those Node shares. */
export function release({ buffer, byteOffset, byteLength }: Uint8Array): void {
  const isLast = byteOffset + byteLength === buffer.byteLength;
  const isOwn = byteOffset === 0 || buffer.byteLength > Buffer.poolSize;
  if (isLast && isOwn && byteLength > 0 && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
