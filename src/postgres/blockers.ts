import type { Client } from 'pg';
import { describeSession, listSessions } from './sessions.ts';

/**
 * What stands in the way of putting a restored database in the place of this one, seen before anything is shut out.
 *
 * @param client of the administrator, in any database of the server
 * @returns findings, in words; empty = nothing
 */
export async function findSwapBlockers(client: Client, database: string): Promise<string[]> {
  return [
    ...(await prepared(client, database)),
    ...(await logicalReplication(client, database)),
    ...(await untouchableSessions(client, database)),
  ];
}

/** They hold locks without a session, and a database that has any cannot be renamed. */
async function prepared(client: Client, database: string): Promise<string[]> {
  const { rows } = await client.query<{ gid: string; owner: string; age: string }>(
    `SELECT gid, owner, date_trunc('second', clock_timestamp() - prepared)::text AS "age"
     FROM pg_prepared_xacts WHERE database = $1 ORDER BY prepared`,
    [database],
  );
  return rows.map(
    ({ gid, owner, age }) =>
      `prepared transaction '${gid}' of role "${owner}" (${age} old) in database "${database}": COMMIT PREPARED or ROLLBACK PREPARED it`,
  );
}

/** They stay with the database that is put aside, and whoever reads them would go on reading there. */
async function logicalReplication(client: Client, database: string): Promise<string[]> {
  const slots = await client.query<{ name: string; plugin: string; active: boolean }>(
    `SELECT slot_name AS "name", plugin, active FROM pg_replication_slots
     WHERE slot_type = 'logical' AND database = $1 AND NOT temporary ORDER BY 1`,
    [database],
  );
  const subscriptions = await client.query<{ name: string }>(
    `SELECT s.subname AS "name" FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = $1 ORDER BY 1`,
    [database],
  );
  return [
    ...slots.rows.map(
      ({ name, plugin, active }) =>
        `logical replication slot "${name}" (${plugin}, ${active ? 'in use' : 'not in use'}) of database "${database}" would stay with the old database: drop it and make it anew afterwards`,
    ),
    ...subscriptions.rows.map(
      ({ name }) =>
        `subscription "${name}" of database "${database}" would stay with the old database: drop it and make it anew afterwards`,
    ),
  ];
}

/** A superuser's session is ended by a superuser only. */
async function untouchableSessions(client: Client, database: string): Promise<string[]> {
  const { rows } = await client.query<{ superuser: boolean }>(
    'SELECT rolsuper AS "superuser" FROM pg_roles WHERE rolname = current_user',
  );
  if (rows[0]!.superuser) return [];
  return (await listSessions(client, { database }))
    .filter(({ superuser }) => superuser)
    .map(
      (session) =>
        `a superuser is connected to database "${database}" (${describeSession(session)}), whom the administrator cannot end: close that session`,
    );
}
