import { execFile } from 'node:child_process';
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, it, vi } from 'vitest';
import { temporaryDirectory } from '../temporary-directory.ts';

const root = path.resolve(import.meta.dirname, '../..');
const run = promisify(execFile);
let directory: string;
vi.setConfig({ testTimeout: 60_000 });

/** A project of the same layout and settings, so that a file can be wrong without being in anybody's way. */
beforeAll(async () => {
  await mkdir(path.join(root, '.stack'), { recursive: true });
  directory = await temporaryDirectory('lint', path.join(root, '.stack'));
  for (const name of ['.oxlintrc.json', 'tsconfig.json'])
    await copyFile(path.join(root, name), path.join(directory, name));
});

async function findings(file: string, text: string): Promise<string> {
  const target = path.join(directory, file);
  await mkdir(path.dirname(target), { recursive: true });
  await writeFile(target, text);
  try {
    await run(
      path.join(root, 'node_modules/.bin/oxlint'),
      ['--type-aware', '--deny-warnings', '--disable-nested-config', '-c', '.oxlintrc.json', file],
      {
        cwd: directory,
      },
    );
    return '';
  } catch (error) {
    return (error as { stdout: string }).stdout;
  } finally {
    await rm(target);
  }
}

it('lets a clean file pass', async () => {
  expect(await findings('src/postgres/clean.ts', 'export const answer = (): number => 42;\n')).toBe('');
});

it('finds a promise nobody waits for: the linter sees types', async () => {
  const text = 'const work = async (): Promise<void> => {};\nexport const start = (): void => {\n  work();\n};\n';
  expect(await findings('src/postgres/floating.ts', text)).toContain('no-floating-promises');
});

it.each([
  ['src/contract/a.ts', 'node:fs'],
  ['src/contract/a.ts', '../postgres/sessions.ts'],
  ['src/contract/profile/a.ts', '../../profile/load.ts'],
  ['src/workflows/a.ts', '../archive/dump.ts'],
  ['src/workflows/sections/a.ts', '../../activities/apply.ts'],
  ['src/workflows/a.ts', 'node:crypto'],
  ['src/workflows/a.ts', '@temporalio/client'],
  ['src/postgres/a.ts', '../activities/apply.ts'],
  ['src/integrations/a.ts', '@temporalio/activity'],
  ['src/lint/a.ts', '../activities/apply.ts'],
  ['src/process/a.ts', '../alembic/graph.ts'],
  ['src/activities/a.ts', '../workflows/run.ts'],
  ['src/commands/a.ts', '../activities/index.ts'],
])('refuses that %s imports %s', async (file, imported) => {
  const text = `import * as other from '${imported}';\nexport const used = other;\n`;
  expect(await findings(file, text)).toContain('no-restricted-imports');
});
