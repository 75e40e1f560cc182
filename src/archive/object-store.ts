import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { StoredDocument } from '../contract/evidence/step.ts';
import type { BackupProfile } from '../contract/profile.ts';
import { sha256 } from './canonical.ts';
import {
  abortLeftoverUploads,
  type InterruptedUpload,
  listInterruptedUploads,
  UploadForgotten,
  type Uploaded,
  type UploadOptions,
  uploadStream,
} from './multipart-upload.ts';
import { DEFAULT_PATIENCE, type Patience, patiently } from './patience.ts';
import { downloadRanges, ObjectChanged } from './ranged-download.ts';
import { contentDigest, type Keeping, type StorageOptions, storageParameters } from './storage-options.ts';
import { createClient, type StoreCredentials, type StoreServer } from './store-client.ts';
import { isMissing, storeError } from './store-errors.ts';
import { probeStore } from './store-probe.ts';
import { watchSource } from './watched-source.ts';

/** Where the store is and how it keeps things; the part of a backup profile that says so. */
export type StoreLocation = Pick<BackupProfile, 'bucket'> & StoreServer & StorageOptions;

export type { StoreCredentials };

export interface StoredObject {
  readonly key: string;
  readonly bytes: number;
  /** ISO 8601, UTC. */
  readonly modifiedAt: string;
}

/** With what was noted on it; empty where the server keeps no such notes. */
export interface FoundObject extends StoredObject {
  readonly metadata: Readonly<Record<string, string>>;
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
  /** The same store with more patience, for long work. */
  patient(patience: Patience): ObjectStore;
  /** Stores what is small enough to be held in memory. */
  put(
    key: string,
    content: string | Uint8Array,
    contentType: string,
    signal: AbortSignal,
    keeping?: Keeping,
  ): Promise<StoredDocument>;
  /** The whole of a document; undefined where there is none. */
  get(key: string, signal: AbortSignal): Promise<Uint8Array | undefined>;
  head(key: string, signal: AbortSignal): Promise<FoundObject | undefined>;
  /** Sorted by key. */
  list(prefix: string, signal: AbortSignal): Promise<readonly StoredObject[]>;
  /** Absent objects are no error. */
  delete(key: string, signal: AbortSignal): Promise<void>;
  /** All or nothing: see `uploadStream`. Errors of the source come through as they are. */
  upload(key: string, source: AsyncIterable<Uint8Array>, options: UploadOptions, keeping?: Keeping): Promise<Uploaded>;
  /** An object of known size as a stream; see `downloadRanges`. Throws `ObjectChanged` where it is gone or shorter. */
  download(key: string, bytes: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void, undefined>;
  /** Removes what interrupted uploads of this key left behind; returns how many there were. */
  abortUploads(key: string, signal: AbortSignal): Promise<number>;
  /** Uploads that were neither completed nor aborted, of all keys that begin with the prefix. */
  interruptedUploads(prefix: string, signal: AbortSignal): Promise<readonly InterruptedUpload[]>;
  /**
   * Everything this project does with a bucket, done once with a small object below the prefix. Returns what is missing,
   * in words; empty = all is well.
   */
  probe(prefix: string, signal: AbortSignal): Promise<readonly string[]>;
  close(): void;
}

export function openObjectStore(location: StoreLocation, credentials: StoreCredentials): ObjectStore {
  const client = createClient(location, credentials, 'retried-by-caller');
  const where = location.endpoint === undefined ? `AWS S3 ${location.region}` : originOf(location.endpoint);
  return storeOf({ client, location, credentials, where }, DEFAULT_PATIENCE);
}

interface OpenStore {
  readonly client: S3Client;
  readonly location: StoreLocation;
  readonly credentials: StoreCredentials;
  readonly where: string;
}

const DOCUMENT: Keeping = { as: 'document' };

function storeOf(open: OpenStore, patience: Patience): ObjectStore {
  const { client, location, where } = open;
  const { bucket } = location;
  const uri = (key: string): string => `s3://${bucket}/${key}`;

  const attempt = async <T>(doing: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> => {
    try {
      return await patiently(patience, signal, work);
    } catch (error) {
      signal.throwIfAborted();
      throw storeError(error, doing, where);
    }
  };

  const ifPresent = async <T>(work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  };

  const put: ObjectStore['put'] = async (key, content, contentType, signal, keeping = DOCUMENT) => {
    const body = typeof content === 'string' ? Buffer.from(content, 'utf8') : content;
    await attempt(`store ${uri(key)}`, signal, () => {
      const target = { Bucket: bucket, Key: key, ContentType: contentType, ...storageParameters(location, keeping) };
      const command = new PutObjectCommand({ ...target, Body: body, ...contentDigest(body, target) });
      return client.send(command, { abortSignal: signal });
    });
    return { uri: uri(key), sha256: sha256(body), bytes: body.byteLength };
  };

  const head: ObjectStore['head'] = (key, signal) =>
    attempt(`look at ${uri(key)}`, signal, () =>
      ifPresent(async () => {
        const found = await client.send(new HeadObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
        return {
          key,
          bytes: found.ContentLength ?? 0,
          modifiedAt: (found.LastModified ?? new Date(0)).toISOString(),
          metadata: found.Metadata ?? {},
        };
      }),
    );

  const get: ObjectStore['get'] = (key, signal) =>
    attempt(`read ${uri(key)}`, signal, () =>
      ifPresent(async () => {
        const found = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
        return found.Body?.transformToByteArray();
      }),
    );

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
    await attempt(`delete ${uri(key)}`, signal, () =>
      ifPresent(() => client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal })),
    );
  };

  const upload: ObjectStore['upload'] = async (key, source, options, keeping = DOCUMENT) => {
    const watched = watchSource(source);
    const target = {
      Bucket: bucket,
      Key: key,
      ContentType: 'application/octet-stream',
      ...storageParameters(location, keeping),
    };
    try {
      return await uploadStream(client, target, watched.stream, options, patience);
    } catch (error) {
      options.signal.throwIfAborted();
      watched.throwIfFailed();
      if (error instanceof UploadForgotten) {
        throw new StepError(
          STEP_ERRORS.unavailable,
          `The object store ${where} has forgotten the upload of ${uri(key)} while it was under way: it was probably restarted. Nothing was stored; it has to begin anew.`,
        );
      }
      throw storeError(error, `upload ${uri(key)}`, where);
    }
  };

  async function* download(
    key: string,
    bytes: number,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      yield* downloadRanges(client, { Bucket: bucket, Key: key }, bytes, signal, patience);
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
    patient: (more) => storeOf(open, more),
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
    interruptedUploads: (prefix, signal) =>
      attempt(`list interrupted uploads below ${uri(prefix)}`, signal, () =>
        listInterruptedUploads(client, { Bucket: bucket, Key: prefix }, signal),
      ),
    probe: async (prefix, signal) => {
      const retrying = createClient(location, open.credentials, 'retried');
      try {
        return await probeStore(retrying, { bucket, prefix, where, options: location }, signal);
      } finally {
        retrying.destroy();
      }
    },
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

const originOf = (endpoint: string): string => {
  const url = URL.parse(endpoint);
  return url === null ? 'the configured endpoint' : `${url.protocol}//${url.host}`;
};
