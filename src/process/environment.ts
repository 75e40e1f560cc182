import { access, constants, stat } from 'node:fs/promises';
import { delimiter, join, resolve } from 'node:path';
import { ProcessNotStarted } from './errors.ts';

const inherited = ['PATH', 'HOME', 'LANG', 'TZ'] as const;

/**
 * The exact environment of a child: what is passed, and of the worker's own only PATH, HOME, LANG and TZ.
 * @throws ProcessNotStarted for a name that is no POSIX name: the shell that starts the child would drop it silently.
 */
export function childEnvironment(given: Readonly<Record<string, string>>): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const name of inherited) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  for (const [name, value] of Object.entries(given)) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      throw new ProcessNotStarted('invalid-environment', `"${name}" is not a name for an environment variable`);
    }
    if (value.includes('\0')) {
      throw new ProcessNotStarted('invalid-environment', `the value of ${name} contains a NUL character`);
    }
    environment[name] = value;
  }
  return environment;
}

/**
 * The path of a program: as given when it contains a slash (relative to `directory`), else looked for in `path`.
 * @throws ProcessNotStarted
 */
export async function findProgram(file: string, directory: string, path: string | undefined): Promise<string> {
  const candidates = file.includes('/')
    ? [resolve(directory, file)]
    : (path ?? '/usr/bin:/bin')
        .split(delimiter)
        .filter((folder) => folder !== '')
        .map((folder) => join(folder, file));
  for (const candidate of candidates) {
    if (await isProgram(candidate)) return candidate;
  }
  throw new ProcessNotStarted(
    'program-not-found',
    file.includes('/') ? `${file} does not exist or cannot be executed` : `no program ${file} in the folders of PATH`,
  );
}

/** @throws ProcessNotStarted */
export async function requireDirectory(directory: string): Promise<void> {
  const found = await stat(directory).catch(() => undefined);
  if (found?.isDirectory() !== true) {
    throw new ProcessNotStarted('directory-not-found', `working directory ${directory} does not exist`);
  }
}

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
