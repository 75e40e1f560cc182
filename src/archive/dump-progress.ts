import type { Client } from 'pg';
import type { BackupManifest } from '../contract/evidence/backup.ts';
import type { DatabaseIdentity } from '../contract/evidence/production.ts';
import type { ByteCounter } from './byte-counter.ts';

/** Told about twice a second while a backup runs. Sizes in bytes. */
export interface BackupProgress {
  readonly phase: 'snapshot' | 'dump';
  /** Before compression. */
  readonly dumped: number;
  /** Estimated, before compression. */
  readonly expected: number;
  /** Compressed, encrypted and taken by the store. */
  readonly stored: number;
  /** Of the expected size, 0 to 0.99: it is whole only when it is whole. */
  readonly share: number;
  /** Of the ledger. */
  readonly countedTables: number;
  readonly tables: number;
  /** ISO 8601: since when the store has not answered; absent while it does. */
  readonly storeSilentSince?: string;
}

/**
 * Bytes a dump will have, about: as large in proportion as the last one was; without one, as large as the tables are on
 * disk, for text takes about the room that rows take, and indexes are not dumped.
 */
export async function expectedDumpBytes(
  client: Client,
  database: DatabaseIdentity,
  last: BackupManifest | undefined,
): Promise<number> {
  const before = last?.backup;
  if (before !== undefined && before.database.database === database.database && before.database.sizeBytes > 0) {
    return Math.round(before.dumpBytes * (database.sizeBytes / before.database.sizeBytes));
  }
  const { rows } = await client.query<{ bytes: string }>(
    `SELECT coalesce(sum(pg_table_size(c.oid)), 0) AS bytes
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`,
  );
  return Number(rows[0]!.bytes);
}

const INTERVAL = 500;
const MOST = 0.99;

export class DumpProgress {
  readonly #tell: (progress: BackupProgress) => void;
  readonly #timer: NodeJS.Timeout;
  #dump: ByteCounter | undefined;
  #now: Omit<BackupProgress, 'dumped' | 'share'> = {
    phase: 'snapshot',
    expected: 0,
    stored: 0,
    countedTables: 0,
    tables: 0,
  };

  constructor(tell: (progress: BackupProgress) => void) {
    this.#tell = tell;
    this.#timer = setInterval(() => this.#report(), INTERVAL);
    this.#report();
  }

  update(change: Partial<Omit<BackupProgress, 'dumped' | 'share'>>): void {
    this.#now = { ...this.#now, ...change };
  }

  storeSilent(since: Date | undefined): void {
    const { storeSilentSince: _, ...rest } = this.#now;
    this.#now = since === undefined ? rest : { ...rest, storeSilentSince: since.toISOString() };
  }

  watch(dump: ByteCounter): void {
    this.#dump = dump;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #report(): void {
    const dumped = this.#dump?.bytes ?? 0;
    const { expected } = this.#now;
    const share = expected > 0 ? Math.min(MOST, Math.round((dumped / expected) * 1000) / 1000) : 0;
    this.#tell({ ...this.#now, dumped, share });
  }
}
