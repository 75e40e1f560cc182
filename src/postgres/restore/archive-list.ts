import type { ProcessResult } from '../../process/options.ts';
import type { Redactor } from '../../process/redactor.ts';
import { requireSuccess, runProcess } from '../../process/run.ts';
import { type ArchiveItem, parseItem } from './restore-order.ts';

export interface ArchiveReading {
  readonly pgRestore: { readonly file: string };
  readonly redactor: Redactor;
  readonly signal: AbortSignal;
}

/**
 * Options of every call, whether it lists or restores. Subscriptions are refused before a backup is taken or restored; a
 * restored one would subscribe a second time.
 */
export const SELECTED: readonly string[] = ['--no-subscriptions'];

/** What a call with these options restores, by the contents list of an archive. @throws ProcessFailed */
export async function listItems(
  request: ArchiveReading,
  contentsList: Buffer,
  options: readonly string[],
): Promise<readonly ArchiveItem[]> {
  const items: ArchiveItem[] = [];
  const result = await list(request, contentsList, options, (line) => {
    const item = parseItem(line);
    if (item !== undefined) items.push(item);
  });
  requireSuccess(result, 'pg_restore --list');
  return items;
}

/** Does this beginning of an archive hold its whole contents list? */
export async function holdsContentsList(request: ArchiveReading, beginning: Buffer): Promise<boolean> {
  const result = await list(request, beginning, []);
  return result.kind === 'exited' && result.code === 0;
}

const list = (
  { pgRestore, redactor, signal }: ArchiveReading,
  archive: Buffer,
  options: readonly string[],
  onLine: (line: string) => void = () => undefined,
): Promise<ProcessResult> =>
  runProcess({
    file: pgRestore.file,
    args: [...SELECTED, '--list', ...options],
    input: archive,
    signal,
    redactor,
    label: 'pg_restore --list',
    onLine: (stream, line) => {
      if (stream === 'stdout') onLine(line);
    },
  });
