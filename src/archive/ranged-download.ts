import { Readable } from 'node:stream';
import { GetObjectCommand, type S3Client, S3ServiceException } from '@aws-sdk/client-s3';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { type Patience, patiently } from './patience.ts';
import { isMissing } from './store-errors.ts';

export interface DownloadSource {
  readonly Bucket: string;
  readonly Key: string;
}

/** Bytes fetched at a time. Two ranges are in memory at most: the one being read and the next. */
const RANGE = 8 * 1024 * 1024;

/** Consumers need not be handed megabytes at once: progress and backpressure go by pieces of this size. */
const PIECE = 1024 * 1024;

/** A body that comes short this often is no accident of the line. */
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
  patience: Patience,
): AsyncGenerator<Uint8Array, void, undefined> {
  const stop = new AbortController();
  const fetching = AbortSignal.any([signal, stop.signal]);
  const begin = (start: number): Promise<Uint8Array> => {
    const range = fetchRange(client, source, start, Math.min(start + RANGE, bytes), fetching, patience);
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

/** A body that broke off or came short; the request itself was answered. */
class BodyIncomplete extends Error {
  override readonly name = 'BodyIncomplete';
  readonly code = 'INCOMPLETE';
}

async function fetchRange(
  client: S3Client,
  source: DownloadSource,
  start: number,
  end: number,
  signal: AbortSignal,
  patience: Patience,
): Promise<Uint8Array> {
  let short = 0;
  try {
    return await patiently(patience, signal, async () => {
      const answer = await client.send(new GetObjectCommand({ ...source, Range: `bytes=${start}-${end - 1}` }), {
        abortSignal: signal,
      });
      const announced = answer.ContentLength ?? 0;
      if (announced > end - start) {
        // Not to be held in memory: the whole of a backup would come, and again for each range.
        if (answer.Body instanceof Readable) answer.Body.destroy();
        throw new StepError(
          STEP_ERRORS.refused,
          `The object store ignores ranges: asked for bytes ${start} to ${end} of ${source.Key} it sends ${announced} bytes. Correct backup.endpoint, or what stands before the store.`,
        );
      }
      const body = await answer.Body?.transformToByteArray();
      if (body?.byteLength === end - start) return body;
      const what = `bytes ${start} to ${end} were asked for, ${body?.byteLength ?? 0} came`;
      short += 1;
      if (short >= ATTEMPTS) throw new ObjectChanged(what);
      throw new BodyIncomplete(what);
    });
  } catch (error) {
    signal.throwIfAborted();
    if (isMissing(error)) throw new ObjectChanged(`it is gone (asked for bytes ${start} to ${end})`);
    if (error instanceof BodyIncomplete) throw new ObjectChanged(error.message);
    if (error instanceof S3ServiceException && error.$metadata.httpStatusCode === 416) {
      throw new ObjectChanged(`it ends before byte ${end}`);
    }
    throw error;
  }
}
