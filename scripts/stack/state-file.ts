import { mkdirSync } from 'node:fs';
import { open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { StackConnection } from './connection.ts';
import { identify, isAlive } from './process-identity.ts';
import type { ProcessIdentity } from './process-identity.ts';
import type { Lifetime, RunningServer } from './server-process.ts';

/** What `.stack/<name>/stack.json` (mode 0600: it holds passwords) remembers of a stack that runs or ran. */
export interface StackState {
  readonly lifetime: Lifetime;
  /** The process that started it. */
  readonly owner: ProcessIdentity;
  /** In the order they were started. */
  readonly servers: readonly RunningServer[];
  readonly connection: StackConnection;
}

const fileName = 'stack.json';

export async function readState(directory: string): Promise<StackState | undefined> {
  try {
    return JSON.parse(await readFile(join(directory, fileName), 'utf8')) as StackState;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

export async function writeState(directory: string, state: StackState): Promise<void> {
  const file = join(directory, fileName);
  await writeFile(`${file}.new`, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  await rename(`${file}.new`, file);
}

export async function removeState(directory: string): Promise<void> {
  await rm(join(directory, fileName), { force: true });
}

/** Those of a stack's servers that still run. */
export function livingServers(state: StackState | undefined): readonly RunningServer[] {
  return (state?.servers ?? []).filter(isAlive);
}

/**
 * Keeps two processes from starting a stack in one folder at the same time.
 * @returns a function that releases the folder.
 * @throws Error when another living process holds it.
 */
export async function claim(directory: string, owner: ProcessIdentity): Promise<() => Promise<void>> {
  mkdirSync(directory, { recursive: true, mode: 0o711 });
  const file = join(directory, 'claim.json');
  for (let attempt = 0; attempt < 3; attempt += 1) {
    try {
      const handle = await open(file, 'wx', 0o600);
      await handle.writeFile(JSON.stringify(owner));
      await handle.close();
      return () => rm(file, { force: true });
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
      const holder = await holderOf(file);
      if (holder !== undefined && isAlive(holder))
        throw new Error(`process ${holder.pid} is using ${directory} just now`);
      await rm(file, { force: true });
    }
  }
  throw new Error(`${directory} cannot be claimed: several processes are trying to`);
}

/** Changes the state while nobody else does: several test files may deploy the example on one stack at the same time.
 * @throws Error when no stack was started here, or the folder stays claimed for ten seconds. */
export async function changeState(directory: string, change: (state: StackState) => StackState): Promise<void> {
  const self = identify(process.pid);
  if (self === undefined) throw new Error('this process cannot be identified');
  const release = await claimPatiently(directory, self);
  try {
    const state = await readState(directory);
    if (state === undefined) throw new Error(`no stack runs in ${directory}`);
    await writeState(directory, change(state));
  } finally {
    await release();
  }
}

async function claimPatiently(directory: string, owner: ProcessIdentity): Promise<() => Promise<void>> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await claim(directory, owner);
    } catch (error) {
      if (attempt === 200) throw error;
      await delay(50);
    }
  }
}

/** Whether a stack started here and neither it nor its start is alive any more. */
export async function isAbandoned(directory: string): Promise<boolean> {
  const holder = await holderOf(join(directory, 'claim.json'));
  if (holder !== undefined && isAlive(holder)) return false;
  const state = await readState(directory);
  return (holder !== undefined || state !== undefined) && livingServers(state).length === 0;
}

async function holderOf(file: string): Promise<ProcessIdentity | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as ProcessIdentity;
  } catch {
    return undefined;
  }
}
