import { randomInt } from 'node:crypto';
import type { Client } from 'pg';
import { refusal } from '../contract/errors.ts';
import type { DatabaseIdentity } from '../contract/evidence/production.ts';

/** Who the database behind this connection is. `pg_control_system()` needs no privilege. */
export async function readIdentity(client: Client): Promise<DatabaseIdentity> {
  const { rows } = await client.query<Omit<DatabaseIdentity, 'sizeBytes'> & { sizeBytes: string }>(
    `SELECT s.system_identifier::text AS "systemIdentifier",
            d.datname AS "database",
            d.oid::int8::float8 AS "oid",
            c.timeline_id AS "timeline",
            current_setting('server_version') AS "serverVersion",
            current_setting('server_version_num')::int / 10000 AS "serverMajor",
            pg_encoding_to_char(d.encoding) AS "encoding",
            pg_database_size(d.oid)::text AS "sizeBytes"
     FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d
     WHERE d.datname = current_database()`,
  );
  const row = rows[0]!;
  return { ...row, sizeBytes: Number(row.sizeBytes) };
}

/** @throws StepError `StepRefused` where a backup of that database is not one of this */
export async function refuseForeignBackup(
  client: Client,
  backedUp: Pick<DatabaseIdentity, 'systemIdentifier' | 'database'>,
): Promise<void> {
  const { systemIdentifier, database } = await readIdentity(client);
  if (systemIdentifier === backedUp.systemIdentifier && database === backedUp.database) return;
  throw refusal([
    `the backup was taken of database "${backedUp.database}" of system ${backedUp.systemIdentifier}, production is "${database}" of system ${systemIdentifier}`,
  ]);
}

export const isInRecovery = async (client: Client): Promise<'primary' | 'standby'> => {
  const { rows } = await client.query<{ standby: boolean }>('SELECT pg_is_in_recovery() AS standby');
  return rows[0]!.standby ? 'standby' : 'primary';
};

/** Namespace of the probe's advisory locks, apart from that of the migration lock. */
const PROBE = 0x6d72_7062;

/**
 * Are two connections in one and the same database? System identifier and name are equal for physical clones as well, so
 * on a match a lock is taken on the first and looked for from the second: only the same server shows it.
 */
export async function isSameDatabase(first: Client, second: Client): Promise<boolean> {
  const [one, other] = [await readIdentity(first), await readIdentity(second)];
  if (one.systemIdentifier !== other.systemIdentifier || one.database !== other.database) return false;
  const key = randomInt(2 ** 31 - 1);
  await first.query('SELECT pg_advisory_lock($1, $2)', [PROBE, key]);
  try {
    const { rows } = await second.query(
      `SELECT FROM pg_locks
       WHERE locktype = 'advisory' AND classid::int8 = $1 AND objid::int8 = $2 AND objsubid = 2
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      [PROBE, key],
    );
    return rows.length > 0;
  } finally {
    await first.query('SELECT pg_advisory_unlock($1, $2)', [PROBE, key]);
  }
}
