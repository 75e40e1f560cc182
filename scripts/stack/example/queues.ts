import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../command.ts';
import type { StackConnection } from '../connection.ts';
import { programs } from '../layout.ts';

export interface RedisUrls {
  readonly production: string;
  readonly staging: string;
}

/** Two of Redis' 16 databases, so that staging's tasks never reach production's worker, nor another deployment's. */
export async function redisUrls(
  stack: StackConnection,
  deployment: { readonly directory: string; readonly database: string },
): Promise<RedisUrls> {
  if (stack.redis === undefined) throw new Error('the example needs Redis, which this stack was started without');
  const first = deployment.database === 'whisper' ? 0 : await reservedPair(stack.redis.url, deployment.directory);
  const on = (database: number): string =>
    Object.assign(new URL(stack.redis?.url ?? ''), { pathname: `/${database}` }).href;
  return { production: on(first), staging: on(first + 1) };
}

async function reservedPair(url: string, directory: string): Promise<number> {
  const file = join(directory, 'redis-database');
  if (!existsSync(file)) {
    const count = Number(await redis(url, 15, 'INCR', 'deployments'));
    await writeFile(file, String(2 + 2 * ((count - 1) % 6)));
  }
  return Number(await readFile(file, 'utf8'));
}

/** Throws away all tasks and results. Only while no worker runs: its own entries go too. */
export async function emptyQueues(urls: RedisUrls): Promise<void> {
  for (const url of [urls.production, urls.staging])
    await redis(url, Number(new URL(url).pathname.slice(1)), 'FLUSHDB');
}

async function redis(url: string, database: number, ...words: readonly string[]): Promise<string> {
  const { port, password } = new URL(url);
  return (
    await runCommand(programs.redisCli, ['-p', port, '-n', String(database), ...words], {
      directory: '/',
      environment: { REDISCLI_AUTH: password },
    })
  ).trim();
}
