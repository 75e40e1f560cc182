import { randomBytes } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import type { FullStackConnection } from '../scripts/stack/connection.ts';
import { stackRoot } from '../scripts/stack/layout.ts';
import { attachStack, startStack } from '../scripts/stack/stack.ts';
import { isAbandoned } from '../scripts/stack/state-file.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    readonly stack: FullStackConnection;
  }
}

const testStacks = join(stackRoot, 'test');

/**
 * One stack for all files of a project, on fresh servers, gone when the tests end. TEST_STACK=.stack/dev uses one that runs already
 * (`node scripts/stack/cli.ts up`), which saves some seconds while working on one test.
 */
export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const running = process.env['TEST_STACK'];
  if (running !== undefined) {
    const stack = await attachStack(running);
    if (stack === undefined) throw new Error(`no stack runs in ${running}`);
    const { servers: _servers, stop: _stop, ...connection } = stack;
    project.provide('stack', connection as FullStackConnection);
    return undefined;
  }
  await removeAbandoned();
  const directory = join(testStacks, randomBytes(4).toString('hex'));
  const { servers: _servers, stop, ...connection } = await startStack({ directory });
  project.provide('stack', connection as FullStackConnection);
  return async () => {
    await stop();
    await rm(directory, { recursive: true, force: true });
  };
}

/** Folders of test runs that were killed. Their servers died with them. */
async function removeAbandoned(): Promise<void> {
  const names = await readdir(testStacks).catch(() => []);
  for (const name of names) {
    const directory = join(testStacks, name);
    if (await isAbandoned(directory)) await rm(directory, { recursive: true, force: true });
  }
}
