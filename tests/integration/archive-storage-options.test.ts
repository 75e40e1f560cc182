import { join } from 'node:path';
import {
  CreateBucketCommand,
  GetObjectTaggingCommand,
  HeadObjectCommand,
  ListObjectVersionsCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { captureDump } from '../../src/archive/dump.ts';
import { recordVerification } from '../../src/archive/manifest.ts';
import { type ObjectStore, openObjectStore, type StoreLocation } from '../../src/archive/object-store.ts';
import { verifyStoredBackup } from '../../src/archive/verify.ts';
import type { BackupEvidence } from '../../src/contract/evidence/backup.ts';
import { freePort } from '../../scripts/stack/free-port.ts';
import { isAlive, signalProcess } from '../../scripts/stack/process-identity.ts';
import { type RunningServer, startServer, withFreshPorts } from '../../scripts/stack/server-process.ts';
import { useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { type BackupSource, createBackupSource, fillWithBulk, never } from './archive-source.ts';

// The embedded store reports options that it does not carry out; this one refuses and reports as Amazon S3 does.
const credentials = { accessKeyId: 'testing', secretAccessKey: 'testing-key' };
const bucket = 'locked-backups';
const KEY = 'arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab';
const DAY = 24 * 3_600_000;

let directory: string;
let server: RunningServer;
let client: S3Client;
let source: BackupSource;
let location: StoreLocation;
const opened: ObjectStore[] = [];

beforeAll(async () => {
  directory = await temporaryDirectory('archive-options');
  server = await withFreshPorts(async () => {
    const port = await freePort();
    const endpoint = `http://127.0.0.1:${port}`;
    client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials, maxAttempts: 1 });
    location = { bucket, region: 'us-east-1', endpoint, forcePathStyle: true };
    return startServer({
      name: 'moto',
      program: join(useStack().venv.bin, 'moto_server'),
      arguments: ['--host', '127.0.0.1', '--port', String(port)],
      directory,
      logFile: join(directory, 'moto.log'),
      lifetime: 'with-parent',
      privileges: 'keep-files',
      ready: async () => (await fetch(`${endpoint}/moto-api/`)).ok,
    });
  });
  await client.send(new CreateBucketCommand({ Bucket: bucket, ObjectLockEnabledForBucket: true }));
  source = await createBackupSource();
});

afterAll(async () => {
  for (const store of opened) store.close();
  client.destroy();
  if (isAlive(server)) signalProcess(server, 'SIGTERM');
});

function open(options: Partial<StoreLocation>): ObjectStore {
  const store = openObjectStore({ ...location, ...options }, credentials);
  opened.push(store);
  return store;
}

const keyOf = (uri: string): string => uri.slice(`s3://${bucket}/`.length);
const objectsOf = (backup: BackupEvidence): string[] => [backup.key, keyOf(backup.ledger.uri), keyOf(backup.manifest)];
const head = (Key: string) => client.send(new HeadObjectCommand({ Bucket: bucket, Key }));

describe('the objects of a backup', () => {
  it.each(['in one piece', 'in parts'])('are kept as the profile says: %s', async (size) => {
    if (size === 'in parts') await fillWithBulk(source);
    const store = open({
      serverSideEncryption: 'aws:kms',
      kmsKeyId: KEY,
      objectLock: { mode: 'GOVERNANCE', retention: 30 * DAY },
      tags: { purpose: 'migration backup', team: 'data+ops: core' },
      storageClass: 'STANDARD_IA',
    });
    const backup = await captureDump(source.request({ store, step: `options.${size.replaceAll(' ', '-')}` }));
    for (const key of objectsOf(backup)) {
      const found = await head(key);
      expect(found).toMatchObject({
        ServerSideEncryption: 'aws:kms',
        SSEKMSKeyId: KEY,
        ObjectLockMode: 'GOVERNANCE',
        Metadata: { 'run-id': source.request().run.runId, service: 'service', step: expect.stringMatching(/^options/) },
      });
      const days = (found.ObjectLockRetainUntilDate!.getTime() - Date.now()) / DAY;
      expect(days).toBeGreaterThan(29.9);
      expect(days).toBeLessThan(30.1);
      const { TagSet } = await client.send(new GetObjectTaggingCommand({ Bucket: bucket, Key: key }));
      expect(TagSet).toEqual(
        expect.arrayContaining([
          { Key: 'purpose', Value: 'migration backup' },
          { Key: 'team', Value: 'data+ops: core' },
        ]),
      );
      expect(found.StorageClass).toBe(key === backup.key ? 'STANDARD_IA' : undefined);
    }
    // A verification writes the manifest anew: as another version beside the locked one.
    await verifyStoredBackup(source.verification(backup, { store }));
    await recordVerification(store, backup, { at: new Date().toISOString(), milliseconds: 1, by: 'a test' }, never());
    const { Versions } = await client.send(
      new ListObjectVersionsCommand({ Bucket: bucket, Prefix: keyOf(backup.manifest) }),
    );
    expect(Versions).toHaveLength(2);
  });

  it('replace locked ones of an earlier attempt', async () => {
    const store = open({ objectLock: { mode: 'COMPLIANCE', retention: DAY } });
    await captureDump(source.request({ store, step: 'options.again' }));
    const again = await captureDump(source.request({ store, step: 'options.again' }));
    await expect(verifyStoredBackup(source.verification(again, { store }))).resolves.toMatchObject({ uri: again.uri });
  });
});

it('other documents are encrypted by the server, and neither locked nor tagged', async () => {
  const store = open({
    serverSideEncryption: 'AES256',
    objectLock: { mode: 'COMPLIANCE', retention: DAY },
    tags: { purpose: 'backup' },
    storageClass: 'STANDARD_IA',
  });
  await store.put('report.html', '<p>', 'text/html', never());
  const found = await head('report.html');
  expect(found).toMatchObject({ ServerSideEncryption: 'AES256' });
  expect(found.ObjectLockMode).toBeUndefined();
  expect(found.StorageClass).toBeUndefined();
  const { TagSet } = await client.send(new GetObjectTaggingCommand({ Bucket: bucket, Key: 'report.html' }));
  expect(TagSet).toEqual([]);
});

it('are asked for beforehand: a bucket without object lock is found by the probe', async () => {
  await client.send(new CreateBucketCommand({ Bucket: 'unlocked-backups' }));
  const objectLock = { mode: 'COMPLIANCE', retention: DAY } as const;
  const options = { objectLock, tags: { purpose: 'backup' }, serverSideEncryption: 'aws:kms', kmsKeyId: KEY } as const;
  expect(await open(options).probe('probe', never())).toEqual([]);
  expect(await open({ ...options, bucket: 'unlocked-backups' }).probe('probe', never())).toEqual([
    expect.stringContaining('Bucket unlocked-backups has no object lock'),
  ]);
  expect(await open({ tags: { 'not allowed': 'a & b' } }).probe('probe', never())).toEqual([
    expect.stringContaining('InvalidTag'),
  ]);
});
