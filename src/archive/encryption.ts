import { Decrypter, Encrypter } from 'age-encryption';
import { refusal } from '../contract/errors.ts';
import { watchSource } from './watched-source.ts';

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
 * Encrypts a stream for every one of the recipients (`age1...`). Each alone can decrypt it with his identity.
 * @throws StepError `StepRefused` for a recipient that is none
 */
export async function* encrypted(
  source: AsyncIterable<Uint8Array>,
  recipients: readonly string[],
): AsyncGenerator<Uint8Array, void, undefined> {
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
  const iterator = source[Symbol.asyncIterator]();
  try {
    yield* await encrypter.encrypt(webStream(iterator));
  } finally {
    await iterator.return?.();
  }
}

/**
 * Decrypts a stream. It fails at the first chunk that was changed, and at the end where the end is missing.
 * @throws DecryptionFailed; StepError `StepRefused` for an identity that is none; what the source throws
 */
export async function* decrypted(
  source: AsyncIterable<Uint8Array>,
  identity: string,
): AsyncGenerator<Uint8Array, void, undefined> {
  const decrypter = new Decrypter();
  try {
    decrypter.addIdentity(identity.trim());
  } catch {
    throw refusal(['backup.identity is no age identity (AGE-SECRET-KEY-1...).']);
  }
  const watched = watchSource(source);
  try {
    yield* await decrypter.decrypt(webStream(watched.stream));
  } catch (error) {
    watched.throwIfFailed();
    throw asDecryptionFailure(error);
  } finally {
    // A header that does not fit fails before the library takes hold of the stream, which then nobody closes.
    await watched.stream.return();
  }
}

function asDecryptionFailure(error: unknown): DecryptionFailed {
  const message = error instanceof Error ? error.message : String(error);
  return message.includes('no identity matched')
    ? new DecryptionFailed('wrong-identity', 'it was encrypted for other recipients than the identity of the profile')
    : new DecryptionFailed('damaged', `it cannot be decrypted (${message.slice(0, 200)})`);
}

/** A pull stream without a queue of its own: nothing is read ahead of the consumer. */
const webStream = (iterator: AsyncIterator<Uint8Array>): ReadableStream<Uint8Array> =>
  new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const next = await iterator.next();
        if (next.done === true) controller.close();
        else controller.enqueue(next.value);
      },
      async cancel() {
        await iterator.return?.();
      },
    },
    { highWaterMark: 0 },
  );
