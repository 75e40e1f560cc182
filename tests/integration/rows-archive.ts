import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { zstdDecompressSync } from 'node:zlib';
import { Decrypter } from 'age-encryption';
import { afterAll, expect } from 'vitest';
import { sha256 } from '../../src/archive/canonical.ts';
import type { StoredDocument } from '../../src/contract/evidence/step.ts';
import { query } from '../postgres-service.ts';
import { createDatabase, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { createKeys, never, openTestStore } from './archive-source.ts';

const run = promisify(execFile);

/** A store and a key of one test file, and the way of a person who loads an archive of rows: fetch, decrypt, psql. */
export async function useRowsArchives() {
  const server = useStack().postgres.primary;
  const store = openTestStore();
  const { identity, recipient } = await createKeys();
  const folder = await temporaryDirectory('rows-archive');
  afterAll(() => store.close());

  const fetched = async (uri: string): Promise<Uint8Array> =>
    (await store.get(uri.slice(store.uri('').length), never()))!;
  const sqlOf = async (archive: StoredDocument): Promise<string> => {
    const bytes = await fetched(archive.uri);
    expect(sha256(bytes)).toBe(archive.sha256);
    const decrypter = new Decrypter();
    decrypter.addIdentity(identity);
    return Buffer.from(zstdDecompressSync(await decrypter.decrypt(bytes))).toString('utf8');
  };
  return {
    store,
    recipient,
    fetched,
    sqlOf,
    /** Into a database that has nothing of the service. @returns its URL */
    loaded: async (archive: StoredDocument): Promise<string> => {
      const { name, url } = await createDatabase(server, 'loaded');
      const file = join(folder, `${name}.sql`);
      await writeFile(file, await sqlOf(archive));
      const target = new URL(url);
      await run(
        join(server.binDirectory, 'psql'),
        ['--no-psqlrc', '--set=ON_ERROR_STOP=1', '--quiet', `--file=${file}`],
        {
          env: {
            PATH: process.env['PATH'],
            PGHOST: target.hostname,
            PGPORT: target.port,
            PGDATABASE: name,
            PGUSER: target.username,
            PGPASSWORD: decodeURIComponent(target.password),
          },
        },
      );
      return url;
    },
  };
}

/** All rows of all tables of a schema, as text. */
export async function contentsOf(url: string, schema: string): Promise<Record<string, string[]>> {
  const tables = await query<{ name: string }>(
    url,
    `SELECT relname AS name FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND relkind = 'r'`,
    [schema],
  );
  const contents: Record<string, string[]> = {};
  for (const { name } of tables) {
    const rows = await query<{ row: string }>(
      url,
      `SELECT t::text AS row FROM "${schema}"."${name.replaceAll('"', '""')}" t ORDER BY 1`,
    );
    contents[name] = rows.map(({ row }) => row);
  }
  return contents;
}
