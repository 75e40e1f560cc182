import { createCipheriv, randomBytes } from 'node:crypto';
import { Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from 'age-encryption';
import { describe, expect, it } from 'vitest';
import { openPayload } from '../../src/archive/age-payload.ts';
import { DecryptionFailed, decrypted, encrypted } from '../../src/archive/encryption.ts';

const identity = await generateX25519Identity();
const recipient = await identityToRecipient(identity);

async function* pieces(content: Uint8Array, size = 10_007): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < content.length; start += size) yield content.subarray(start, start + size);
}

async function whole(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

describe('encryption', () => {
  it.each([0, 1, 65_535, 65_536, 65_537, 200_000])('gives back %i bytes as they were', async (size) => {
    const content = randomBytes(size);
    const cipher = await whole(encrypted(pieces(content), [recipient]));
    expect(cipher.subarray(0, 21).toString()).toBe('age-encryption.org/v1');
    expect(content.equals(await whole(decrypted(pieces(cipher), identity)))).toBe(true);
  });

  it.each([0, 1, 65_535, 65_536, 65_537, 131_072, 200_000])(
    'is read by the library, and reads what the library wrote: %i bytes',
    async (size) => {
      const content = randomBytes(size);
      const decrypter = new Decrypter();
      decrypter.addIdentity(identity);
      const ours = await whole(encrypted(pieces(content), [recipient]));
      expect(content.equals(await decrypter.decrypt(ours))).toBe(true);
      const encrypter = new Encrypter();
      encrypter.addRecipient(recipient);
      const theirs = Buffer.from(await encrypter.encrypt(content));
      expect(theirs.length).toBe(ours.length);
      for (const step of [1_000, 65_552, 1_000_000])
        expect(content.equals(await whole(decrypted(pieces(theirs, step), identity)))).toBe(true);
    },
  );

  it('refuses chunks in another order, left out or repeated, an altered one and an empty last one, and names the place', async () => {
    const sealedChunk = 65_552;
    const cipher = await whole(encrypted(pieces(randomBytes(4 * 65_536 + 1000)), [recipient]));
    const start = cipher.length - 4 * sealedChunk - 1016;
    const parts = [0, 1, 2, 3, 4].map((n) => cipher.subarray(start + n * sealedChunk, start + (n + 1) * sealedChunk));
    const header = cipher.subarray(0, start);
    const altered = Buffer.from(parts[2]!);
    altered[70]! ^= 4;
    const place = (chunk: number, length = sealedChunk): RegExp =>
      new RegExp(
        // The nonce belongs to the first one.
        `chunk ${chunk}, bytes ${start + (chunk - 1) * sealedChunk - (chunk === 1 ? 16 : 0)} to ${start + (chunk - 1) * sealedChunk + length} of`,
      );
    const cases = [
      [[0, 2, 1, 3, 4].map((n) => parts[n]!), place(2)],
      [[0, 1, 3, 4].map((n) => parts[n]!), place(3)],
      [[0, 1, 1, 2, 3, 4].map((n) => parts[n]!), place(3)],
      [[parts[0]!, parts[1]!, altered, parts[3]!, parts[4]!], place(3)],
      // Cut at the border of a chunk: what is last then does not bear the mark of the last.
      [[parts[0]!, parts[1]!], place(2)],
      [[parts[0]!, parts[1]!, parts[2]!, parts[3]!, parts[4]!.subarray(0, 10)], place(5, 10)],
      [[], place(1, 0)],
    ] as const;
    for (const [chunks, expected] of cases) {
      const failure: unknown = await whole(decrypted(pieces(Buffer.concat([header, ...chunks])), identity)).catch(
        (error: unknown) => error,
      );
      expect(failure).toMatchObject({ name: 'DecryptionFailed', reason: 'damaged' });
      expect(String(failure)).toMatch(expected);
    }
  });

  it('refuses a last chunk that is empty although it is authentic', async () => {
    const [key, content] = [randomBytes(32), randomBytes(65_536)];
    const seal = (counter: number, last: number, bytes: Uint8Array): Buffer => {
      const nonce = Buffer.alloc(12);
      nonce[10] = counter;
      nonce[11] = last;
      const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 });
      return Buffer.concat([cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
    };
    const honest = Buffer.concat([seal(0, 0, content), seal(1, 1, Buffer.from('end'))]);
    expect((await whole(openPayload(pieces(honest), key))).length).toBe(65_539);
    const empty = Buffer.concat([seal(0, 0, content), seal(1, 1, Buffer.alloc(0))]);
    await expect(whole(openPayload(pieces(empty), key))).rejects.toMatchObject({ name: 'ChunkDamaged', chunk: 2 });
  });

  it('hides what it encrypts', async () => {
    const content = randomBytes(1000);
    const cipher = await whole(encrypted(pieces(content), [recipient]));
    expect(cipher.includes(content.subarray(0, 32))).toBe(false);
  });

  it('refuses a stream that was cut, also between two chunks', async () => {
    const content = randomBytes(200_000);
    const cipher = await whole(encrypted(pieces(content), [recipient]));
    const header = cipher.length - 200_000 - 4 * 16;
    for (const length of [10, header, header + 65_552, header + 2 * 65_552, cipher.length - 1]) {
      await expect(
        whole(decrypted(pieces(cipher.subarray(0, length)), identity)),
        `${length} bytes`,
      ).rejects.toMatchObject({
        name: 'DecryptionFailed',
        reason: 'damaged',
      });
    }
  });

  it('tells another identity from damage', async () => {
    const cipher = await whole(encrypted(pieces(randomBytes(10)), [recipient]));
    const other = await generateX25519Identity();
    const failure: unknown = await whole(decrypted(pieces(cipher), other)).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(DecryptionFailed);
    expect(failure).toMatchObject({ reason: 'wrong-identity' });
  });

  it('takes an identity file as age-keygen writes it, and one with the keys of before', async () => {
    const content = randomBytes(1000);
    const cipher = await whole(encrypted(pieces(content), [recipient]));
    const file = `# created: 2026-11-22T16:00:00Z\n# public key: ${recipient}\n${identity}\n`;
    expect(content.equals(await whole(decrypted(pieces(cipher), file)))).toBe(true);
    const rotated = `${await generateX25519Identity()}\r\n\r\n${identity}`;
    expect(content.equals(await whole(decrypted(pieces(cipher), rotated)))).toBe(true);
    for (const none of ['# a comment alone\n', `${identity}\nsomething else`])
      await expect(whole(decrypted(pieces(cipher), none))).rejects.toMatchObject({ type: 'StepRefused' });
  });

  it('hands on the failure of its source as it is, in both directions', async () => {
    const reason = new Error('the source broke');
    async function* failing(start: Uint8Array): AsyncGenerator<Uint8Array> {
      yield start;
      throw reason;
    }
    await expect(whole(encrypted(failing(randomBytes(70_000)), [recipient]))).rejects.toBe(reason);
    const cipher = await whole(encrypted(pieces(randomBytes(200_000)), [recipient]));
    await expect(whole(decrypted(failing(cipher.subarray(0, 100_000)), identity))).rejects.toBe(reason);
    await expect(whole(decrypted(failing(cipher.subarray(0, 10)), identity))).rejects.toBe(reason);
  });

  it('closes its source when its reader goes away', async () => {
    let closed = 0;
    async function* endless(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield randomBytes(65_536);
      } finally {
        closed += 1;
      }
    }
    let chunks = 0;
    for await (const chunk of encrypted(endless(), [recipient])) {
      expect(chunk.length).toBeGreaterThan(0);
      // The first one is the header.
      chunks += 1;
      if (chunks === 3) break;
    }
    expect(closed).toBe(1);
  });

  it('reads no further ahead than a few chunks', async () => {
    let given = 0;
    async function* counted(): AsyncGenerator<Uint8Array> {
      for (;;) {
        given += 1;
        yield randomBytes(65_536);
      }
    }
    let taken = 0;
    for await (const chunk of encrypted(counted(), [recipient])) {
      taken += chunk.length > 1000 ? 1 : 0;
      expect(given - taken).toBeLessThan(6);
      if (taken > 50) break;
    }
  });

  it('refuses recipients and identities that are none, without repeating an identity', async () => {
    await expect(whole(encrypted(pieces(randomBytes(1)), []))).rejects.toMatchObject({ type: 'StepRefused' });
    await expect(whole(encrypted(pieces(randomBytes(1)), ['age1nonsense']))).rejects.toMatchObject({
      type: 'StepRefused',
    });
    const failure: unknown = await whole(decrypted(pieces(randomBytes(1)), 'AGE-SECRET-KEY-1TYPO')).catch(
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ type: 'StepRefused' });
    expect(String(failure)).not.toContain('TYPO');
  });
});
