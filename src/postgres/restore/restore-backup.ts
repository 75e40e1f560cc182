import { tmpdir } from 'node:os';
import type { Client } from 'pg';
import type { RestoreEvidence } from '../../contract/evidence/restore.ts';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import type { Redactor } from '../../process/redactor.ts';
import { applicationName, type ConnectionOptions, withConnection, withSessions } from '../connection.ts';
import { type ConnectionTarget, parseConnectionUrl } from '../connection-url.ts';
import { type IndexBuild, watchIndexBuilds } from '../catalog/index-builds.ts';
import { compareWithLedger, type Isolation, type RestoreLedger } from './restore-compare.ts';
import { fillDatabase } from './restore-programs.ts';

export interface RestoreBackupRequest {
  /** libpq URL, resolved, or its parts: leads to a database that exists and is empty. Of a role that may become every owner. */
  readonly target: string | ConnectionTarget;
  /** First run id of the workflow. */
  readonly runId: string;
  readonly step: string;
  /** What the backup recorded in its own snapshot. */
  readonly ledger: RestoreLedger;
  /** The decrypted and decompressed custom-format dump; throws, rather than ends, when it is not whole. */
  readonly openBackup: () => AsyncIterable<Uint8Array>;
  /** Bytes of the dump, for the progress. */
  readonly dumpBytes: number;
  /** Sessions that build indexes and constraints, and that compare. */
  readonly jobs: number;
  /** Of the server's own major version. */
  readonly pgRestore: { readonly file: string };
  /** Where a folder of mode 0700 is made for the dump's contents list: definitions, no rows. @default the system's folder for temporary files */
  readonly scratchParent?: string;
  readonly redactor: Redactor;
  readonly signal: AbortSignal;
  readonly progress: (progress: RestoreProgress) => void;
  /**
   * Cuts the copy off from the rest of the world, for a server where it must reach nobody: called when the rows are there, before
   * anything that could reach out is restored. Default: it is left as it is, to take production's place.
   */
  readonly isolate?: (client: Client) => Promise<Isolation>;
}

/** Small and flat enough for a heartbeat. */
export interface RestoreProgress {
  readonly phase: 'prepare' | 'data' | 'indexes' | 'compare';
  /** Of the dump. */
  readonly bytes: number;
  readonly of: number;
  /** Between 0 and 1: of the phase `data` by bytes, of `indexes` by items, of `compare` by tables. */
  readonly share: number;
  /** The table under way. */
  readonly table?: string;
  /** What is being built, and how far the server is with it. */
  readonly building?: string;
}

/** What a restore and its comparison found. Milliseconds. */
export type RestoredBackup = Omit<RestoreEvidence, 'freshDatabase'>;

/**
 * Fills an empty database from a backup and compares it with the backup's ledger (`fillDatabase`, `compareWithLedger`). What a
 * dump does not hold because it belongs to the database as a whole - its own rights, settings, comment - is left to the caller.
 *
 * Killed at any point it leaves a database that is worth nothing: to repeat it, drop that and give it a new one.
 *
 * @throws StepError `StateUnexpected` when the database is not empty; `ProcessFailed` with what pg_restore said;
 * `CheckFailed` when the copy is not what was backed up; whatever the stream throws
 */
export async function restoreBackup(request: RestoreBackupRequest): Promise<RestoredBackup> {
  const started = performance.now();
  const target = typeof request.target === 'string' ? parseConnectionUrl(request.target) : request.target;
  const { dumpBytes, step, runId, signal } = request;
  const progress = (phase: RestoreProgress['phase'], details: Partial<RestoreProgress> = {}): void =>
    request.progress({
      phase,
      bytes: dumpBytes,
      of: dumpBytes,
      ...details,
      share: Math.round((details.share ?? 0) * 1000) / 1000,
    });
  // Restoring and reading take as long as they take: the step's own time limit bounds them.
  const session: ConnectionOptions = { runId, step, signal, statementTimeout: 0, lockTimeout: 0, idleTimeout: 0 };

  const { isolate } = request;
  let isolation: Isolation | undefined;
  const filled = await withConnection(target, session, async (client) => {
    await requireEmpty(client, target.database);
    let builds: readonly IndexBuild[] = [];
    const watch = watchIndexBuilds(client, (found) => {
      builds = found;
    });
    try {
      return await fillDatabase({
        ...request,
        target,
        application: applicationName(runId, step),
        scratchParent: request.scratchParent ?? tmpdir(),
        ...(isolate && {
          beforeIndexes: async () => {
            isolation = await withConnection(target, session, isolate);
            return isolation.leaveOut;
          },
        }),
        progress: (now) => {
          if (now.phase === 'data') {
            const share = dumpBytes === 0 ? 0 : Math.min(1, now.bytes / dumpBytes);
            progress('data', { bytes: now.bytes, share, ...(now.table === '' ? {} : { table: now.table }) });
          } else {
            const building = [...now.building, ...builds.map(describeBuild)].join('; ');
            progress('indexes', { share: now.done / now.of, building });
          }
        },
      });
    } finally {
      await watch.stop();
    }
  });

  const compareStarted = performance.now();
  progress('compare');
  const compared = await withConnection(target, session, (catalog) =>
    withSessions(target, session, request.jobs, (readers) =>
      compareWithLedger(
        { catalog, readers },
        request.ledger,
        target.database,
        (table, done, of) => progress('compare', { share: done / of, table }),
        isolation,
      ),
    ),
  );
  const ended = performance.now();
  return {
    ...compared,
    milliseconds: Math.round(ended - started),
    timings: { ...filled, compare: Math.round(ended - compareStarted) },
  };
}

const describeBuild = ({ table, phase, share }: IndexBuild): string =>
  `${table}: ${phase}${share === null ? '' : ` ${Math.floor(share * 100)} %`}`;

async function requireEmpty(client: Client, database: string): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT format('%I.%I', n.nspname, c.relname) AS "name" FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
     UNION ALL SELECT format('schema %I', nspname) FROM pg_namespace
     WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
     LIMIT 3`,
  );
  if (rows.length === 0) return;
  throw new StepError(
    STEP_ERRORS.stateUnexpected,
    `database "${database}" is not empty (${rows.map(({ name }) => name).join(', ')}): a backup is restored into an empty one only`,
  );
}
