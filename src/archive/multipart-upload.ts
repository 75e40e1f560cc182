import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  type CompleteMultipartUploadCommandInput,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandOutput,
  PutObjectCommand,
  type PutObjectCommandInput,
  PutObjectRetentionCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { ByteCounter } from './byte-counter.ts';
import { type Patience, patiently } from './patience.ts';
import { contentDigest, type StorageParameters } from './storage-options.ts';
import { isMissing, isNoUpload } from './store-errors.ts';

/** Where an object goes, and how the store is to keep it. */
export type UploadTarget = Pick<PutObjectCommandInput, 'ContentType'> &
  StorageParameters & {
    readonly Bucket: string;
    readonly Key: string;
  };

export interface UploadOptions {
  /** Bytes of one part; the store takes at most 10,000 of them. */
  readonly partSize: number;
  readonly signal: AbortSignal;
  /** Bytes the store has taken so far. */
  readonly progress: (bytes: number) => void;
  /** Called when all of it is stored, right before it becomes the object of its key. */
  readonly beforeReplacing?: () => Promise<void>;
}

export interface Uploaded {
  readonly bytes: number;
  readonly sha256: string;
}

/** S3's own limits: smallest part but the last, number of parts. */
const MINIMUM_PART = 5 * 1024 * 1024;
const MAXIMUM_PARTS = 10_000;
const PREFERRED_PART = 8 * 1024 * 1024;

/** Parts under way at once: one fills while two travel, so that neither side waits and memory stays at three parts. */
const PARTS_IN_FLIGHT = 2;

/**
 * Part size for the compressed dump of a database. Compressed it is smaller than the database with its indexes; memory
 * grows only from 80 GB on.
 */
export const partSizeFor = (databaseBytes: number): number =>
  Math.max(PREFERRED_PART, Math.ceil(databaseBytes / MAXIMUM_PARTS));

/** Milliseconds to find out whether an upload was begun of which nothing was heard. */
const TIDYING = 10_000;

/** The server knows nothing of the upload under way: some keep it in memory, and were restarted. */
export class UploadForgotten extends Error {
  override readonly name = 'UploadForgotten';
}

/**
 * Uploads a stream of unknown length with flat memory. It is all or nothing: if the source or the store fails or the
 * signal fires, no object appears and no parts stay behind.
 *
 * `Upload` of `@aws-sdk/lib-storage` is not used: aborting it returns while its requests are still running, so that parts
 * can arrive after the clean-up.
 */
