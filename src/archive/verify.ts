import { PassThrough } from 'node:stream';
import type { BackupVerification } from '../contract/evidence/backup.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { ProcessFailed } from '../process/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { requireSuccess, runProcess, streamProcess } from '../process/run.ts';
import { drained } from './backpressure.ts';
import { chunksOf } from './chunks.ts';
import { ContentsList } from './contents-list.ts';
import { CopyRowCounter } from './copy-rows.ts';
import { damaged } from './damage.ts';
import { fleeting } from './fleeting.ts';
import type { Ledger } from './ledger.ts';
import { requireManifest } from './manifest.ts';
import type { ObjectStore } from './object-store.ts';
import { TRANSFER_PATIENCE } from './patience.ts';
import type { PostgresProgram } from './programs.ts';
import { parseQualifiedName, relationKey } from './relation-name.ts';
import { fetchLedger, openBackup, type StoredBackup } from './stored-backup.ts';

/** Told about twice a second. Bytes. */
export interface VerificationProgress {
  readonly read: number;
  readonly of: number;
  readonly decoded: number;
  /** Of the dump, 0 to 0.99. */
  readonly share: number;
  /** ISO 8601: since when the store has not answered; absent while it does. */
  readonly storeSilentSince?: string;
}

/** All of a verification but what a restore would take, which is not read off the backup. */
export type ArchiveVerification = Omit<BackupVerification, 'predictedRestore'>;

export interface VerificationRequest {
  readonly store: ObjectStore;
  readonly backup: StoredBackup;
  /** age identity, resolved. */
  readonly identity: string;
  readonly pgRestore: PostgresProgram;
  /** Milliseconds a store that does not answer is waited for, with each part. @default 90000 */
  readonly patience?: number;
  readonly redactor: Redactor;
  readonly signal: AbortSignal;
  readonly progress: (progress: VerificationProgress) => void;
}

const PROGRESS_INTERVAL = 500;

/**
 * Proves that the stored object is a whole backup: it is read back from the store, compared with the digests of the day it
 * was taken, decrypted, listed and fully decoded, all in one pass. The list alone proves nothing (it accepts truncated and
 * altered archives); the decoded rows of every table are counted and must be those of the ledger.
 *
 * @throws StepError `BackupDamaged`, naming the place; `StepRefused` for a wrong identity
 */
export async function verifyStoredBackup(request: VerificationRequest): Promise<ArchiveVerification> {
  const { backup, signal } = request;
  const began = performance.now();
  const progress = new VerificationReporter(request);
  try {
    const milliseconds = request.patience ?? TRANSFER_PATIENCE;
    const store = request.store.patient({ milliseconds, silent: (since) => progress.storeSilent(since) });
    await requireManifest(store, backup, signal);
    const ledger = await fetchLedger(store, backup, request.identity, signal);
    const { contents, decoded } = await decode(request, progress);
    const findings = compareWithLedger(ledger, contents, decoded);
    if (findings.length > 0) {
      const shown = findings.slice(0, 10).join('; ');
      throw damaged(backup, `${shown}${findings.length > 10 ? `; ${findings.length - 10} more` : ''}`);
    }
    return {
      uri: backup.uri,
      bytes: backup.bytes,
      sha256: backup.sha256,
      dumpSha256: backup.dumpSha256,
      entries: contents.entries,
      tableData: contents.tableDataEntries,
      decodedBytes: decoded.bytes,
      milliseconds: Math.round(performance.now() - began),
    };
  } finally {
    progress.stop();
  }
}

class VerificationReporter {
  readonly #request: VerificationRequest;
  readonly #timer: NodeJS.Timeout;
  #read = 0;
  #decoded: CopyRowCounter | undefined;
  #silentSince: Date | undefined;

  constructor(request: VerificationRequest) {
    this.#request = request;
    this.#timer = setInterval(() => this.#tell(), PROGRESS_INTERVAL);
    this.#tell();
  }

  watch(decoded: CopyRowCounter): void {
    this.#decoded = decoded;
  }

  read(bytes: number): void {
    this.#read = bytes;
  }

