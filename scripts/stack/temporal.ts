import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SEARCH_ATTRIBUTE_NAMES } from '../../src/contract/search-attributes.ts';
import type { TemporalServer } from './connection.ts';
import { freePort } from './free-port.ts';
import { programs } from './layout.ts';
import { handOver, unprivileged } from './privileges.ts';
import { startServer, withFreshPorts } from './server-process.ts';
import type { Lifetime, RunningServer } from './server-process.ts';

const run = promisify(execFile);

/** Starts a development server with UI. Detached it keeps its history in a file, else in memory. */
export async function startTemporal(options: {
  readonly directory: string;
  readonly lifetime: Lifetime;
}): Promise<{ readonly server: TemporalServer; readonly process: RunningServer }> {
  const { directory } = options;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  handOver(directory, unprivileged());
  return withFreshPorts(async () => {
    const [port, uiPort] = [await freePort(), await freePort()];
    const address = `127.0.0.1:${port}`;
    const process = await startServer({
      name: 'temporal',
      program: programs.temporal,
      arguments: [
        'server',
        'start-dev',
        '--ip',
        '127.0.0.1',
        '--port',
        String(port),
        '--ui-ip',
        '127.0.0.1',
        '--ui-port',
        String(uiPort),
        '--ui-disable-news-fetch',
        '--namespace',
        'default',
        '--log-level',
        'warn',
        '--log-format',
        'json',
        ...SEARCH_ATTRIBUTE_NAMES.flatMap((name) => ['--search-attribute', `${name}=Keyword`]),
        ...(options.lifetime === 'detached' ? ['--db-filename', join(directory, 'temporal.db')] : []),
      ],
      directory,
      logFile: join(directory, 'server.log'),
      lifetime: options.lifetime,
      ready: () => serves(address, directory),
    });
    return { server: { address, namespace: 'default', uiUrl: `http://127.0.0.1:${uiPort}` }, process };
  });
}

async function serves(address: string, directory: string): Promise<boolean> {
  const ask = async (...words: readonly string[]): Promise<string> =>
    (
      await run(programs.temporal, [...words, '--address', address, '--command-timeout', '3s'], {
        env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', HOME: directory },
      })
    ).stdout;
  if (!(await ask('operator', 'cluster', 'health')).includes('SERVING')) return false;
  const registered = await ask('operator', 'search-attribute', 'list', '--namespace', 'default');
  return SEARCH_ATTRIBUTE_NAMES.every((name) => registered.includes(name));
}
