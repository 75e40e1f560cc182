import type { Client } from 'pg';
import type { BackupEvidence, DatabaseIdentity } from '../contract/evidence.ts';
import type { AlembicProfile } from '../contract/profile.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { applicationName, type OpenConnection, withConnection } from '../postgres/connection.ts';
import { type ConnectionTarget, describeTarget, libpqEnvironment } from '../postgres/connection-url.ts';
import { readIdentity } from '../postgres/identity.ts';
import { readCounters, type TableCounters } from '../postgres/write-counters.ts';
import { ProcessFailed } from '../process/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { streamProcess } from '../process/run.ts';
import { backupKeys } from './backup-names.ts';
import { ByteCounter } from './byte-counter.ts';
import { followDump } from './dump-share.ts';
import { ENCRYPTION, encrypted } from './encryption.ts';
import { type Ledger, readLedger, serializeLedger } from './ledger.ts';
import { partSizeFor, type Uploaded } from './multipart-upload.ts';
import type { ObjectStore } from './object-store.ts';
import type { PostgresProgram } from './programs.ts';
import { type ExportedSnapshot, exportSnapshot } from './snapshot.ts';

/** Told about twice a second while a backup runs. Sizes in bytes. */
export interface BackupProgress {
  readonly phase: 'snapshot' | 'dump';
  /** Compressed, before encryption. */
  readonly dumped: number;
  readonly stored: number;
  readonly databaseSize: number;
  /** Estimated by rows, 0 to 1. */
  readonly share: number;
  /** Of the ledger's row counts. */
  readonly countedTables: number;
  readonly tables: number;
}

export interface BackupRequest {
  /** libpq URL of the backup role, resolved. */
  readonly url: string;
  readonly versionTable: AlembicProfile['versionTable'];
  readonly pgDump: PostgresProgram;
  readonly store: ObjectStore;
  /** See `runFolder`. */
  readonly folder: string;
  readonly runId: string;
  readonly step: string;
  readonly recipients: readonly string[];
  /** Bytes, of the profile. @default no sampling */
  readonly sampleAbove?: number;
  /** Milliseconds pg_dump waits behind others for a lock. @default 10000 */
  readonly lockWait?: number;
  readonly redactor: Redactor;
  readonly signal: AbortSignal;
  readonly progress: (progress: BackupProgress) => void;
}

/**
 * Compression level of the dump. Level 1 takes half the time of pg_dump's default (6) for a tenth more bytes, and deflate is
 * what every pg_dump and pg_restore can do, whatever it was built with.
 */
const COMPRESSION = '1';

/**
 * Milliseconds pg_dump waits for its own locks. The tables are locked already by the session beside it, so it waits only
 * behind somebody who queues for ACCESS EXCLUSIVE - who in turn waits for that session: without a limit all three would
 * wait for ever, and no deadlock detector sees it.
 */
const DEFAULT_LOCK_WAIT = 10_000;

/**
 * Takes a backup: a custom-format dump, compressed, encrypted and streamed to the object store, and beside it its ledger,
 * both from one snapshot. Nothing touches a disk here. It is all or nothing: the stream ends only when pg_dump has ended
 * with exit code 0, so a dump that broke off is never stored. Running it again replaces what an earlier attempt stored.
 */
export async function captureDump(request: BackupRequest): Promise<BackupEvidence> {
  const { store, signal } = request;
  const keys = backupKeys(request.folder, request.step);
  await store.abortUploads(keys.dump, signal);
  const names = sessionNames(request);
  const session = {
    runId: request.runId,
    step: request.step,
    signal,
    // The exporting session must live as long as the dump, however long that takes.
    statementTimeout: 0,
    lockTimeout: 0,
    idleTimeout: 0,
  };
  return withConnection(request.url, session, async (client, connection) => {
    const database = await readIdentity(client);
    requireOwnMajor(request.pgDump, database, connection.target);
    await endEarlierAttempts(client, names);
    const counters = await readCounters(client);
    const snapshot = await exportSnapshot(client, signal);
    const capturedAt = new Date().toISOString();
    const report = progressReporter(request, database);
    try {
      const { dump, ledger } = await dumpBesideLedger(request, {
        client,
        connection,
        database,
        snapshot,
        capturedAt,
        counters,
        report,
      });
      const stored = await store.put(keys.ledger, serializeLedger(ledger), 'application/json', signal);
      return {
        uri: store.uri(keys.dump),
        bucket: store.bucket,
        key: keys.dump,
        bytes: dump.stored.bytes,
        sha256: dump.stored.sha256,
        dumpBytes: dump.bytes,
        dumpSha256: dump.sha256,
        capturedAt,
        lsn: snapshot.lsn,
        database,
        versionRows: ledger.versionRows,
        objectMapDigest: ledger.objectMapDigest,
        ledger: stored,
        tables: ledger.contents.tables.length,
        rows: ledger.contents.tables.reduce((sum, { rows }) => sum + rows, 0),
        pgDumpVersion: request.pgDump.version,
        encryption: ENCRYPTION,
      };
    } finally {
      report.stop();
    }
  });
}

