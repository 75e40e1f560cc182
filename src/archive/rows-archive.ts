import type { StoredDocument } from '../contract/evidence/step.ts';
import { compressed } from './compression.ts';
import { encrypted } from './encryption.ts';
import { partSizeFor } from './multipart-upload.ts';
import type { ObjectStore } from './object-store.ts';
import { TRANSFER_PATIENCE } from './patience.ts';

/** Rows that recovery would take from production, kept as SQL that psql loads: one object, and its manifest beside it. */
export interface RowsArchiveKeys {
  readonly archive: string;
  readonly manifest: string;
}

/** @param folder see `runFolder` */
export const rowsArchiveKeys = (folder: string, name: string): RowsArchiveKeys => ({
  archive: `${folder}/recovery/${name}.sql.zst.age`,
  manifest: `${folder}/recovery/${name}.json`,
});

export interface RowsArchiveRequest {
  readonly store: ObjectStore;
  readonly keys: RowsArchiveKeys;
  readonly recipients: readonly string[];
  /** Of the database: no archive of its rows is larger by much. */
  readonly sizeBytes: number;
  readonly signal: AbortSignal;
  readonly text: (transfer: () => Transfer) => AsyncIterable<Buffer>;
  /** Asked once the text is stored. */
  readonly manifest: (archive: StoredDocument) => unknown;
}

export interface Transfer {
  /** Bytes the store has taken. */
  readonly stored: number;
  /** ISO 8601: the store does not answer. */
  readonly storeSilentSince?: string;
}

/** As a backup is: locked and tagged where the profile says so. */
const KEPT = { as: 'backup' } as const;

/** Compresses, encrypts and streams the text to the store; the manifest comes last, so that an archive without one is half made. */
export async function storeRows({
  keys,
  signal,
  ...request
}: RowsArchiveRequest): Promise<{ readonly archive: StoredDocument; readonly manifest: StoredDocument }> {
  let transfer: Transfer = { stored: 0 };
  const store = request.store.patient({
    milliseconds: TRANSFER_PATIENCE,
    silent: (since) => {
      const { stored } = transfer;
      transfer = since === undefined ? { stored } : { stored, storeSilentSince: since.toISOString() };
    },
  });
  const uploaded = await store.upload(
    keys.archive,
    encrypted(compressed(request.text(() => transfer)), request.recipients),
    {
      partSize: partSizeFor(request.sizeBytes),
      signal,
      progress: (stored) => {
        transfer = { ...transfer, stored };
      },
    },
    KEPT,
  );
  const archive = { uri: store.uri(keys.archive), ...uploaded };
  const text = JSON.stringify(request.manifest(archive), undefined, 2);
  return { archive, manifest: await store.put(keys.manifest, text, 'application/json', signal, KEPT) };
}

/** An upload that outlives the session it reads from: when that is cancelled, its parts are still to be taken back. */
export class PendingUpload {
  settled: Promise<unknown> = Promise.resolve();

  of<T>(work: Promise<T>): Promise<T> {
    this.settled = work.catch(() => undefined);
    return work;
  }
}
