/**
 * Builds the workflow bundle that a worker loads: `dist/workflow-bundle.js`. Fails when workflow code reaches a module that
 * is not deterministic. Built again only when its sources or the SDK have changed.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode, DefaultLogger } from '@temporalio/worker';

const root = path.resolve(fileURLToPath(new URL('.', import.meta.url)), '..');
export const bundlePath = path.join(root, 'dist', 'workflow-bundle.js');

export async function ensureBundle(): Promise<string> {
  const digest = await sourcesDigest();
  const stamp = `${bundlePath}.sha256`;
  const known = await readFile(stamp, 'utf8').catch(() => '');
  if (known === digest) return bundlePath;
  const { code } = await bundleWorkflowCode({
    workflowsPath: path.join(root, 'src', 'workflows', 'index.ts'),
    payloadConverterPath: path.join(root, 'src', 'contract', 'payload-converter.ts'),
    logger: new DefaultLogger('WARN'),
  });
  await mkdir(path.dirname(bundlePath), { recursive: true });
  // Two processes may build at once: each writes a file of its own and moves it into place whole.
  const temporary = `${bundlePath}.${process.pid}`;
  await writeFile(temporary, code);
  await rename(temporary, bundlePath);
  await writeFile(stamp, digest);
  return bundlePath;
}

async function sourcesDigest(): Promise<string> {
  const hash = createHash('sha256');
  hash.update(createRequire(import.meta.url)('@temporalio/workflow/package.json').version);
  for (const folder of ['src/workflows', 'src/contract']) {
    const files = await readdir(path.join(root, folder), { recursive: true, withFileTypes: true });
    const names = files.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
    for (const name of names.sort()) {
      hash.update(path.relative(root, name));
      hash.update(await readFile(name));
    }
  }
  return hash.digest('hex');
}

if (import.meta.main) console.log(await ensureBundle());
