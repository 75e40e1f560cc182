import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import { ProcessFailed } from '../../process/errors.ts';
import type { ProcessResult } from '../../process/options.ts';
import type { Redactor } from '../../process/redactor.ts';
import { requireSuccess, runProcess } from '../../process/run.ts';
import { ArchiveHead } from './archive-head.ts';
import { type ConnectionTarget, libpqEnvironment } from '../connection-url.ts';
import { holdsContentsList, listItems, SELECTED } from './archive-list.ts';
import { type ArchiveItem, orderRestore, useList } from './restore-order.ts';
import { withScratchFolder } from './scratch-folder.ts';

export interface FillRequest {
  /** Leads to the database, which is empty. */
  readonly target: ConnectionTarget;
  /** `application_name` of every session. */
  readonly application: string;
  readonly runId: string;
  /** The decrypted and decompressed custom-format dump; throws, rather than ends, when it is not whole. */
  readonly openBackup: () => AsyncIterable<Uint8Array>;
  /** Sessions that build indexes and constraints. */
  readonly jobs: number;
  readonly pgRestore: { readonly file: string };
  /** Where the folder for the scratch file is made. */
  readonly scratchParent: string;
  readonly redactor: Redactor;
  readonly signal: AbortSignal;
  readonly progress: (progress: FillProgress) => void;
  /**
   * Called when the rows are there and nothing has been built on them.
   * @returns `ArchiveItem.what` of items that are then not restored
   */
  readonly beforeIndexes?: () => Promise<readonly string[]>;
}

export type FillProgress =
  | { readonly phase: 'data'; readonly bytes: number; readonly table: string }
  /** `building`: items under way, e.g. `INDEX orders_placed`. */
  | { readonly phase: 'indexes'; readonly done: number; readonly of: number; readonly building: readonly string[] };

/** Milliseconds. */
export interface FillTimings {
  readonly data: number;
  readonly indexes: number;
}

/**
 * Restores a dump by three calls of pg_restore; the first failing statement ends it.
 *
 * 1. Definitions and rows, from the stream as it arrives: download, decryption, decompression and COPY run at the same time.
 * 2. Indexes, constraints and all else that follows the rows, by several sessions. For that pg_restore wants a file that it can
 *    seek in. It holds only the beginning of the dump, up to the end of the contents list, and so no row: what this
 *    call restores is written in the list itself.
 * 3. Rights, materialized views' rows and event triggers, in that order.
 *
 * Which item belongs to which call comes from the contents list (`orderRestore`): each is restored once. The second begins
 * only after the stream has been read and proven to its end.
 *
 * @throws StepError `ProcessFailed` with what pg_restore said; whatever the stream throws
 */
export async function fillDatabase(request: FillRequest): Promise<FillTimings> {
  const started = performance.now();
  const head = new ArchiveHead((beginning) => holdsContentsList(request, beginning));
  await restoreStream(request, head);
  const contentsList = await head.contentsList();
  const order = orderRestore({
    all: await listItems(request, contentsList, []),
    streamed: await listItems(request, contentsList, STREAMED),
    afterData: await listItems(request, contentsList, ['--section=post-data', '--no-privileges']),
  });
  const leaveOut = new Set(await request.beforeIndexes?.());
  const wanted = ({ what }: ArchiveItem): boolean => !leaveOut.has(what);
  const [concurrent, last] = [order.concurrent.filter(wanted), order.last.filter(wanted)];
  const data = performance.now() - started;
  // The file, and as much again for the list of items.
  const scratch = { parent: request.scratchParent, runId: request.runId, bytes: 2 * contentsList.byteLength + 65_536 };
  await withScratchFolder(scratch, async (folder) => {
    const archive = join(folder, 'contents');
    await writeFile(archive, contentsList, { mode: 0o600, flag: 'wx' });
    const of = concurrent.length + last.length;
    await restoreItems(request, { folder, archive, items: concurrent, jobs: request.jobs, before: 0, of });
    await restoreItems(request, { folder, archive, items: last, jobs: 1, before: concurrent.length, of });
  });
  return { data: Math.round(data), indexes: Math.round(performance.now() - started - data) };
}

/** Rights come last: a table whose owner has revoked his own INSERT could not be filled. */
const STREAMED = ['--section=pre-data', '--section=data', '--no-privileges'];

/**
 * For sessions in a database that nobody else uses and that is worth nothing until it has been compared.
 *
 * A commit need not wait for the disk: should the server crash now, the restore fails and is repeated from the beginning. Once
 * the databases' names are exchanged the restored one is safe all the same, for that transaction commits synchronously,
 * and the log is written in order. The fence may be up for this role: it is not meant for these sessions. Memory and
 * parallel workers for index builds are left to the server's settings: larger ones gained nothing when measured, and
 * could take away from production beside.
 */
const SESSION = [
  'statement_timeout=0',
  'lock_timeout=0',
  'idle_in_transaction_session_timeout=0',
  'idle_session_timeout=0',
  'client_connection_check_interval=2s',
  'default_transaction_read_only=off',
  'synchronous_commit=off',
];

