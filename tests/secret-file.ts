import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { SecretReference } from '../src/contract/profile.ts';
import { randomName } from './stack.ts';

/** Writes a secret into a file of its own that only this user may read. */
export async function secretFile(directory: string, value: string): Promise<SecretReference> {
  const path = join(directory, randomName('secret'));
  await writeFile(path, value, { mode: 0o600 });
  return { kind: 'file', path };
}
