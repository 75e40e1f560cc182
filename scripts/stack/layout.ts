import { existsSync, globSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** The repository's root folder. */
export const root = resolve(import.meta.dirname, '../..');
/** The ignored folder that holds everything the stack writes. */
export const stackRoot = join(root, '.stack');

const venvDirectory = join(stackRoot, 'venv');

/** The Python environment that `scripts/setup` makes, which brings the servers too. */
export const venv = { python: join(venvDirectory, 'bin', 'python'), bin: join(venvDirectory, 'bin') } as const;

/** Executables inside the Python environment. They are plain programs: none of them starts Python. */
export const programs = {
  temporal: join(venv.bin, 'temporal'),
  temporalTestServer: join(venv.bin, 'temporal-test-server'),
  rclone: join(venv.bin, 'rclone'),
  redisServer: join(venv.bin, 'redis-server'),
  redisCli: join(venv.bin, 'redis-cli'),
} as const;

/** Folder of PostgreSQL's server and client programs: the packaged ones, or those of `STACK_POSTGRES_BIN`.
 * @throws Error when `scripts/setup` has not run. */
export function postgresBinDirectory(): string {
  const chosen = process.env['STACK_POSTGRES_BIN'];
  if (chosen !== undefined) return resolve(chosen);
  const found = globSync('lib/python*/site-packages/embedded_postgres/pginstall/bin', { cwd: venvDirectory })[0];
  if (found === undefined || !existsSync(venv.python))
    throw new Error('the Python environment is missing: run scripts/setup');
  return join(venvDirectory, found);
}
