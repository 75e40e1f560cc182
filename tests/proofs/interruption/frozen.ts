/** Processes of the database server, stopped for a moment by their pids. What they were at stays as it is. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Client } from 'pg';
import type { PostgresServer } from '../../../scripts/stack/connection.ts';

export interface Frozen {
  /** Lets it go on; may be called again. */
  readonly thaw: () => void;
}

/** @throws Error when there is no such process */
export function freeze(pid: number): Frozen {
  process.kill(pid, 'SIGSTOP');
  return {
    thaw: () => {
      try {
        process.kill(pid, 'SIGCONT');
      } catch (error) {
        if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
      }
    },
  };
}

/** The server's main process: what is connected goes on, nobody new gets in. */
export async function freezePostmaster({ dataDirectory }: PostgresServer): Promise<Frozen> {
  const [pid] = (await readFile(path.join(dataDirectory, 'postmaster.pid'), 'utf8')).split('\n');
  return freeze(Number(pid));
}

export interface Copying {
  readonly pid: number;
  readonly database: string;
  readonly bytes: number;
}

/**
 * A `COPY` under way in a database whose name begins so, that has moved at least this many bytes.
 *
 * @param client a superuser, of any database
 */
export async function copying(
  client: Client,
  wanted: {
    readonly command: 'COPY TO' | 'COPY FROM';
    readonly database: string;
    readonly bytes: number;
    /** By a session that connected later than this: not by one that an attempt before has left. */
    readonly since?: Date;
  },
): Promise<Copying | undefined> {
  const { rows } = await client.query<Copying>(
    `SELECT p.pid, p.datname AS "database", p.bytes_processed::float8 AS "bytes"
     FROM pg_stat_progress_copy p JOIN pg_stat_activity a USING (pid)
     WHERE p.command = $1 AND starts_with(p.datname, $2) AND p.bytes_processed >= $3
       AND a.application_name LIKE 'migration-runbook/%' AND a.backend_start > coalesce($4::timestamptz, '-infinity') LIMIT 1`,
    [wanted.command, wanted.database, wanted.bytes, wanted.since ?? null],
  );
  return rows[0];
}
