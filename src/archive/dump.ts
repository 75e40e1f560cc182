import type { Client } from 'pg';
import type { BackupEvidence, BackupManifest } from '../contract/evidence/backup.ts';
import type { DatabaseIdentity } from '../contract/evidence/production.ts';
import type { AlembicProfile } from '../contract/profile.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { applicationName, type OpenConnection, withConnection } from '../postgres/connection.ts';
import { type ConnectionTarget, describeTarget } from '../postgres/connection-url.ts';
import { readIdentity } from '../postgres/identity.ts';
import { readCounters, type TableCounters } from '../postgres/contents/write-counters.ts';
import type { Redactor } from '../process/redactor.ts';
import { attemptName, type BackupKeys, backupKeys } from './backup-names.ts';
import { COMPRESSION } from './compression.ts';
import { type BackupProgress, DumpProgress, expectedDumpBytes } from './dump-progress.ts';
import { type StoredDump, storeDump } from './dump-stream.ts';
import { ENCRYPTION } from './encryption.ts';
import { type Ledger, readLedger } from './ledger.ts';
import { writeManifest } from './manifest.ts';
import { ownership } from './object-owner.ts';
import type { ObjectStore } from './object-store.ts';
import { TRANSFER_PATIENCE } from './patience.ts';
import type { PostgresProgram } from './programs.ts';
import { type ExportedSnapshot, exportSnapshot } from './snapshot.ts';
import { storeLedger } from './stored-ledger.ts';

export interface BackupRequest {
  /** libpq URL of the backup role, resolved. */
  readonly url: string;
  readonly versionTable: AlembicProfile['versionTable'];
  readonly pgDump: PostgresProgram;
  readonly store: ObjectStore;
  /** See `runFolder`. */
  readonly folder: string;
  /** Whose backup it is. */
  readonly run: Pick<BackupManifest, 'runId' | 'service' | 'releaseTag' | 'changeTicket'>;
  readonly step: string;
  /** From 2 on, what the attempts before have stored is removed once there is a whole backup. @default 1 */
  readonly attempt?: number;
  /** Throws where a later attempt has begun. */
  readonly requireCurrent?: () => Promise<void>;
  readonly recipients: readonly string[];
  /** Bytes, of the profile. @default no sampling */
  readonly sampleAbove?: number;
  /** An earlier backup of the same database, to estimate by. */
  readonly last?: BackupManifest;
  /** Milliseconds pg_dump waits behind others for a lock. @default 10000 */
  readonly lockWait?: number;
  /** Milliseconds a store that does not answer is waited for, with each part. @default 90000 */
  readonly patience?: number;
  readonly redactor: Redactor;
  readonly signal: AbortSignal;
  readonly progress: (progress: BackupProgress) => void;
}

/**
 * Milliseconds pg_dump waits for its own locks. The tables are locked already by the session beside it, so it waits only
 * behind somebody who queues for ACCESS EXCLUSIVE - who in turn waits for that session: without a limit all three would
 * wait for ever, and no deadlock detector sees it.
 */
const DEFAULT_LOCK_WAIT = 10_000;

/**
 * Takes a backup: a custom-format dump, compressed, encrypted and streamed to the object store, and its ledger, both from one
 * snapshot; then the manifest that makes them a backup. Nothing touches a disk here. A further attempt stores under names of its
 * own and then removes what earlier ones have stored; at no time does a manifest stand beside a dump it does not speak of.
 */
export async function captureDump(request: BackupRequest): Promise<BackupEvidence> {
  const { run, step, attempt = 1 } = request;
  // If the dump fails, the statement that reads the ledger is stopped, on the server too.
  const failed = new AbortController();
  const signal = AbortSignal.any([request.signal, failed.signal]);
  const progress = new DumpProgress(request.progress);
  const store = request.store.patient({
    milliseconds: request.patience ?? TRANSFER_PATIENCE,
    silent: (since) => progress.storeSilent(since),
  });
  const session = {
    runId: run.runId,
    step,
    signal,
    // The exporting session must live as long as the dump, however long that takes.
    statementTimeout: 0,
    lockTimeout: 0,
    idleTimeout: 0,
  };
  try {
    const name = attemptName(step, attempt);
    const keys = backupKeys(request.folder, name);
    const earlier = Array.from({ length: attempt - 1 }, (_, index) =>
      backupKeys(request.folder, attemptName(step, index + 1)),
    );
    for (const { dump } of [...earlier, keys]) await store.abortUploads(dump, signal);
    const backup = await withConnection(request.url, session, async (client, connection) => {
      const database = await readIdentity(client);
      requireOwnMajor(request.pgDump, database, connection.target);
      await endEarlierAttempts(client, sessionNames(request));
      const counters = await readCounters(client);
      const began = performance.now();
      const snapshot = await exportSnapshot(client, signal);
      const capturedAt = new Date().toISOString();
      progress.update({ expected: await expectedDumpBytes(client, database, request.last) });
      const open = { client, connection, database, snapshot, capturedAt, counters, progress, store, keys, name };
      const parts = await dumpBesideLedger({ ...request, signal }, open, failed);
      return storeRest(request, open, { ...parts, milliseconds: Math.round(performance.now() - began) });
    });
    for (const keysBefore of earlier) await remove(store, keysBefore, signal);
    return backup;
  } finally {
    progress.stop();
  }
}