export async function uploadStream(
  client: S3Client,
  target: UploadTarget,
  source: AsyncIterable<Uint8Array>,
  options: UploadOptions,
  patience: Patience,
): Promise<Uploaded> {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const partSize = Math.max(MINIMUM_PART, options.partSize);
  const counter = new ByteCounter();
  const pool = new BufferPool(partSize);
  const underWay = new Set<Promise<void>>();
  const parts: { PartNumber: number; ETag: string | undefined }[] = [];
  let uploadId: string | undefined;
  let begun: 'yes' | 'no' = 'no';
  let failure: unknown;
  let taken = 0;

  const send = (body: Buffer, number: number): void => {
    const command = {
      ...location(target),
      UploadId: uploadId,
      PartNumber: number,
      Body: body,
      ...contentDigest(body, target),
    };
    const part = patiently(patience, signal, () => client.send(new UploadPartCommand(command), { abortSignal: signal }))
      .then((answer) => {
        parts.push({ PartNumber: number, ETag: answer.ETag });
        if (body.byteLength === partSize) pool.giveBack(body);
        taken += body.byteLength;
        options.progress(taken);
      })
      .finally(() => underWay.delete(part));
    // The first part that fails stops the others; their errors then only say that they were stopped.
    part.catch((error: unknown) => {
      failure ??= error;
      stop.abort();
    });
    underWay.add(part);
  };

  try {
    let number = 0;
    for await (const body of inParts(counter.count(source), partSize, pool)) {
      signal.throwIfAborted();
      if (number === 0 && body.byteLength < partSize) {
        await options.beforeReplacing?.();
        const command = { ...target, Body: body, ...contentDigest(body, target) };
        await patiently(patience, signal, () => client.send(new PutObjectCommand(command), { abortSignal: signal }));
        options.progress(body.byteLength);
        return { bytes: counter.bytes, sha256: counter.digest() };
      }
      number += 1;
      if (number > MAXIMUM_PARTS) throw new RangeError(`more than ${MAXIMUM_PARTS} parts of ${partSize} bytes`);
      begun = 'yes';
      uploadId ??= await begin(client, target, patience, signal);
      while (underWay.size >= PARTS_IN_FLIGHT) await Promise.race(underWay);
      send(body, number);
    }
    await Promise.all(underWay);
    signal.throwIfAborted();
    await options.beforeReplacing?.();
    await complete(
      client,
      target,
      {
        UploadId: uploadId,
        MultipartUpload: { Parts: parts.sort((a, b) => a.PartNumber - b.PartNumber) },
        bytes: counter.bytes,
      },
      { patience, signal: options.signal },
    );
    await ensureLock(client, target, { patience, signal: options.signal });
    return { bytes: counter.bytes, sha256: counter.digest() };
  } catch (error) {
    stop.abort();
    await Promise.allSettled(underWay);
    // Where even this fails, the next attempt removes what is left before it begins.
    if (uploadId !== undefined) await abortUpload(client, target, uploadId).catch(() => undefined);
    // The answer that held its id was lost.
    else if (begun === 'yes') await abortLeftoverUploads(client, target, AbortSignal.timeout(TIDYING)).catch(() => 0);
    options.signal.throwIfAborted();
    const cause = failure ?? error;
    throw isNoUpload(cause) ? new UploadForgotten('the upload under way is unknown to the server') : cause;
  }
}

/** The signal ends the waiting, not the request: an upload that was begun must be known, to be given up. */
async function begin(
  client: S3Client,
  target: UploadTarget,
  patience: Patience,
  signal: AbortSignal,
): Promise<string | undefined> {
  return patiently(patience, signal, async (attempt) => {
    // An answer that was lost may have been a yes.
    if (attempt > 1) await abortLeftoverUploads(client, target, signal);
    return (await client.send(new CreateMultipartUploadCommand(target))).UploadId;
  });
}

/** The signal ends the waiting, not a request: whether that was carried out must be known. */
async function complete(
  client: S3Client,
  target: UploadTarget,
  { bytes, ...upload }: Pick<CompleteMultipartUploadCommandInput, 'UploadId' | 'MultipartUpload'> & { bytes: number },
  { patience, signal }: { readonly patience: Patience; readonly signal: AbortSignal },
): Promise<void> {
  await patiently(patience, signal, async (attempt) => {
    try {
      await client.send(new CompleteMultipartUploadCommand({ ...location(target), ...upload }));
    } catch (error) {
      if (attempt === 1 || !isNoUpload(error)) throw error;
      // The answer of the attempt before was lost. Is it the object? Its digest is proven by the verification.
      const { ContentLength } = await client.send(new HeadObjectCommand(location(target)));
      if (ContentLength !== bytes) throw error;
    }
  });
}

/** Some servers forget the lock asked for at the beginning of an upload in parts: it is then set on the object. */
async function ensureLock(
  client: S3Client,
  target: UploadTarget,
  { patience, signal }: { readonly patience: Patience; readonly signal: AbortSignal },
): Promise<void> {
  const { ObjectLockMode: mode, ObjectLockRetainUntilDate: until } = target;
  if (mode === undefined || until === undefined) return;
  const send = { abortSignal: signal };
  await patiently(patience, signal, async () => {
    const found = await client.send(new HeadObjectCommand(location(target)), send);
    if (found.ObjectLockMode !== undefined) return;
    const retention = { Mode: mode, RetainUntilDate: until };
    await client.send(new PutObjectRetentionCommand({ ...location(target), Retention: retention }), send);
  });
}

