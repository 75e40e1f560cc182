import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { freePort } from './free-port.ts';
import { programs } from './layout.ts';
import { handOver, unprivileged } from './privileges.ts';
import { startServer, withFreshPorts } from './server-process.ts';
import type { Lifetime, RunningServer } from './server-process.ts';

/** Starts a Redis that keeps everything in memory and asks for a password. */
export async function startRedis(options: {
  readonly directory: string;
  readonly lifetime: Lifetime;
}): Promise<{ readonly url: string; readonly process: RunningServer }> {
  const { directory } = options;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  return withFreshPorts(async () => {
    const port = await freePort();
    const password = randomBytes(18).toString('base64url');
    const configuration = join(directory, 'redis.conf');
    // A file and not arguments, which everyone can read.
    await writeFile(
      configuration,
      `bind 127.0.0.1\nport ${port}\nrequirepass ${password}\nsave ""\nappendonly no\ndaemonize no\n`,
      { mode: 0o600 },
    );
    handOver(directory, unprivileged());
    const process = await startServer({
      name: 'redis',
      program: programs.redisServer,
      arguments: [configuration],
      directory,
      logFile: join(directory, 'server.log'),
      lifetime: options.lifetime,
      ready: () => pings(port, password),
    });
    return { url: `redis://:${password}@127.0.0.1:${port}/0`, process };
  });
}

function pings(port: number, password: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host: '127.0.0.1', port }, () => socket.write(`AUTH ${password}\r\nPING\r\n`));
    let answer = '';
    socket.setTimeout(2000, () => socket.destroy(new Error('no answer')));
    socket.on('error', reject);
    socket.on('close', () => resolve(false));
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString('latin1');
      if (!answer.includes('+PONG') && !answer.includes('-')) return;
      resolve(answer.includes('+PONG'));
      socket.destroy();
    });
  });
}
