/**
 * Completes `dist/` after the compiler: what is no TypeScript (the Python parts that run inside a service's own Python) is
 * copied beside the code that looks for it, and the command is made executable. Part of `npm run build`.
 */
import { chmod, cp, readdir } from 'node:fs/promises';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '..');

/** @returns paths of the copied files, relative to `target` */
export async function copyAssets(source: string, target: string): Promise<readonly string[]> {
  const entries = await readdir(source, { recursive: true, withFileTypes: true });
  const assets = entries
    .filter((entry) => entry.isFile() && !entry.name.endsWith('.ts'))
    .map((entry) => path.relative(source, path.join(entry.parentPath, entry.name)))
    .filter((name) => !name.split(path.sep).includes('__pycache__'))
    .toSorted();
  for (const name of assets) await cp(path.join(source, name), path.join(target, name));
  return assets;
}

if (import.meta.main) {
  const dist = path.join(root, 'dist');
  for (const name of await copyAssets(path.join(root, 'src'), dist)) console.log(`dist/${name}`);
  await chmod(path.join(dist, 'cli.js'), 0o755);
}
