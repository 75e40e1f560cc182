import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { PostgresServer } from '../scripts/stack/connection.ts';
import { createDatabase } from './stack.ts';
import { temporaryDirectory } from './temporary-directory.ts';

const run = promisify(execFile);

/**
 * A dump and restore by the programs themselves, into a database of its own on the same server.
 *
 * @returns superuser's URL of the copy
 */
export async function restoredCopyOf(server: PostgresServer, url: string): Promise<string> {
  const target = await createDatabase(server, 'copy');
  const at = new URL(url);
  const env = {
    PATH: process.env['PATH'],
    PGHOST: at.hostname,
    PGPORT: at.port,
    PGUSER: at.username,
    PGPASSWORD: at.password,
  };
  const file = join(await temporaryDirectory('copy'), 'dump');
  await run(join(server.binDirectory, 'pg_dump'), ['--format=custom', `--file=${file}`, at.pathname.slice(1)], { env });
  await run(join(server.binDirectory, 'pg_restore'), ['--exit-on-error', `--dbname=${target.name}`, file], { env });
  return target.url;
}