interface SessionNames {
  readonly ledger: string;
  readonly dump: string;
}

const sessionNames = ({ runId, step }: BackupRequest): SessionNames => ({
  ledger: applicationName(runId, step),
  dump: applicationName(runId, `${step} pg_dump`),
});

/** Sessions an attempt left whose host died: they would go on holding their locks. A role may end its own sessions. */
async function endEarlierAttempts(client: Client, { ledger, dump }: SessionNames): Promise<void> {
  await client.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()
       AND application_name IN ($1, $2)`,
    [ledger, dump],
  );
}

interface OpenSnapshot {
  readonly client: Client;
  readonly connection: OpenConnection;
  readonly database: DatabaseIdentity;
  readonly snapshot: ExportedSnapshot;
  readonly capturedAt: string;
  readonly counters: TableCounters;
  readonly report: ProgressReporter;
}

/** The two halves of a backup side by side, for the snapshot holds back vacuum. If one fails the other is stopped. */
async function dumpBesideLedger(
  request: BackupRequest,
  open: OpenSnapshot,
): Promise<{ readonly dump: StoredDump; readonly ledger: Ledger }> {
  const stop = new AbortController();
  const dumping = storeDump({ ...request, signal: AbortSignal.any([request.signal, stop.signal]) }, open);
  const ended = new AbortController();
  dumping.then(
    () => ended.abort(),
    () => ended.abort(),
  );
  try {
    const facts = { ...open, versionTable: request.versionTable, sampleAbove: request.sampleAbove ?? Infinity };
    const ledger = await readLedger([open.client], facts, (_table, done, of) =>
      open.report.update({ countedTables: done, tables: of }),
    );
    if (open.database.serverMajor >= PROGRESS_OF_COPY) {
      const watched = { application: sessionNames(request).dump, tables: ledger.contents.tables };
      // A backup does not fail for want of an estimate.
      await followDump(open.client, watched, (share) => open.report.update({ share }), ended.signal).catch(
        () => undefined,
      );
    }
    return { ledger, dump: await dumping };
  } catch (error) {
    stop.abort();
    await dumping.catch(() => undefined);
    throw error;
  }
}

/** First major version that tells how far a COPY is. */
const PROGRESS_OF_COPY = 14;

interface StoredDump {
  readonly bytes: number;
  readonly sha256: string;
  readonly stored: Uploaded;
}

async function storeDump(request: BackupRequest, open: OpenSnapshot): Promise<StoredDump> {
  const { target } = open.connection;
  const running = await streamProcess({
    file: request.pgDump.file,
    args: [
      '--format=custom',
      `--compress=${COMPRESSION}`,
      `--snapshot=${open.snapshot.id}`,
      `--lock-wait-timeout=${request.lockWait ?? DEFAULT_LOCK_WAIT}`,
      '--no-password',
    ],
    environment: { ...libpqEnvironment(target), PGAPPNAME: sessionNames(request).dump },
    signal: request.signal,
    redactor: request.redactor,
  });
  try {
    const counter = new ByteCounter();
    open.report.update({ phase: 'dump' });
    open.report.watch(counter);
    const stored = await request.store.upload(
      backupKeys(request.folder, request.step).dump,
      encrypted(counter.count(running.stdout), request.recipients),
      {
        partSize: partSizeFor(open.database.sizeBytes),
        signal: request.signal,
        progress: (bytes) => open.report.update({ stored: bytes }),
      },
    );
    return { bytes: counter.bytes, sha256: counter.digest(), stored };
  } catch (error) {
    if (error instanceof ProcessFailed) throw dumpFailure(error, target);
    throw error;
  } finally {
    await running.stop().catch(() => undefined);
  }
}

function requireOwnMajor(pgDump: PostgresProgram, database: DatabaseIdentity, target: ConnectionTarget): void {
  if (pgDump.major === database.serverMajor) return;
  throw new StepError(
    STEP_ERRORS.refused,
    `pg_dump is version ${pgDump.version}, ${describeTarget(target)} runs PostgreSQL ${database.serverVersion}: use the programs of the server's own major version (postgresPrograms in the profile).`,
  );
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

interface ProgressReporter {
  readonly update: (change: Partial<BackupProgress>) => void;
  readonly watch: (dump: ByteCounter) => void;
  readonly stop: () => void;
}

const PROGRESS_INTERVAL = 500;

function progressReporter(request: BackupRequest, database: DatabaseIdentity): ProgressReporter {
  let dump: ByteCounter | undefined;
  let now: BackupProgress = {
    phase: 'snapshot',
    dumped: 0,
    stored: 0,
    databaseSize: database.sizeBytes,
    share: 0,
    countedTables: 0,
    tables: 0,
  };
  const tell = (): void => request.progress({ ...now, dumped: dump?.bytes ?? 0 });
  const timer = setInterval(tell, PROGRESS_INTERVAL);
  tell();
  return {
    update: (change) => {
      now = { ...now, ...change };
    },
    watch: (counter) => {
      dump = counter;
    },
    stop: () => clearInterval(timer),
  };
}
