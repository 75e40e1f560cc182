import { S3Client } from '@aws-sdk/client-s3';
import type { BackupProfile } from '../contract/profile.ts';

export type StoreServer = Pick<BackupProfile, 'region' | 'endpoint' | 'forcePathStyle'>;

export interface StoreCredentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** @param retries `retried-by-caller`: every request is sent once; see `patiently` */
export const createClient = (
  server: StoreServer,
  credentials: StoreCredentials,
  retries: 'retried' | 'retried-by-caller',
): S3Client =>
  new S3Client({
    region: server.region,
    ...(server.endpoint === undefined ? {} : { endpoint: server.endpoint }),
    forcePathStyle: server.forcePathStyle,
    credentials: { accessKeyId: credentials.accessKeyId, secretAccessKey: credentials.secretAccessKey },
    maxAttempts: retries === 'retried' ? 4 : 1,
    retryMode: 'standard',
    // Every request carries one part at most, so a socket silent for this long is dead.
    requestHandler: { connectionTimeout: 5_000, socketTimeout: 60_000 },
    // Not every S3 server knows the newer checksum headers; what is stored is read back and compared anyway.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
