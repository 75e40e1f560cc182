import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync } from 'node:crypto';
import { release } from './fleeting.ts';

/*
 * The payload of the age file format (https://age-encryption.org/v1, "Payload"): STREAM of ChaCha20-Poly1305 in chunks of
 * 64 KiB. A chunk's nonce is a counter of 11 bytes and a byte that is 1 for the last chunk only, so chunks can be neither
 * reordered, nor left out, nor cut off at the end.
 */

const CIPHER = 'chacha20-poly1305';
const CHUNK = 64 * 1024;
const TAG = 16;
export const PAYLOAD_NONCE = 16;

/** A chunk is not what was encrypted. Positions in bytes from the beginning of the payload, the nonce not counted. */
export class ChunkDamaged extends Error {
  override readonly name = 'ChunkDamaged';
  /** The first chunk is 1. */
  readonly chunk: number;
  readonly from: number;
  readonly to: number;

  constructor(chunk: number, from: number, to: number, what: string) {
    super(what);
    this.chunk = chunk;
    this.from = from;
    this.to = to;
  }
}

export const payloadKey = (fileKey: Uint8Array, nonce: Uint8Array): Uint8Array =>
  new Uint8Array(hkdfSync('sha256', fileKey, nonce, 'payload', 32));

/** Encrypts a stream; whatever the size of the source's chunks, at most one of 64 KiB is held. */
export async function* sealPayload(
  source: AsyncIterable<Uint8Array>,
  key: Uint8Array,
): AsyncGenerator<Uint8Array, void, undefined> {
  const nonce = new ChunkNonce();
  const secret = createSecretKey(key);
  for await (const { bytes, position } of inChunks(source, CHUNK)) {
    const cipher = createCipheriv(CIPHER, secret, nonce.next(position), { authTagLength: TAG });
    const sealed = Buffer.allocUnsafe(bytes.byteLength + TAG);
    const encrypted = cipher.update(bytes);
    sealed.set(encrypted, 0);
    release(encrypted);
    cipher.final();
    sealed.set(cipher.getAuthTag(), bytes.byteLength);
    yield sealed;
  }
}

/**
 * Decrypts a payload, each chunk only after it was found authentic.
 * @throws ChunkDamaged; what the source throws
 */
export async function* openPayload(
  source: AsyncIterable<Uint8Array>,
  key: Uint8Array,
): AsyncGenerator<Uint8Array, void, undefined> {
  const nonce = new ChunkNonce();
  const secret = createSecretKey(key);
  let read = 0;
  for await (const { bytes, position } of inChunks(source, CHUNK + TAG)) {
    const [chunk, from, to] = [nonce.count + 1, read, read + bytes.byteLength] as const;
    const damaged = (what: string): ChunkDamaged => new ChunkDamaged(chunk, from, to, what);
    if (bytes.byteLength < TAG) throw damaged('it ends in the middle of a chunk');
    if (bytes.byteLength === TAG && chunk > 1) throw damaged('its last chunk is empty');
    const decipher = createDecipheriv(CIPHER, secret, nonce.next(position), { authTagLength: TAG });
    const end = bytes.byteLength - TAG;
    decipher.setAuthTag(bytes.subarray(end));
    const opened = decipher.update(bytes.subarray(0, end));
    try {
      decipher.final();
    } catch {
      throw damaged(
        position === 'last' ? 'its last chunk is not authentic, or chunks are missing' : 'a chunk is not authentic',
      );
    }
    read = to;
    yield opened;
  }
}

class ChunkNonce {
  #count = 0;

  get count(): number {
    return this.#count;
  }

  next(position: ChunkPosition): Uint8Array {
    const nonce = Buffer.alloc(12);
    // 48 bits hold more chunks than any object has bytes.
    nonce.writeUIntBE(this.#count, 5, 6);
    nonce[11] = position === 'last' ? 1 : 0;
    this.#count += 1;
    return nonce;
  }
}

type ChunkPosition = 'last' | 'before';

/**
 * Cuts a stream into chunks of exactly `size` bytes; only the last may be smaller, and an empty stream is one empty chunk.
 * A chunk is valid until the next one is asked for.
 */
async function* inChunks(
  source: AsyncIterable<Uint8Array>,
  size: number,
): AsyncGenerator<{ readonly bytes: Uint8Array; readonly position: ChunkPosition }, void, undefined> {
  const held = Buffer.allocUnsafeSlow(size);
  let used = 0;
  for await (const piece of source) {
    let rest = piece;
    while (rest.byteLength > 0) {
      // A full chunk is the last one unless something follows.
      if (used === size) {
        yield { bytes: held, position: 'before' };
        used = 0;
      }
      if (used === 0 && rest.byteLength > size) {
        yield { bytes: rest.subarray(0, size), position: 'before' };
        rest = rest.subarray(size);
        continue;
      }
      const taken = Math.min(size - used, rest.byteLength);
      held.set(rest.subarray(0, taken), used);
      used += taken;
      rest = rest.subarray(taken);
    }
  }
  yield { bytes: held.subarray(0, used), position: 'last' };
}