  storeSilent(since: Date | undefined): void {
    this.#silentSince = since;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #tell(): void {
    const of = this.#request.backup.dumpBytes;
    this.#request.progress({
      read: this.#read,
      of,
      decoded: this.#decoded?.bytes ?? 0,
      share: Math.min(0.99, Math.round((this.#read / Math.max(1, of)) * 1000) / 1000),
      ...(this.#silentSince === undefined ? {} : { storeSilentSince: this.#silentSince.toISOString() }),
    });
  }
}

interface Decoded {
  readonly contents: ContentsList;
  readonly decoded: CopyRowCounter;
}

/** One download feeds both programs. Whatever fails first stops the rest and is what is thrown. */
async function decode(request: VerificationRequest, progress: VerificationReporter): Promise<Decoded> {
  const contents = new ContentsList();
  const decoded = new CopyRowCounter();
  const stop = new AbortController();
  const signal = AbortSignal.any([request.signal, stop.signal]);
  let failure: { readonly error: unknown } | undefined;
  const guarded = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      failure ??= { error };
      stop.abort();
    }
  };

  progress.watch(decoded);
  const forList = new PassThrough();
  const whole = new End();
  const common = { file: request.pgRestore.file, signal, redactor: request.redactor };
  const dump = openBackup({
    ...request,
    signal,
    progress: (bytes) => progress.read(bytes),
    storeSilent: (since) => progress.storeSilent(since),
  });
  await Promise.all([
    guarded(async () => {
      const result = await runProcess({
        ...common,
        args: ['--list'],
        input: forList,
        // It reads the contents list and no more.
        unreadInput: 'destroy',
        onLine: (stream, line) => {
          if (stream === 'stdout') contents.addLine(line);
        },
      });
      requireSuccess(result, 'pg_restore --list');
    }),
    guarded(async () => {
      const input = fleeting(beginningTo(whole.read(dump), forList));
      const running = await streamProcess({ ...common, args: ['--file=-'], input, label: 'pg_restore' });
      try {
        for await (const chunk of fleeting(chunksOf(running.stdout))) decoded.add(chunk);
        // pg_restore may have seen enough before the last byte; the digests have not.
        await whole.reached;
      } finally {
        await running.stop().catch(() => undefined);
      }
    }),
  ]);
  request.signal.throwIfAborted();
  if (failure !== undefined) throw asVerificationFailure(failure.error, request.backup);
  return { contents, decoded };
}

/** Tells when a stream has been read to its end. */
class End {
  readonly #end = Promise.withResolvers<void>();

  constructor() {
    // Awaited only where all else went well.
    this.reached.catch(() => undefined);
  }

  get reached(): Promise<void> {
    return this.#end.promise;
  }

  async *read(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      yield* source;
      this.#end.resolve();
    } catch (error) {
      this.#end.reject(error);
      throw error;
    } finally {
      this.#end.reject(new Error('the dump was not read to its end'));
    }
  }
}

/** Gives a copy of the beginning to whoever reads that and no more. */
async function* beginningTo(
  source: AsyncIterable<Uint8Array>,
  reader: PassThrough,
): AsyncGenerator<Uint8Array, void, undefined> {
  // Its errors are its own affair: they are met where its process is awaited.
  reader.on('error', () => undefined);
  try {
    for await (const chunk of source) {
      if (reader.writable && !reader.write(Buffer.from(chunk))) await drained(reader);
      yield chunk;
    }
    reader.end();
  } catch (error) {
    reader.destroy(error as Error);
    throw error;
  }
}

function compareWithLedger(ledger: Ledger, contents: ContentsList, decoded: CopyRowCounter): string[] {
  const { count } = ledger.contents.largeObjects;
  const largeObjects =
    decoded.largeObjects === count
      ? []
      : [`it holds ${decoded.largeObjects} large objects, ${count} are in the ledger`];
  const tables = ledger.contents.tables.flatMap(({ table, rows }) => {
    const name = parseQualifiedName(table);
    if (!contents.hasDataOf(name)) return [`its contents list has no data of table ${table} (${rows} rows)`];
    const found = decoded.rows.get(relationKey(name)) ?? 0;
    return found === rows ? [] : [`table ${table} has ${found} rows in the archive, ${rows} in the ledger`];
  });
  return [...tables, ...largeObjects];
}

function asVerificationFailure(error: unknown, backup: StoredBackup): unknown {
  if (!(error instanceof ProcessFailed)) return error;
  const { result } = error;
  const details = {
    program: 'pg_restore',
    exitCode: result.kind === 'exited' ? result.code : null,
    tail: result.stderrTail.trim().slice(-1_200),
  };
  return result.kind === 'exited'
    ? damaged(backup, `it does not decode: ${error.message.slice(0, 800)}`)
    : new StepError(STEP_ERRORS.processFailed, error.message, details);
}
