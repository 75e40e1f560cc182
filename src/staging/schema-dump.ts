import { text } from 'node:stream/consumers';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { type ConnectionTarget, libpqEnvironment } from '../postgres/connection-url.ts';
import type { Redactor } from '../process/redactor.ts';
import { ProcessFailed } from '../process/errors.ts';
import { streamProcess } from '../process/run.ts';

/**
 * `pg_dump --schema-only` as text. Lines that differ from one dump of the same schema to the next are left out: pg_dump
 * guards its output with `\restrict` and a random word, and names its own version.
 *
 * @throws StepError `ProcessFailed`; the signal's reason after an abort
 */
export async function dumpSchema(
  pgDump: string,
  target: ConnectionTarget,
  { signal, redactor }: { readonly signal: AbortSignal; readonly redactor: Redactor },
): Promise<string> {
  const process = await streamProcess({
    file: pgDump,
    args: ['--schema-only', '--no-password', '--lock-wait-timeout=30s'],
    environment: libpqEnvironment(target),
    signal,
    redactor,
    label: 'pg_dump --schema-only',
  });
  try {
    const dump = await text(process.stdout);
    return dump.replaceAll(/^(\\(un)?restrict .*|-- Dumped (from|by) .*)\n/gm, '');
  } catch (error) {
    if (!(error instanceof ProcessFailed)) throw error;
    throw new StepError(STEP_ERRORS.processFailed, error.message, { program: 'pg_dump' });
  }
}
