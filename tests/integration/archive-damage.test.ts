import { CopyObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { beforeAll, describe, expect, it } from 'vitest';
import type { BackupEvidence } from '../../src/contract/evidence/backup.ts';
import { captureDump } from '../../src/archive/dump.ts';
import { findManifest, writeManifest } from '../../src/archive/manifest.ts';
import { fetchLedger, openBackup } from '../../src/archive/stored-backup.ts';
import { storeLedger } from '../../src/archive/stored-ledger.ts';
import { verifyStoredBackup } from '../../src/archive/verify.ts';
import { randomName, useStack } from '../stack.ts';
import { type BackupSource, createBackupSource, createKeys, never } from './archive-source.ts';

const { s3 } = useStack();
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

const keyOf = (uri: string): string => uri.slice(source.store.uri('').length);

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
        message: expect.stringMatching(/bytes? \d+/),
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
    const forged = { ...backup, bytes: content.length, dumpBytes: other.dumpBytes };
    await expect(verifyStoredBackup(source.verification(forged))).rejects.toMatchObject({
      type: 'BackupDamaged',
      message: expect.stringMatching(/the object has the SHA-256 [0-9a-f]{64}, stored was [0-9a-f]{64}/),
    });
  });

  it("replaced by another run's, which is named", async () => {
    const run = { ...source.request().run, runId: randomName('other') };
    const folder = `${randomName('archive')}/service/${run.runId}`;
    const other = await captureDump(source.request({ run, folder }));
    const client = new S3Client({
      endpoint: s3.endpoint,
      region: s3.region,
      forcePathStyle: true,
      credentials: s3,
    });
    const copy = (from: string, to: string) =>
      client.send(new CopyObjectCommand({ Bucket: s3.bucket, Key: to, CopySource: `${s3.bucket}/${from}` }));
    try {
      await copy(other.key, backup.key);
      await expect(verify()).rejects.toMatchObject({
        type: 'BackupDamaged',
        message: expect.stringContaining(`it is that of run ${run.runId} of service, step backup.capture`),
      });
      await store(whole);
      const [theirs, ours] = [other, backup].map(({ ledger }) => ledger.uri.slice(source.store.uri('').length));
      const before = (await source.store.get(ours!, never()))!;
      await copy(theirs!, ours!);
      await expect(verify()).rejects.toMatchObject({
        type: 'BackupDamaged',
        message: expect.stringMatching(`its ledger .* it is that of run ${run.runId}`),
      });
      await source.store.put(ours!, before, 'application/octet-stream', never());
      const manifest = keyOf(backup.manifest);
      const own = (await source.store.get(manifest, never()))!;
      await copy(keyOf(other.manifest), manifest);
      await expect(verify()).rejects.toMatchObject({
        type: 'BackupDamaged',
        message: expect.stringContaining(`is that of another backup, ${other.uri} of run ${run.runId}`),
      });
      await source.store.put(manifest, own, 'application/json', never());
      await expect(verify()).resolves.toMatchObject({ uri: backup.uri });
    } finally {
      client.destroy();
    }
  });

  it('gone', async () => {
    await source.store.delete(backup.key, never());
    await expect(verify()).rejects.toMatchObject({
      type: 'BackupDamaged',
      message: expect.stringContaining('no longer in the store'),
    });
  });

  it('without its ledger or its manifest', async () => {
    await store(whole);
    for (const [part, uri] of [
      ['ledger', backup.ledger.uri],
      ['manifest', backup.manifest],
    ] as const) {
      const key = keyOf(uri);
      const content = (await source.store.get(key, never()))!;
      await source.store.delete(key, never());
      await expect(verify()).rejects.toMatchObject({
        type: 'BackupDamaged',
        message: expect.stringContaining(`its ${part} ${uri} is no longer in the store`),
      });
      await source.store.put(key, content, 'application/octet-stream', never());
    }
    await expect(verify()).resolves.toMatchObject({ uri: backup.uri });
  });

  it('with any bit changed in its ledger or its manifest', async () => {
    for (const uri of [backup.ledger.uri, backup.manifest]) {
      const key = keyOf(uri);
      const content = (await source.store.get(key, never()))!;
      for (const part of [0, 0.05, 0.3, 0.6, 0.999]) {
        const copy = Uint8Array.from(content);
        copy[Math.floor(part * copy.length)]! ^= 2;
        await source.store.put(key, copy, 'application/octet-stream', never());
        await expect(verify(), `${uri} at ${part}`).rejects.toMatchObject({ type: 'BackupDamaged' });
      }
      await source.store.put(key, content, 'application/octet-stream', never());
    }
    await expect(verify()).resolves.toMatchObject({ uri: backup.uri });
  });

  it('with a dump that holds other rows or large objects than its ledger', async () => {
    const ledger = await fetchLedger(source.store, backup, source.identity, never());
    const { contents } = ledger;
    const tables = contents.tables.map((entry) =>
      entry.table === 'public.customer' ? { ...entry, rows: entry.rows + 1 } : entry,
    );
    const forge = async (change: Partial<typeof contents>): Promise<unknown> => {
      const forged = { ...ledger, contents: { ...contents, ...change } };
      const key = `${keyOf(backup.ledger.uri)}.forged`;
      const recipients = source.request().recipients;
      const stored = await storeLedger(source.store, key, { ledger: forged, recipients, metadata: {} }, never());
      const evidence = { ...backup, ledger: stored };
      const manifest = await findManifest(source.store, backup.uri, never());
      await writeManifest(source.store, { ...manifest, backup: evidence }, never());
      try {
        return await verifyStoredBackup(source.verification(evidence)).catch((error: unknown) => error);
      } finally {
        await writeManifest(source.store, manifest, never());
      }
    };
    expect(await forge({ tables })).toMatchObject({
      type: 'BackupDamaged',
      message: expect.stringContaining('table public.customer has 5000 rows in the archive, 5001 in the ledger'),
    });
    expect(await forge({ largeObjects: { ...contents.largeObjects, count: 4 } })).toMatchObject({
      type: 'BackupDamaged',
      message: expect.stringContaining('it holds 3 large objects, 4 are in the ledger'),
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
