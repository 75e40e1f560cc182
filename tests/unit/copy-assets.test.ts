import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { copyAssets } from '../../scripts/copy-assets.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const sources = path.resolve(import.meta.dirname, '../../src');
let folder: string;

beforeAll(async () => {
  folder = await temporaryDirectory('assets');
});

test('the build gets every Python part, where the compiled code looks for it', async () => {
  const target = path.join(folder, 'dist');
  await copyAssets(sources, target);
  for (const part of [
    'alembic/python/launch.py',
    'alembic/python/graph.py',
    'alembic/python/reporter/__init__.py',
    'alembic/python/reporter/statements.py',
    'alembic/python/wrapped/sitecustomize.py',
    'integrations/python/celery_control.py',
  ]) {
    const [copy, original] = await Promise.all(
      [target, sources].map((root) => readFile(path.join(root, part), 'utf8')),
    );
    expect(copy).toBe(original);
  }
});

test('neither sources nor compiled Python are copied', async () => {
  const source = path.join(folder, 'src');
  await mkdir(path.join(source, 'python', '__pycache__'), { recursive: true });
  await writeFile(path.join(source, 'command.ts'), '');
  await writeFile(path.join(source, 'python', 'part.py'), 'print()');
  await writeFile(path.join(source, 'python', '__pycache__', 'part.cpython-312.pyc'), '');
  const target = path.join(folder, 'build');
  expect(await copyAssets(source, target)).toEqual([path.join('python', 'part.py')]);
  expect(existsSync(path.join(target, 'command.ts'))).toBe(false);
});
