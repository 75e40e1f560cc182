import { createHash } from 'node:crypto';

/** Counts and hashes the bytes that pass. */
export class ByteCounter {
  readonly #hash = createHash('sha256');
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  /** SHA-256 in lower-case hexadecimal. To be asked once, after the last chunk. */
  digest(): string {
    return this.#hash.digest('hex');
  }

  add(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#bytes += chunk.byteLength;
  }

  async *count(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of source) {
      this.add(chunk);
      yield chunk;
    }
  }
}