/** The manifest first, as everywhere: what has none is no backup. What cannot be removed is what a sweep finds. */
async function remove(store: ObjectStore, { manifest, dump, ledger }: BackupKeys, signal: AbortSignal): Promise<void> {
  try {
    for (const key of [manifest, dump, ledger]) await store.delete(key, signal);
  } catch {
    signal.throwIfAborted();
  }
}

interface SessionNames {
  readonly ledger: string;
  readonly dump: string;
}

const sessionNames = ({ run, step }: BackupRequest): SessionNames => ({
  ledger: applicationName(run.runId, step),
  dump: applicationName(run.runId, `${step} pg_dump`),
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
  readonly progress: DumpProgress;
  readonly store: ObjectStore;
  readonly keys: BackupKeys;
  /** See `attemptName`. */
  readonly name: string;
}

interface Captured {
  readonly dump: StoredDump;
  readonly ledger: Ledger;
}

/** The two halves of a backup side by side, for the snapshot holds back vacuum. */
async function dumpBesideLedger(
  request: BackupRequest,
  open: OpenSnapshot,
  dumpFailed: AbortController,
): Promise<Captured> {
  const stop = new AbortController();
  const { run } = request;
  const dumping = storeDump({
    pgDump: request.pgDump,
    target: open.connection.target,
    database: open.database,
    snapshot: open.snapshot.id,
    applicationName: sessionNames(request).dump,
    lockWait: request.lockWait ?? DEFAULT_LOCK_WAIT,
    recipients: request.recipients,
    store: open.store,
    key: open.keys.dump,
    keeping: { as: 'dump', metadata: ownership({ ...run, step: open.name }) },
    beforeReplacing: () => open.store.delete(open.keys.manifest, request.signal),
    redactor: request.redactor,
    signal: AbortSignal.any([request.signal, stop.signal]),
    progress: open.progress,
  });
  dumping.catch((error: unknown) => {
    if (!stop.signal.aborted) dumpFailed.abort(error);
  });
  try {
    const facts = { ...open, versionTable: request.versionTable, sampleAbove: request.sampleAbove ?? Infinity };
    const ledger = readLedger([open.client], facts, (_table, done, of) =>
      open.progress.update({ countedTables: done, tables: of }),
    );
    const [dump, read] = await Promise.all([dumping, ledger]);
    return { dump, ledger: read };
  } catch (error) {
    stop.abort();
    await dumping.catch(() => undefined);
    throw error;
  }
}

async function storeRest(
  request: BackupRequest,
  { store, keys, name: step, database, capturedAt, snapshot }: OpenSnapshot,
  { dump, ledger, milliseconds }: Captured & { readonly milliseconds: number },
): Promise<BackupEvidence> {
  const { run, recipients, signal } = request;
  const whose = { ...run, step };
  const backup: BackupEvidence = {
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
    ledger: await storeLedger(store, keys.ledger, { ledger, recipients, metadata: ownership(whose) }, signal),
    tables: ledger.contents.tables.length,
    rows: ledger.contents.tables.reduce((sum, { rows }) => sum + rows, 0),
    pgDumpVersion: request.pgDump.version,
    compression: COMPRESSION,
    encryption: ENCRYPTION,
    sampledTables: ledger.contents.tables.filter(({ sample }) => sample.kind !== 'all').length,
    largeObjects: ledger.contents.largeObjects.count,
    milliseconds,
    manifest: store.uri(keys.manifest),
  };
  await request.requireCurrent?.();
  await writeManifest(
    store,
    {
      format: 'migration-runbook/backup/1',
      service: run.service,
      releaseTag: run.releaseTag,
      changeTicket: run.changeTicket,
      runId: run.runId,
      step,
      backup,
    },
    signal,
  );
  return backup;
}

function requireOwnMajor(pgDump: PostgresProgram, database: DatabaseIdentity, target: ConnectionTarget): void {
  if (pgDump.major === database.serverMajor) return;
  throw new StepError(
    STEP_ERRORS.refused,
    `pg_dump is version ${pgDump.version}, ${describeTarget(target)} runs PostgreSQL ${database.serverVersion}: use the programs of the server's own major version (postgresPrograms in the profile).`,
  );
}
