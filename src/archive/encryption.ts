import { randomBytes } from 'node:crypto';
import { Decrypter, Encrypter } from 'age-encryption';
import { refusal } from '../contract/errors.ts';
import { ChunkDamaged, openPayload, PAYLOAD_NONCE, payloadKey, sealPayload } from './age-payload.ts';

/** The file format of https://age-encryption.org/v1: ChaCha20-Poly1305 in 64 KiB chunks, each authenticated, the last one marked. */
export const ENCRYPTION = 'age-encryption.org/v1';

/** The bytes could not be decrypted: another identity, or not what was encrypted. `reason` tells which of the two. */
export class DecryptionFailed extends Error {
  override readonly name = 'DecryptionFailed';
  readonly reason: 'wrong-identity' | 'damaged';

  constructor(reason: DecryptionFailed['reason'], message: string) {
    super(message);
    this.reason = reason;
  }
}

/**
 * Encrypts a stream for every one of the recipients (`age1...`). Each alone can decrypt it with his identity, and so can
 * `age -d`. The library makes the header; the payload goes through OpenSSL, ten times as fast (docs/decisions/0010).
 * @throws StepError `StepRefused` for a recipient that is none
 */
export async function* encrypted(
  source: AsyncIterable<Uint8Array>,
  recipients: readonly string[],
): AsyncGenerator<Uint8Array, void, undefined> {
  const { header, fileKey } = await createHeader(recipients);
  const nonce = randomBytes(PAYLOAD_NONCE);
  const iterator = source[Symbol.asyncIterator]();
  try {
    yield Buffer.concat([header, nonce]);
    yield* sealPayload(startingWith(new Uint8Array(0), iterator), payloadKey(fileKey, nonce));
  } finally {
    await iterator.return?.();
  }
}

async function createHeader(recipients: readonly string[]): Promise<{ header: Uint8Array; fileKey: Uint8Array }> {
  const encrypter = new Encrypter();
  if (recipients.length === 0)
    throw refusal(['The profile names no age recipient: backup.recipients must list one at least.']);
  for (const recipient of recipients) {
    try {
      encrypter.addRecipient(recipient);
    } catch {
      throw refusal([`backup.recipients: "${recipient.slice(0, 12)}..." is no age recipient (age1...).`]);
    }
  }
  let fileKey: Uint8Array | undefined;
  // Adds nothing to the header; it is only told the key.
  encrypter.addRecipient({
    wrapFileKey: (key) => {
      fileKey = Uint8Array.from(key);
      return [];
    },
  });
  const empty = await encrypter.encrypt(new Uint8Array(0));
  if (fileKey === undefined) throw new Error('the age library made a header without a file key');
  return { header: empty.subarray(0, headerLength(empty)), fileKey };
}

/**
 * Decrypts a stream. It fails at the first chunk that was changed, and at the end where the end is missing.
 * @param identity one or, after a change of keys, several: the content of an identity file
 * @throws DecryptionFailed, naming the place; StepError `StepRefused` for an identity that is none; what the source throws
 */
export async function* decrypted(
  source: AsyncIterable<Uint8Array>,
  identity: string,
): AsyncGenerator<Uint8Array, void, undefined> {
  const decrypter = new Decrypter();
  for (const line of identityLines(identity)) {
    try {
      decrypter.addIdentity(line);
    } catch {
      throw refusal(['backup.identity is no age identity (AGE-SECRET-KEY-1..., one a line).']);
    }
  }
  const iterator = source[Symbol.asyncIterator]();
  try {
    const { header, rest } = await readHeader(iterator);
    const fileKey = await openHeader(decrypter, header);
    const key = payloadKey(fileKey, rest.subarray(0, PAYLOAD_NONCE));
    const start = header.byteLength + PAYLOAD_NONCE;
    try {
      yield* openPayload(startingWith(rest.subarray(PAYLOAD_NONCE), iterator), key);
    } catch (error) {
      if (!(error instanceof ChunkDamaged)) throw error;
      // Every chunk's key comes from the nonce; if that was changed, the first one shows it.
      const from = error.chunk === 1 ? header.byteLength : start + error.from;
      throw new DecryptionFailed(
        'damaged',
        `${error.message}: chunk ${error.chunk}, bytes ${from} to ${start + error.to} of the object`,
      );
    }
  } finally {
    await iterator.return?.();
  }
}

/** Of an identity file as `age-keygen` writes it, with comments; at least one line. */
function identityLines(identity: string): readonly string[] {
  const lines = identity.split('\n').map((line) => line.trim());
  const found = lines.filter((line) => line !== '' && !line.startsWith('#'));
  return found.length === 0 ? [''] : found;
}

/** No header of thousands of recipients is longer. */
const LONGEST_HEADER = 1024 * 1024;

/** Length of the header at the beginning of the bytes, its last line break included; undefined where its end is not among them. */
function headerLength(bytes: Uint8Array): number | undefined {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const footer = buffer.indexOf('\n--- ');
  const end = footer < 0 ? -1 : buffer.indexOf('\n', footer + 1);
  return end < 0 ? undefined : end + 1;
}

/** Reads the header and at least the nonce behind it. */
async function readHeader(
  iterator: AsyncIterator<Uint8Array>,
): Promise<{ readonly header: Uint8Array; readonly rest: Uint8Array }> {
  let read: Buffer = Buffer.alloc(0);
  for (;;) {
    const length = headerLength(read);
    if (length !== undefined && read.byteLength >= length + PAYLOAD_NONCE)
      return { header: read.subarray(0, length), rest: read.subarray(length) };
    const next = read.byteLength > LONGEST_HEADER ? undefined : await iterator.next();
    if (next === undefined || next.done === true)
      throw new DecryptionFailed('damaged', `it has no whole age header: bytes 0 to ${read.byteLength} of the object`);
    read = Buffer.concat([read, next.value]);
  }
}

async function openHeader(decrypter: Decrypter, header: Uint8Array): Promise<Uint8Array> {
  try {
    return await decrypter.decryptHeader(header);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw message.includes('no identity matched')
      ? new DecryptionFailed('wrong-identity', 'it was encrypted for other recipients than the identity of the profile')
      : new DecryptionFailed(
          'damaged',
          `its age header cannot be read (${message.slice(0, 200)}): bytes 0 to ${header.byteLength} of the object`,
        );
  }
}

async function* startingWith(
  first: Uint8Array,
  iterator: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  if (first.byteLength > 0) yield first;
  for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value;
}
