import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  type ServerSideEncryption,
} from '@aws-sdk/client-s3';
import type { StoredDocument } from '../contract/evidence.ts';
import type { BackupProfile } from '../contract/profile.ts';
import { sha256 } from './canonical.ts';
import { abortLeftoverUploads, type Uploaded, type UploadOptions, uploadStream } from './multipart-upload.ts';
import { downloadRanges, ObjectChanged } from './ranged-download.ts';
import { isMissing, storeError } from './store-errors.ts';
import { probeStore } from './store-probe.ts';
import { type WatchedSource, watchSource } from './watched-source.ts';

/** Where the store is; the part of a backup profile that says so. */
export type StoreLocation = Pick<
  BackupProfile,
  'bucket' | 'region' | 'endpoint' | 'forcePathStyle' | 'serverSideEncryption'
>;

export interface StoreCredentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

export interface StoredObject {
  readonly key: string;
  readonly bytes: number;
  /** ISO 8601, UTC. */
  readonly modifiedAt: string;
}

/**
 * One bucket. Failures are StepErrors: `OutsideUnavailable` where another try may pass, `StepRefused` where the bucket is
 * absent or access denied. None of them quotes a credential.
 */
export interface ObjectStore {
  readonly bucket: string;
  /** Origin of the server, for messages. */
  readonly where: string;
  readonly uri: (key: string) => string;
  /** Stores a document, small enough to be held in memory. */
  put(key: string, content: string | Uint8Array, contentType: string, signal: AbortSignal): Promise<StoredDocument>;
  /** The whole of a document; undefined where there is none. */
  get(key: string, signal: AbortSignal): Promise<Uint8Array | undefined>;
  head(key: string, signal: AbortSignal): Promise<StoredObject | undefined>;
  /** Sorted by key. */
  list(prefix: string, signal: AbortSignal): Promise<readonly StoredObject[]>;
  /** Absent objects are no error. */
  delete(key: string, signal: AbortSignal): Promise<void>;
  /** All or nothing: see `uploadStream`. Errors of the source come through as they are. */
  upload(key: string, source: AsyncIterable<Uint8Array>, options: UploadOptions): Promise<Uploaded>;
  /** An object of known size as a stream; see `downloadRanges`. Throws `ObjectChanged` where it is gone or shorter. */
  download(key: string, bytes: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined>;
  /** Removes what interrupted uploads of this key left behind; returns how many there were. */
  abortUploads(key: string, signal: AbortSignal): Promise<number>;
  /**
   * Everything this project does with a bucket, done once with a small object below the prefix. Returns what is missing,
   * in words; empty = all is well.
   */
  probe(prefix: string, signal: AbortSignal): Promise<readonly string[]>;
  close(): void;
}

export function openObjectStore(location: StoreLocation, credentials: StoreCredentials): ObjectStore {
  const client = createClient(location, credentials);
  const where = location.endpoint === undefined ? `AWS S3 ${location.region}` : originOf(location.endpoint);
  const { bucket } = location;
  const uri = (key: string): string => `s3://${bucket}/${key}`;
  const encryption: { ServerSideEncryption?: ServerSideEncryption } =
    location.serverSideEncryption === undefined ? {} : { ServerSideEncryption: location.serverSideEncryption };

  const attempt = async <T>(
    doing: string,
    signal: AbortSignal,
    work: () => Promise<T>,
    source?: WatchedSource,
  ): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      signal.throwIfAborted();
      source?.throwIfFailed();
      throw storeError(error, doing, where);
    }
  };

  const put: ObjectStore['put'] = async (key, content, contentType, signal) => {
    const body = typeof content === 'string' ? Buffer.from(content, 'utf8') : content;
    await attempt(`store ${uri(key)}`, signal, () =>
      client.send(
        new PutObjectCommand({ Bucket: bucket, Key: key, Body: body, ContentType: contentType, ...encryption }),
        { abortSignal: signal },
      ),
    );
    return { uri: uri(key), sha256: sha256(body), bytes: body.byteLength };
  };

  const head: ObjectStore['head'] = (key, signal) =>
    attempt(`look at ${uri(key)}`, signal, async () => {
      try {
        const found = await client.send(new HeadObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
        return { key, bytes: found.ContentLength ?? 0, modifiedAt: (found.LastModified ?? new Date(0)).toISOString() };
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    });

  const get: ObjectStore['get'] = (key, signal) =>
    attempt(`read ${uri(key)}`, signal, async () => {
      try {
        const found = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
        return await found.Body?.transformToByteArray();
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    });

  const list: ObjectStore['list'] = (prefix, signal) =>
    attempt(`list ${uri(prefix)}`, signal, async () => {
      const found: StoredObject[] = [];
      let token: string | undefined;
      do {
        const page: Awaited<ReturnType<typeof listPage>> = await listPage(client, bucket, prefix, token, signal);
        for (const { Key, Size, LastModified } of page.Contents ?? []) {
          if (Key === undefined) continue;
          found.push({ key: Key, bytes: Size ?? 0, modifiedAt: (LastModified ?? new Date(0)).toISOString() });
        }
        token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
      } while (token !== undefined);
      return found.sort((a, b) => (a.key < b.key ? -1 : 1));
    });

  const remove: ObjectStore['delete'] = async (key, signal) => {
    await attempt(`delete ${uri(key)}`, signal, async () => {
      try {
        await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
    });
  };

  const upload: ObjectStore['upload'] = async (key, source, options) => {
    const watched = watchSource(source);
    const target = { Bucket: bucket, Key: key, ContentType: 'application/octet-stream', ...encryption };
    return attempt(
      `upload ${uri(key)}`,
      options.signal,
      () => uploadStream(client, target, watched.stream, options),
      watched,
    );
  };

  async function* download(
    key: string,
    bytes: number,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      yield* downloadRanges(client, { Bucket: bucket, Key: key }, bytes, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof ObjectChanged) throw error;
      throw storeError(error, `read ${uri(key)}`, where);
    }
  }

  return {
    bucket,
    where,
    uri,
    put,
    get,
    head,
    list,
    delete: remove,
    upload,
    download,
    abortUploads: (key, signal) =>
      attempt(`remove interrupted uploads of ${uri(key)}`, signal, () =>
        abortLeftoverUploads(client, { Bucket: bucket, Key: key }, signal),
      ),
    probe: (prefix, signal) => probeStore(client, { bucket, prefix, where, encryption }, signal),
    close: () => client.destroy(),
  };
}

const listPage = (client: S3Client, bucket: string, prefix: string, token: string | undefined, signal: AbortSignal) =>
  client.send(
    new ListObjectsV2Command({
      Bucket: bucket,
      Prefix: prefix,
      ...(token === undefined ? {} : { ContinuationToken: token }),
    }),
    { abortSignal: signal },
  );

function createClient(location: StoreLocation, credentials: StoreCredentials): S3Client {
  return new S3Client({
    region: location.region,
    ...(location.endpoint === undefined ? {} : { endpoint: location.endpoint }),
    forcePathStyle: location.forcePathStyle,
    credentials: { accessKeyId: credentials.accessKeyId, secretAccessKey: credentials.secretAccessKey },
    maxAttempts: 4,
    retryMode: 'standard',
    // Every request carries one part at most, so a socket silent for this long is dead.
    requestHandler: { connectionTimeout: 5_000, socketTimeout: 60_000 },
    // Not every S3 server knows the newer checksum headers; what is stored is read back and compared anyway.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
}

const originOf = (endpoint: string): string => {
  const url = URL.parse(endpoint);
  return url === null ? 'the configured endpoint' : `${url.protocol}//${url.host}`;
};