/** Removes what interrupted uploads of this key left behind. Returns how many there were. */
export async function abortLeftoverUploads(
  client: S3Client,
  target: Pick<UploadTarget, 'Bucket' | 'Key'>,
  signal: AbortSignal,
): Promise<number> {
  const found = (await listInterruptedUploads(client, target, signal)).filter(({ key }) => key === target.Key);
  for (const { uploadId } of found) await abortUpload(client, target, uploadId);
  return found.length;
}

export interface InterruptedUpload {
  readonly key: string;
  readonly uploadId: string;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
}

/** The uploads begun and neither completed nor aborted, of all keys that begin with `Key`. */
export async function listInterruptedUploads(
  client: S3Client,
  target: Pick<UploadTarget, 'Bucket' | 'Key'>,
  signal: AbortSignal,
): Promise<readonly InterruptedUpload[]> {
  const found: InterruptedUpload[] = [];
  let marker: { readonly KeyMarker?: string; readonly UploadIdMarker?: string } | undefined = {};
  while (marker !== undefined) {
    const page = await listUploads(client, target, marker, signal);
    for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
      if (Key === undefined || UploadId === undefined) continue;
      found.push({ key: Key, uploadId: UploadId, startedAt: (Initiated ?? new Date(0)).toISOString() });
    }
    marker =
      page.IsTruncated === true && page.NextKeyMarker !== undefined
        ? {
            KeyMarker: page.NextKeyMarker,
            ...(page.NextUploadIdMarker === undefined ? {} : { UploadIdMarker: page.NextUploadIdMarker }),
          }
        : undefined;
  }
  return found;
}

async function listUploads(
  client: S3Client,
  target: Pick<UploadTarget, 'Bucket' | 'Key'>,
  marker: { readonly KeyMarker?: string; readonly UploadIdMarker?: string },
  signal: AbortSignal,
): Promise<Partial<ListMultipartUploadsCommandOutput>> {
  try {
    return await client.send(
      new ListMultipartUploadsCommand({ Bucket: target.Bucket, Prefix: target.Key, ...marker }),
      { abortSignal: signal },
    );
  } catch (error) {
    if (isNoUpload(error)) return {};
    throw error;
  }
}

/** Takes no signal: it is the clean-up after one. */
async function abortUpload(
  client: S3Client,
  target: Pick<UploadTarget, 'Bucket' | 'Key'>,
  uploadId: string,
): Promise<void> {
  try {
    await client.send(new AbortMultipartUploadCommand({ ...location(target), UploadId: uploadId }));
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}

const location = ({ Bucket, Key }: Pick<UploadTarget, 'Bucket' | 'Key'>) => ({ Bucket, Key });

/** Buffers of one size, used over and over: fresh ones of megabytes cost more time than filling them. */
class BufferPool {
  readonly #size: number;
  readonly #free: Buffer[] = [];

  constructor(size: number) {
    this.#size = size;
  }

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#size);
  }

  giveBack(buffer: Buffer): void {
    this.#free.push(buffer);
  }
}

/**
 * Cuts a stream into parts of exactly `size` bytes, each in a buffer of the pool; only the last one may be smaller, and an
 * empty stream is one empty part.
 */
async function* inParts(
  source: AsyncIterable<Uint8Array>,
  size: number,
  pool: BufferPool,
): AsyncGenerator<Buffer, void, undefined> {
  let part = pool.take();
  let used = 0;
  let count = 0;
  for await (const chunk of source) {
    let rest = chunk;
    while (rest.byteLength > 0) {
      const taken = Math.min(size - used, rest.byteLength);
      part.set(rest.subarray(0, taken), used);
      used += taken;
      rest = rest.subarray(taken);
      if (used < size) continue;
      yield part;
      count += 1;
      part = pool.take();
      used = 0;
    }
  }
  if (used > 0 || count === 0) yield part.subarray(0, used);
}
