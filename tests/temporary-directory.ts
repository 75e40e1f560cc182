import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

const created: string[] = [];

/**
 * Creates an empty folder that is removed at the end of the test file, whatever is in it by then. May be called in a test or a hook.
 *
 * @param parent default: the system's folder of temporary files
 * @returns its absolute path
 */
export async function temporaryDirectory(prefix: string, parent = tmpdir()): Promise<string> {
  const directory = await mkdtemp(join(parent, `${prefix}-`));
  created.push(directory);
  return directory;
}

// Of the file, not of each call: a hook that is registered while a test or another hook runs is never called. Registered first, so it
// runs after the file's own, which stop what still writes there.
afterAll(() => Promise.all(created.map((directory) => rm(directory, { recursive: true, force: true, maxRetries: 3 }))));
