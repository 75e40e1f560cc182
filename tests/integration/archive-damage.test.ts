import { beforeAll, describe, expect, it } from 'vitest';
import type { BackupEvidence } from '../../src/contract/evidence.ts';
import { captureDump } from '../../src/archive/dump.ts';
import { openBackup } from '../../src/archive/stored-backup.ts';
import { verifyStoredBackup } from '../../src/archive/verify.ts';
import { type BackupSource, createBackupSource, createKeys, never } from './archive-source.ts';

let source: BackupSource;
let backup: BackupEvidence;
let whole: Uint8Array;

beforeAll(async () => {
  source = await createBackupSource();
  backup = await captureDump(source.request());
  whole = (await source.store.get(backup.key, never()))!;
});

const store = (content: Uint8Array): Promise<unknown> =>
  source.store.put(backup.key, content, 'application/octet-stream', never());

const verify = (): Promise<unknown> => verifyStoredBackup(source.verification(backup));

function flipped(position: number, bit: number): Uint8Array {
  const copy = Uint8Array.from(whole);
  copy[position]! ^= 1 << bit;
  return copy;
}

describe('a stored backup is refused', () => {
  it('with any single bit changed', async () => {
    // Version line, recipient's stanza, header's MAC, nonce, first bytes, middle, last byte (the last chunk's tag).
    const header = Buffer.from(whole).indexOf('\n---');
    const positions = [
      3,
      40,
      header + 10,
      header + 50,
      header + 80,
      ...[0.2, 0.4, 0.6, 0.8].map((part) => Math.floor(whole.length * part)),
      whole.length - 1,
    ];
    for (const [index, position] of positions.entries()) {
      await store(flipped(position, index % 8));
      await expect(verify(), `bit ${index % 8} of byte ${position}`).rejects.toMatchObject({
        type: 'BackupDamaged',
        message: expect.stringContaining(backup.uri),
      });
    }
  });

  it('cut short, by a byte or by half', async () => {
    for (const length of [whole.length - 1, Math.floor(whole.length / 2), 0]) {
      await store(whole.subarray(0, length));
      await expect(verify()).rejects.toMatchObject({
        type: 'BackupDamaged',
        message: expect.stringContaining(`the object has ${length} bytes, ${whole.length} were stored`),
      });
    }
  });

  it('replaced by another backup of the same size, although that decrypts', async () => {
    const other = await captureDump(source.request({ step: 'backup.other' }));
    const content = (await source.store.get(other.key, never()))!;
    await store(content);
    const forged = { ...backup, bytes: content.length };
    await expect(verifyStoredBackup(source.verification(forged))).rejects.toMatchObject({
      type: 'BackupDamaged',
      message: expect.stringMatching(/the object has the SHA-256 [0-9a-f]{64}, stored was [0-9a-f]{64}/),
    });
  });

  it('gone', async () => {
    await source.store.delete(backup.key, never());
    await expect(verify()).rejects.toMatchObject({
      type: 'BackupDamaged',
      message: expect.stringContaining('no longer in the store'),
    });
  });

  it('with another ledger', async () => {
    await store(whole);
    const key = backup.ledger.uri.slice(source.store.uri('').length);
    const ledger = Buffer.from((await source.store.get(key, never()))!).toString('utf8');
    await source.store.put(key, ledger.replace('"rows":5000', '"rows":4999'), 'application/json', never());
    await expect(verify()).rejects.toMatchObject({
      type: 'BackupDamaged',
      message: expect.stringContaining('its ledger'),
    });
    await source.store.put(key, ledger, 'application/json', never());
    await expect(verify()).resolves.toMatchObject({ uri: backup.uri });
  });

  it('with a dump that holds other rows than its ledger', async () => {
    await store(whole);
    const key = backup.ledger.uri.slice(source.store.uri('').length);
    const ledger = Buffer.from((await source.store.get(key, never()))!).toString('utf8');
    const forged = await source.store.put(
      `${key}.forged`,
      ledger.replace('"rows":5000', '"rows":5001'),
      'application/json',
      never(),
    );
    await expect(verifyStoredBackup(source.verification({ ...backup, ledger: forged }))).rejects.toMatchObject({
      type: 'BackupDamaged',
      message: expect.stringContaining('table public.customer has 5000 rows in the archive, 5001 in the ledger'),
    });
  });
});

it('tells a wrong identity from a damaged backup', async () => {
  await store(whole);
  const { identity } = await createKeys();
  const failure: unknown = await verifyStoredBackup(source.verification(backup, { identity })).catch((error) => error);
  expect(failure).toMatchObject({
    type: 'StepRefused',
    message: expect.stringContaining('is intact, but backup.identity'),
  });
  expect(String(failure)).not.toContain(identity);
  await expect(verifyStoredBackup(source.verification(backup, { identity: 'no key at all' }))).rejects.toMatchObject({
    type: 'StepRefused',
    message: expect.stringContaining('AGE-SECRET-KEY-1'),
  });
});

it('hands the last bytes of a dump to its reader only after all of it was found to be right', async () => {
  await store(flipped(whole.length - 1, 0));
  let read = 0;
  const reading = async (): Promise<void> => {
    const stream = openBackup({ store: source.store, backup, identity: source.identity, signal: never() });
    for await (const chunk of stream) read += chunk.length;
  };
  await expect(reading()).rejects.toMatchObject({ type: 'BackupDamaged' });
  expect(read).toBeLessThan(backup.dumpBytes);
  await store(whole);
});
