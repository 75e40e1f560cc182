import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Redactor } from '../../process/redactor.ts';
import { requireSuccess, runProcess } from '../../process/run.ts';

/**
 * The differences of two `pg_dump --schema-only` texts as a unified diff; empty when there are none. What differs from
 * dump to dump although nothing has changed (`\restrict` with its random word) is left out.
 */
export async function diffSchemaDumps(
  before: string,
  after: string,
  { signal, redactor }: { readonly signal: AbortSignal; readonly redactor: Redactor },
): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'schema-diff-'));
  try {
    await writeFile(join(folder, 'before.sql'), withoutNoise(before), { mode: 0o600 });
    await writeFile(join(folder, 'after.sql'), withoutNoise(after), { mode: 0o600 });
    const lines: string[] = [];
    const result = await runProcess({
      file: 'git',
      args: ['diff', '--no-index', '--no-color', '--no-ext-diff', '--unified=5', 'before.sql', 'after.sql'],
      directory: folder,
      signal,
      redactor,
      onLine: (stream, line) => {
        if (stream === 'stdout') lines.push(line);
      },
      label: 'git diff',
    });
    // 1: there are differences.
    requireSuccess(result, 'git diff', [0, 1]);
    return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const withoutNoise = (dump: string): string =>
  dump.replaceAll(/^\\(un)?restrict .*\n/gm, '').replaceAll(/^-- Dumped .*\n/gm, '');