/** What every call that restores has in common. */
const restoring = ({ target, application, pgRestore, redactor, signal }: FillRequest) => ({
  file: pgRestore.file,
  environment: {
    ...libpqEnvironment(target),
    PGAPPNAME: application,
    // What it says is read below.
    LC_ALL: 'C',
    PGOPTIONS: SESSION.map((setting) => `-c ${setting}`).join(' '),
  },
  signal,
  redactor,
  label: 'pg_restore',
});

const restoreArguments = (target: ConnectionTarget): readonly string[] => [
  ...SELECTED,
  '--exit-on-error',
  '--no-password',
  '--verbose',
  `--dbname=dbname='${target.database.replaceAll(/['\\]/g, String.raw`\$&`)}'`,
];

async function restoreStream(request: FillRequest, head: ArchiveHead): Promise<void> {
  const proven = Promise.withResolvers<void>();
  proven.promise.catch(() => undefined);
  let bytes = 0;
  let table = '';
  async function* collected(): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of request.openBackup()) {
        await head.add(chunk);
        bytes += chunk.byteLength;
        yield chunk;
      }
      proven.resolve();
    } catch (error) {
      proven.reject(error);
      throw error;
    }
  }
  const input = Readable.from(collected(), { objectMode: false });
  const timer = setInterval(() => request.progress({ phase: 'data', bytes, table }), 500);
  try {
    await asRestoreFailure(request, async () => {
      const result = await runProcess({
        ...restoring(request),
        args: [...restoreArguments(request.target), ...STREAMED],
        input,
        onLine: (_stream, line) => {
          table = /processing data for table "(.*)"$/.exec(line)?.[1] ?? table;
        },
      });
      requireSuccess(result, 'pg_restore');
      // Drained to its end even when pg_restore has seen enough: only then has it proved to be whole.
      await untilAborted(proven.promise, request.signal);
    });
  } finally {
    clearInterval(timer);
    input.destroy();
  }
}

async function restoreItems(
  request: FillRequest,
  call: {
    readonly folder: string;
    readonly archive: string;
    readonly items: readonly ArchiveItem[];
    readonly jobs: number;
    /** Items restored by the calls before, of all after the rows. */
    readonly before: number;
    readonly of: number;
  },
): Promise<void> {
  const { folder, archive, items, jobs, before, of } = call;
  if (items.length === 0) return;
  const list = join(folder, 'items');
  await writeFile(list, useList(items), { mode: 0o600 });
  // Several sessions tell what begins and what ends, one alone what it is at.
  const building = new Map<string, string>();
  let done = 0;
  const tell = (): void =>
    request.progress({ phase: 'indexes', done: before + done, of, building: [...building.values()] });
  tell();
  // How far an index is changes while nothing begins or ends.
  const timer = setInterval(tell, 500);
  try {
    await asRestoreFailure(request, async () => {
      const result = await runProcess({
        ...restoring(request),
        args: [...restoreArguments(request.target), `--jobs=${jobs}`, `--use-list=${list}`, archive],
        onLine: (_stream, line) => {
          const said = /^pg_restore: (?<what>launching|finished|creating) (?:item (?<id>\d+) )?(?<text>.*)$/.exec(line);
          const { what, id = '', text = '' } = said?.groups ?? {};
          if (what === undefined || (what === 'creating') !== (jobs === 1)) return;
          if (what === 'finished') building.delete(id);
          else building.set(id, text.slice(0, 120));
          if (what !== 'launching') done = Math.min(done + 1, items.length);
          tell();
        },
      });
      requireSuccess(result, 'pg_restore');
    });
  } finally {
    clearInterval(timer);
  }
}

async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    signal.throwIfAborted();
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

async function asRestoreFailure(request: FillRequest, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    request.signal.throwIfAborted();
    if (!(error instanceof ProcessFailed)) throw error;
    const said = complaints(error.result.stderrTail);
    throw new StepError(
      isAnswer(said) ? STEP_ERRORS.refused : STEP_ERRORS.processFailed,
      `the backup could not be restored into database "${request.target.database}": pg_restore ${endingOf(error.result)}: ${said.slice(0, 1_000)}`,
      { program: 'pg_restore', exitCode: error.result.kind === 'exited' ? error.result.code : null, tail: said },
    );
  }
}

/**
 * The server has said no, and would say so again: production waits meanwhile. What a lost connection, a restart or a lock
 * leaves behind may pass another time.
 */
const isAnswer = (said: string): boolean => /\bERROR: /.test(said) && !PASSING.test(said);

const PASSING =
  /connection|terminating|shutting down|starting up|recovery mode|crash|deadlock|lock timeout|canceling|could not (?:extend|write)|No space left|out of memory|too many clients/i;

const endingOf = (result: ProcessResult): string =>
  result.kind === 'exited' ? `exited with code ${result.code}` : `was ended by ${result.signal}`;

/** What it wrote without its account of what it does, and without the rows that COPY quotes. */
const complaints = (stderr: string): string =>
  stderr
    .split('\n')
    .filter((line) => !/^pg_restore: (?!error|warning|detail|hint)/.test(line))
    .map((line) => line.replace(/^(CONTEXT: {2}COPY [^,]+, line \d+).*$/, '$1'))
    .join('\n')
    .trim()
    .slice(-1_200);
