import { randomBytes } from 'node:crypto';
import {
  AbortMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  GetObjectLockConfigurationCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3';
import { type StorageOptions, storageParameters } from './storage-options.ts';
import { isDenied, isMissing, isNoUpload, storeError } from './store-errors.ts';

export interface ProbeTarget {
  readonly bucket: string;
  readonly prefix: string;
  readonly where: string;
  readonly options: StorageOptions;
}

/** Does what the project will do with the bucket, with one small object. Returns findings, in words; empty = all is well. */
export async function probeStore(
  client: S3Client,
  target: ProbeTarget,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const absent = await bucketFinding(client, target, signal);
  if (absent !== undefined) return [absent];

  const object = {
    Bucket: target.bucket,
    Key: [withoutSlash(target.prefix), `.probe-${randomBytes(8).toString('hex')}`]
      .filter((part) => part !== '')
      .join('/'),
  };
  const content = randomBytes(64);
  // Not locked: it is to go again.
  const { objectLock, ...options } = target.options;
  const kept = storageParameters(options, { as: 'backup' });
  const findings: string[] = [];
  const operation = async (right: string, work: () => Promise<string | undefined>): Promise<void> => {
    try {
      const finding = await work();
      if (finding !== undefined) findings.push(finding);
    } catch (error) {
      signal.throwIfAborted();
      findings.push(
        isDenied(error)
          ? `Bucket ${target.bucket}: ${right} is denied below ${withoutSlash(target.prefix)}/. Grant it to backup.accessKeyId.`
          : storeError(error, `${right} in bucket ${target.bucket}`, target.where).message,
      );
    }
  };
  const send = { abortSignal: signal };
  if (objectLock !== undefined) {
    await operation('s3:GetBucketObjectLockConfiguration', async () => {
      const locked = await client
        .send(new GetObjectLockConfigurationCommand({ Bucket: target.bucket }), send)
        .catch((error: unknown) => {
          if (isMissing(error)) return undefined;
          throw error;
        });
      return locked?.ObjectLockConfiguration?.ObjectLockEnabled === 'Enabled'
        ? undefined
        : `Bucket ${target.bucket} has no object lock, backup.objectLock asks for it. Enable it for the bucket or leave backup.objectLock out.`;
    });
  }

  await operation('s3:PutObject', async () => {
    await client.send(new PutObjectCommand({ ...object, Body: content, ...kept }), send);
    return undefined;
  });
  if (findings.length > 0) return findings;
  try {
    await operation('s3:GetObject', async () => {
      const answer = await client.send(new GetObjectCommand(object), send);
      const read = await answer.Body?.transformToByteArray();
      return read !== undefined && content.equals(read)
        ? undefined
        : `Bucket ${target.bucket}: what was stored as a probe came back different.`;
    });
    await operation('s3:GetObject (head)', async () => {
      const { ContentLength } = await client.send(new HeadObjectCommand(object), send);
      return ContentLength === content.byteLength
        ? undefined
        : `Bucket ${target.bucket}: a probe of ${content.byteLength} bytes is reported with ${ContentLength ?? 'no size'}.`;
    });
    await operation('s3:ListBucket', async () => {
      const { Contents } = await client.send(
        new ListObjectsV2Command({ Bucket: target.bucket, Prefix: object.Key }),
        send,
      );
      return Contents?.some(({ Key }) => Key === object.Key) === true
        ? undefined
        : `Bucket ${target.bucket}: the listing does not show an object just stored.`;
    });
    await operation('s3:ListBucketMultipartUploads', async () => {
      await client
        .send(new ListMultipartUploadsCommand({ Bucket: target.bucket, Prefix: object.Key }), send)
        .catch((error: unknown) => {
          if (!isNoUpload(error)) throw error;
        });
      return undefined;
    });
    await operation('s3:AbortMultipartUpload', async () => {
      const { UploadId } = await client.send(new CreateMultipartUploadCommand({ ...object, ...kept }));
      await client.send(new AbortMultipartUploadCommand({ ...object, UploadId }));
      return undefined;
    });
  } finally {
    await operation('s3:DeleteObject', async () => {
      // Without the signal: the probe is to go also when the step is being stopped.
      await client.send(new DeleteObjectCommand(object));
      return undefined;
    });
  }
  return findings;
}

async function bucketFinding(client: S3Client, target: ProbeTarget, signal: AbortSignal): Promise<string | undefined> {
  try {
    await client.send(new HeadBucketCommand({ Bucket: target.bucket }), { abortSignal: signal });
    return undefined;
  } catch (error) {
    signal.throwIfAborted();
    if (isMissing(error)) {
      return `The bucket ${target.bucket} does not exist at ${target.where}. Create it or correct backup.bucket.`;
    }
    if (error instanceof S3ServiceException && error.$metadata.httpStatusCode === 301) {
      return `The bucket ${target.bucket} is in another region than backup.region says.`;
    }
    if (isDenied(error)) {
      return `Access to bucket ${target.bucket} at ${target.where} is denied. Check backup.accessKeyId, backup.secretAccessKey and their rights (s3:ListBucket).`;
    }
    return storeError(error, `reach bucket ${target.bucket}`, target.where).message;
  }
}

const withoutSlash = (prefix: string): string => prefix.replace(/\/+$/, '');
