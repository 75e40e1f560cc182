import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { venv } from '../layout.ts';
import { startServer, stopServer } from '../server-process.ts';
import type { Lifetime, RunningServer } from '../server-process.ts';

export interface ServiceOptions {
  /** Folder for the logs. */
  readonly directory: string;
  readonly checkout: string;
  readonly port: number;
  readonly lifetime: Lifetime;
  readonly databaseUrl: string;
  readonly redisUrl: string;
}

/** Starts the API and the Celery worker of a release, side by side, and waits until the one is healthy and the other takes tasks. */
export async function startService(options: ServiceOptions): Promise<readonly RunningServer[]> {
  const started = await Promise.allSettled([startApi(options), startWorker(options)]);
  const failed = started.find((result) => result.status === 'rejected');
  const running = started.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  if (failed === undefined) return running;
  await stopService(running);
  throw failed.reason;
}

export async function stopService(servers: readonly RunningServer[]): Promise<void> {
  // A warm shutdown of Celery waits for tasks that may never end; a task of a killed worker is taken up by the next.
  await Promise.all(
    servers.map((server) =>
      stopServer(server, {
        signals: [
          ['SIGTERM', 3000],
          ['SIGKILL', 2000],
        ],
      }),
    ),
  );
}

function environment(options: ServiceOptions): Readonly<Record<string, string>> {
  return {
    DATABASE_URL: options.databaseUrl,
    REDIS_URL: options.redisUrl,
    PATH: `${venv.bin}:${process.env['PATH'] ?? '/usr/bin:/bin'}`,
  };
}

async function startApi(options: ServiceOptions): Promise<RunningServer> {
  return startServer({
    name: 'api',
    program: join(venv.bin, 'uvicorn'),
    arguments: ['api.main:app', '--host', '127.0.0.1', '--port', String(options.port)],
    environment: environment(options),
    directory: options.checkout,
    logFile: join(options.directory, 'api.log'),
    lifetime: options.lifetime,
    privileges: 'keep-files',
    ready: async () =>
      (await fetch(`http://127.0.0.1:${options.port}/healthz`, { signal: AbortSignal.timeout(5000) })).ok,
  });
}

async function startWorker(options: ServiceOptions): Promise<RunningServer> {
  const logFile = join(options.directory, 'worker.log');
  await rm(logFile, { force: true });
  return startServer({
    name: 'worker',
    program: join(venv.bin, 'celery'),
    arguments: [
      '-A',
      'api.worker',
      'worker',
      '-Q',
      'transcription,scheduled',
      '--pool',
      'threads',
      '--concurrency',
      '1',
      '--loglevel',
      'INFO',
      '-n',
      'whisper@%h',
    ],
    environment: environment(options),
    directory: options.checkout,
    logFile,
    lifetime: options.lifetime,
    privileges: 'keep-files',
    ready: async () => /whisper@\S+ ready\./.test(await readFile(logFile, 'utf8')),
  });
}
