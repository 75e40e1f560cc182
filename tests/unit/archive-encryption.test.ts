import { randomBytes } from 'node:crypto';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { describe, expect, it } from 'vitest';
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
    for await (const chunk of encrypted(endless(), [recipient])) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
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
