import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { DatabaseIdentity } from '../contract/evidence/production.ts';
import { type ConnectionTarget, describeTarget, libpqEnvironment } from '../postgres/connection-url.ts';
import { ProcessFailed } from '../process/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { streamProcess } from '../process/run.ts';
import { ByteCounter } from './byte-counter.ts';
import { chunksOf } from './chunks.ts';
import { compressed } from './compression.ts';
import type { DumpProgress } from './dump-progress.ts';
import { encrypted } from './encryption.ts';
import { partSizeFor, type Uploaded } from './multipart-upload.ts';
import { fleeting } from './fleeting.ts';
import type { ObjectStore } from './object-store.ts';
import type { PostgresProgram } from './programs.ts';
import type { Keeping } from './storage-options.ts';

export interface DumpStream {
  readonly pgDump: PostgresProgram;
  readonly target: ConnectionTarget;
  readonly database: DatabaseIdentity;
  /** Exported by a session that lives on until the dump has ended. */
  readonly snapshot: string;
  readonly applicationName: string;
  /** Milliseconds pg_dump waits behind others for a lock. */
  readonly lockWait: number;
  readonly recipients: readonly string[];
  readonly store: ObjectStore;
  readonly key: string;
  readonly keeping: Keeping;
  /** Called when all is stored that there is, before the object of that key is replaced. */
  readonly beforeReplacing: () => Promise<void>;
  readonly redactor: Redactor;
  readonly signal: AbortSignal;
  readonly progress: DumpProgress;
}

export interface StoredDump {
  /** Of the dump before compression. */
  readonly bytes: number;
  readonly sha256: string;
  readonly stored: Uploaded;
}

/**
 * pg_dump -> digest -> Zstandard -> age -> object store, with flat memory and no file. It is all or nothing: the stream ends
 * only when pg_dump has ended with exit code 0, so a dump that broke off is never stored.
 */
export async function storeDump(dump: DumpStream): Promise<StoredDump> {
  const running = await streamProcess({
    file: dump.pgDump.file,
    args: [
      '--format=custom',
      // Not by pg_dump: its gzip takes longer than the whole rest, and not every pg_dump has anything better.
      '--compress=0',
      `--snapshot=${dump.snapshot}`,
      `--lock-wait-timeout=${dump.lockWait}`,
      '--no-password',
    ],
    environment: { ...libpqEnvironment(dump.target), PGAPPNAME: dump.applicationName },
    signal: dump.signal,
    redactor: dump.redactor,
  });
  try {
    const counter = new ByteCounter();
    dump.progress.update({ phase: 'dump' });
    dump.progress.watch(counter);
    // Every stage copies or consumes what it reads before it asks for more.
    const plain = fleeting(counter.count(chunksOf(running.stdout)));
    const packed = fleeting(encrypted(fleeting(compressed(plain)), dump.recipients));
    const stored = await dump.store.upload(
      dump.key,
      packed,
      {
        partSize: partSizeFor(dump.database.sizeBytes),
        signal: dump.signal,
        progress: (bytes) => dump.progress.update({ stored: bytes }),
        beforeReplacing: dump.beforeReplacing,
      },
      dump.keeping,
    );
    return { bytes: counter.bytes, sha256: counter.digest(), stored };
  } catch (error) {
    if (error instanceof ProcessFailed) throw dumpFailure(error, dump.target);
    throw error;
  } finally {
    await running.stop().catch(() => undefined);
  }
}

function dumpFailure(error: ProcessFailed, target: ConnectionTarget): StepError {
  const { result } = error;
  const said = result.stderrTail.trim();
  const details = {
    program: 'pg_dump',
    exitCode: result.kind === 'exited' ? result.code : null,
    tail: said.slice(-1_200),
  };
  if (said.includes('permission denied')) {
    return new StepError(
      STEP_ERRORS.refused,
      `The backup role "${target.user}" may not read all of ${describeTarget(target)}: ${said.slice(0, 600)}. Grant it pg_read_all_data.`,
      details,
    );
  }
  if (said.includes('LOCK TABLE') && said.includes('timeout')) {
    return new StepError(
      STEP_ERRORS.unavailable,
      `Nothing was stored: somebody waits for an exclusive lock on a table of ${describeTarget(target)}, and pg_dump cannot pass. Wait until that change is through (pg_stat_activity, wait_event_type = 'Lock').`,
      details,
    );
  }
  return new StepError(STEP_ERRORS.processFailed, `Nothing was stored: ${error.message}`, details);
}
