import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type ObjectStore, openObjectStore } from '../../src/archive/object-store.ts';
import type { S3Server } from '../../scripts/stack/connection.ts';
import { isAlive, signalProcess } from '../../scripts/stack/process-identity.ts';
import { startS3 } from '../../scripts/stack/s3.ts';
import type { RunningServer } from '../../scripts/stack/server-process.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { never } from './archive-source.ts';

const PART = 5 * 1024 * 1024;
const SIZE = 6 * PART + 1234;

let directory: string;
let server: S3Server;
let running: RunningServer;
let opened: ObjectStore;
let silences: (Date | undefined)[];
const content = randomBytes(SIZE);

beforeEach(async () => {
  directory = await temporaryDirectory('archive-outage');
  await start();
  silences = [];
  opened = openObjectStore({ ...server, forcePathStyle: true }, server);
});

afterEach(async () => {
  opened.close();
  await kill();
});

async function start(port?: number): Promise<void> {
  ({ server, process: running } = await startS3({
    directory,
    lifetime: 'with-parent',
    ...(port === undefined ? {} : { port }),
  }));
}

async function kill(): Promise<void> {
  signalProcess(running, 'SIGKILL');
  while (isAlive(running)) await delay(10);
}

/** However long a machine takes to ask the store again after it went silent. */
async function silenceTold(): Promise<void> {
  while (!silences.some((since) => since instanceof Date)) await delay(50);
}

const restartLater = async (): Promise<void> => {
  await kill();
  await silenceTold();
  await start(Number(new URL(server.endpoint).port));
};

const freeze = async (): Promise<void> => {
  signalProcess(running, 'SIGSTOP');
  await silenceTold();
  signalProcess(running, 'SIGCONT');
};

const patient = (milliseconds = 60_000): ObjectStore =>
  opened.patient({ milliseconds, silent: (since) => silences.push(since) });

/** Uploads, and does something to the server when it has taken the first part. */
async function uploadThrough(store: ObjectStore, disturb: () => Promise<void>): Promise<unknown> {
  let disturbing: Promise<void> | undefined;
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let start = 0; start < SIZE; start += 65_536) yield content.subarray(start, start + 65_536);
  }
  const outcome = await store
    .upload('object', pieces(), {
      partSize: PART,
      signal: never(),
      progress: () => (disturbing ??= disturb()),
    })
    .catch((error: unknown) => error);
  expect(disturbing, 'a part had been taken').toBeDefined();
  await disturbing;
  return outcome;
}

/** Downloads, and does something to the server when the first bytes have come. */
async function downloadThrough(store: ObjectStore, disturb: () => Promise<void>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let disturbing: Promise<void> | undefined;
  for await (const chunk of store.download('object', SIZE, never())) {
    chunks.push(chunk);
    if (disturbing !== undefined) continue;
    disturbing = disturb();
    disturbing.catch(() => undefined);
    // The range that was begun beside this one may still come through; the one after it meets the outage.
    await delay(500);
  }
  await disturbing;
  return Buffer.concat(chunks);
}

const toldSilence = (): void => {
  expect(silences.some((since) => since instanceof Date)).toBe(true);
  expect(silences.at(-1)).toBeUndefined();
};

it('an upload goes on after the store stood still', async () => {
  expect(await uploadThrough(patient(), freeze)).toMatchObject({ bytes: SIZE });
  toldSilence();
  expect(await opened.head('object', never())).toMatchObject({ bytes: SIZE });
  expect(content.equals(await downloadThrough(patient(), async () => undefined))).toBe(true);
});

it('a download goes on after the store stood still, and after it was killed and started again', async () => {
  await uploadThrough(patient(), async () => undefined);
  for (const outage of [freeze, restartLater]) {
    silences = [];
    expect(content.equals(await downloadThrough(patient(), outage))).toBe(true);
    toldSilence();
  }
});

it('an upload that a restarted store has forgotten is worth another try, and leaves nothing', async () => {
  expect(await uploadThrough(patient(), restartLater)).toMatchObject({
    type: 'OutsideUnavailable',
    message: expect.stringContaining('has forgotten the upload'),
  });
  expect(await opened.head('object', never())).toBeUndefined();
  expect(await opened.interruptedUploads('object', never())).toEqual([]);
  expect(await uploadThrough(patient(), async () => undefined)).toMatchObject({ bytes: SIZE });
});

it('patience has an end', async () => {
  await uploadThrough(patient(), async () => undefined);
  await expect(downloadThrough(patient(1_500), kill)).rejects.toMatchObject({
    type: 'OutsideUnavailable',
    message: expect.stringContaining('did not answer'),
  });
  await start(Number(new URL(server.endpoint).port));
  expect(await uploadThrough(patient(1_500), kill)).toMatchObject({
    type: 'OutsideUnavailable',
    message: expect.stringContaining('did not answer'),
  });
});
