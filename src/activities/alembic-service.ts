import { resolve } from 'node:path';
import type { AlembicProfile } from '../contract/profile.ts';

/** Where a service's Alembic is in a checkout; absolute, but for a Python that is to be found on PATH. */
export interface AlembicService {
  readonly python: string;
  readonly directory: string;
  readonly config: string;
}

/** A Python without a slash in its name is a program on PATH, as on a command line; everything else is in the checkout. */
export const alembicService = (
  { python, directory, config }: Pick<AlembicProfile, 'python' | 'directory' | 'config'>,
  checkout: string,
): AlembicService => ({
  python: python.includes('/') ? resolve(checkout, python) : python,
  directory: resolve(checkout, directory),
  config: resolve(checkout, config),
});
