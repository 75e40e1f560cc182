import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HeadBucketCommand, S3Client } from '@aws-sdk/client-s3';
import type { S3Server } from './connection.ts';
import { freePort } from './free-port.ts';
import { programs } from './layout.ts';
import { handOver, unprivileged } from './privileges.ts';
import { startServer, withFreshPorts } from './server-process.ts';
import type { Lifetime, RunningServer } from './server-process.ts';

const bucket = 'migration-evidence';
const region = 'us-east-1';

/** Starts an S3 server whose buckets are folders of real files below `directory`/buckets. */
export async function startS3(options: {
  readonly directory: string;
  readonly lifetime: Lifetime;
  /** The one it had, where it is to come back at its old address. Default: a free one. */
  readonly port?: number;
}): Promise<{ readonly server: S3Server; readonly process: RunningServer }> {
  const { directory } = options;
  const buckets = join(directory, 'buckets');
  await mkdir(join(buckets, bucket), { recursive: true, mode: 0o700 });
  handOver(directory, unprivileged());
  const { accessKeyId, secretAccessKey } = await credentials(directory);
  return withFreshPorts(async () => {
    const port = options.port ?? (await freePort());
    const endpoint = `http://127.0.0.1:${port}`;
    const server: S3Server = { endpoint, region, bucket, accessKeyId, secretAccessKey };
    const process = await startServer({
      name: 's3',
      program: programs.rclone,
      arguments: ['serve', 's3', buckets, '--addr', `127.0.0.1:${port}`, '--log-level', 'NOTICE'],
      // By environment, for process arguments can be read by everyone. The value is read as a line of CSV.
      environment: {
        RCLONE_AUTH_KEY: `"${accessKeyId},${secretAccessKey}"`,
        RCLONE_CONFIG: '/dev/null',
        RCLONE_CACHE_DIR: join(directory, 'cache'),
      },
      directory,
      logFile: join(directory, 'server.log'),
      lifetime: options.lifetime,
      ready: () => hasBucket(server),
    });
    return { server, process };
  });
}

async function hasBucket(server: S3Server): Promise<boolean> {
  const client = new S3Client({
    endpoint: server.endpoint,
    region: server.region,
    forcePathStyle: true,
    maxAttempts: 1,
    credentials: { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey },
  });
  try {
    await client.send(new HeadBucketCommand({ Bucket: server.bucket }));
    return true;
  } finally {
    client.destroy();
  }
}

async function credentials(
  directory: string,
): Promise<{ readonly accessKeyId: string; readonly secretAccessKey: string }> {
  const file = join(directory, 'credentials.json');
  if (!existsSync(file)) {
    const made = {
      accessKeyId: `STACK${randomBytes(6).toString('hex').toUpperCase()}`,
      secretAccessKey: randomBytes(24).toString('base64url'),
    };
    await writeFile(file, JSON.stringify(made), { mode: 0o600 });
  }
  return JSON.parse(await readFile(file, 'utf8')) as { accessKeyId: string; secretAccessKey: string };
}
