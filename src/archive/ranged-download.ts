import { setTimeout as delay } from 'node:timers/promises';
import { GetObjectCommand, type S3Client, S3ServiceException } from '@aws-sdk/client-s3';
import { isMissing } from './store-errors.ts';

export interface DownloadSource {
  readonly Bucket: string;
  readonly Key: string;
}

/** Bytes fetched at a time. Two ranges are in memory at most: the one being read and the next. */
const RANGE = 8 * 1024 * 1024;

/** Consumers need not be handed megabytes at once: progress and backpressure go by pieces of this size. */
const PIECE = 64 * 1024;

const ATTEMPTS = 4;

/**
 * Reads an object of `bytes` bytes in ranges, each complete in memory before it is handed on. So no connection idles while
 * the reader is busy elsewhere (a restore can be for many minutes), and a lost connection costs one range, not the whole.
 * That the ranges are of one and the same object is for the caller to prove, by the digest of the whole.
 */
export async function* downloadRanges(
  client: S3Client,
  source: DownloadSource,
  bytes: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const stop = new AbortController();
  const fetching = AbortSignal.any([signal, stop.signal]);
  const begin = (start: number): Promise<Uint8Array> => {
    const range = fetchRange(client, source, start, Math.min(start + RANGE, bytes), fetching);
    // Met where it is awaited; a reader that has gone never comes there.
    range.catch(() => undefined);
    return range;
  };
  try {
    let next = bytes > 0 ? begin(0) : undefined;
    for (let position = 0; next !== undefined; ) {
      const range = await next;
      position += range.byteLength;
      next = position < bytes ? begin(position) : undefined;
      for (let offset = 0; offset < range.byteLength; offset += PIECE) yield range.subarray(offset, offset + PIECE);
    }
  } finally {
    stop.abort();
  }
}

/** The object is not (any more) the one that was to be read: it is gone, or ends before the expected size. */
export class ObjectChanged extends Error {
  override readonly name = 'ObjectChanged';
}

async function fetchRange(
  client: S3Client,
  source: DownloadSource,
  start: number,
  end: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const answer = await client.send(new GetObjectCommand({ ...source, Range: `bytes=${start}-${end - 1}` }), {
        abortSignal: signal,
      });
      // The client's own retries cover the answer's head only: a body that breaks off is tried again here.
      const body = await answer.Body?.transformToByteArray();
      if (body?.byteLength === end - start) return body;
      if (attempt >= ATTEMPTS) {
        throw new ObjectChanged(`bytes ${start} to ${end - 1} were asked for, ${body?.byteLength ?? 0} came`);
      }
    } catch (error) {
      signal.throwIfAborted();
      if (isMissing(error)) throw new ObjectChanged('it is gone');
      if (error instanceof S3ServiceException && error.$metadata.httpStatusCode === 416) {
        throw new ObjectChanged(`it ends before byte ${end - 1}`);
      }
      // An answer of the server has been through the client's own retries.
      if (attempt >= ATTEMPTS || error instanceof S3ServiceException) throw error;
    }
    await delay(200 * 2 ** attempt, undefined, { signal });
  }
}
