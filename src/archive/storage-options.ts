import { createHash } from 'node:crypto';
import type { PutObjectCommandInput } from '@aws-sdk/client-s3';
import type { BackupProfile } from '../contract/profile.ts';

/** What a profile says about how objects are kept. */
export type StorageOptions = Partial<
  Pick<BackupProfile, 'serverSideEncryption' | 'kmsKeyId' | 'objectLock' | 'tags' | 'storageClass'>
>;

/** Which of the options hold for an object, and what is noted on it. */
export interface Keeping {
  /** `document`: encrypted by the server; `backup`: also locked and tagged; `dump`: also in the storage class. */
  readonly as: 'document' | 'backup' | 'dump';
  /** `x-amz-meta-*`. A convenience: some servers forget it. */
  readonly metadata?: Readonly<Record<string, string>>;
}

export type StorageParameters = Pick<
  PutObjectCommandInput,
  | 'ServerSideEncryption'
  | 'SSEKMSKeyId'
  | 'ObjectLockMode'
  | 'ObjectLockRetainUntilDate'
  | 'Tagging'
  | 'StorageClass'
  | 'Metadata'
>;

export function storageParameters(options: StorageOptions, keeping: Keeping): StorageParameters {
  const { serverSideEncryption, kmsKeyId, objectLock, tags, storageClass } = options;
  const isBackup = keeping.as !== 'document';
  return {
    ...(keeping.metadata === undefined ? {} : { Metadata: keeping.metadata }),
    ...(serverSideEncryption === undefined ? {} : { ServerSideEncryption: serverSideEncryption }),
    ...(serverSideEncryption === 'aws:kms' && kmsKeyId !== undefined ? { SSEKMSKeyId: kmsKeyId } : {}),
    ...(isBackup && objectLock !== undefined
      ? {
          ObjectLockMode: objectLock.mode,
          ObjectLockRetainUntilDate: new Date(Date.now() + objectLock.retention),
        }
      : {}),
    ...(isBackup && tags !== undefined && Object.keys(tags).length > 0 ? { Tagging: asQuery(tags) } : {}),
    ...(keeping.as === 'dump' && storageClass !== undefined
      ? { StorageClass: storageClass as NonNullable<PutObjectCommandInput['StorageClass']> }
      : {}),
  };
}

/** Amazon S3 takes an object with a retention only with this digest (API reference, "PutObject", "UploadPart"). */
export const contentDigest = (body: Uint8Array, target: StorageParameters): { readonly ContentMD5?: string } =>
  target.ObjectLockMode === undefined ? {} : { ContentMD5: createHash('md5').update(body).digest('base64') };

const asQuery = (tags: Readonly<Record<string, string>>): string =>
  Object.entries(tags)
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
    .join('&');
