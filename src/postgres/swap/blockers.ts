import type { Client } from 'pg';
import { describeSession, listSessions } from '../sessions.ts';

/**
 * What stands in the way of putting a restored database in the place of this one, seen before anything is shut out.
 *
 * @param client of the administrator, in the maintenance database
 * @returns findings, in words; empty = nothing
 */
export async function findSwapBlockers(client: Client, database: string): Promise<string[]> {
  return [
    ...(await properties(client, database)),
    ...(await missingSynchronousStandby(client)),
    ...(await findPreparedTransactions(client, database)),
    ...(await logicalReplication(client, database)),
    ...(await untouchableSessions(client, database)),
    ...(await backgroundWorkers(client, database)),
  ];
}

async function properties(client: Client, database: string): Promise<string[]> {
  const { rows } = await client.query<{ template: boolean; limit: number; own: boolean }>(
    `SELECT datistemplate AS "template", datconnlimit AS "limit", datname = current_database() AS "own"
     FROM pg_database WHERE datname = $1`,
    [database],
  );
  const found = rows[0];
  if (found === undefined) return [`there is no database "${database}"`];
  return [
    ...(found.own
      ? [`database "${database}" is the maintenance database itself: renaming needs another one (maintenanceDatabase)`]
      : []),
    ...(found.template
      ? [
          `database "${database}" is a template (IS_TEMPLATE), of which copies may be made at any time: ALTER DATABASE ... IS_TEMPLATE false`,
        ]
      : []),
    ...(found.limit === 0
      ? [`database "${database}" has a connection limit of 0: nobody but a superuser could look at what was restored`]
      : []),
    ...(found.limit === -2 ? [`database "${database}" is invalid: a DROP DATABASE of it was interrupted`] : []),
  ];
}

/** The commits of the swap wait for a synchronous standby as any other; without one they would wait with the door closed. */
async function missingSynchronousStandby(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ names: string; present: boolean }>(
    `SELECT current_setting('synchronous_standby_names') AS "names",
            EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') AND state = 'streaming') AS "present"
     WHERE current_setting('synchronous_commit') NOT IN ('off', 'local')`,
  );
  return rows
    .filter(({ names, present }) => names !== '' && !present)
    .map(
      ({ names }) =>
        `commits wait for a synchronous standby (synchronous_standby_names = '${names}') and none is streaming: bring it back`,
    );
}

/** They hold locks without a session, and a database that has any cannot be renamed. */
export async function findPreparedTransactions(client: Client, database: string): Promise<string[]> {
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

/** What people and replication are; everything else that sits in a database is a worker of an extension. */
const ORDINARY_BACKENDS = [
  'client backend',
  'autovacuum worker',
  'parallel worker',
  'walsender',
  'background worker',
  'logical replication worker',
  'logical replication apply worker',
  'logical replication parallel worker',
  'logical replication tablesync worker',
];

async function backgroundWorkers(client: Client, database: string): Promise<string[]> {
  const { rows } = await client.query<{ pid: number; kind: string }>(
    `SELECT a.pid, a.backend_type AS "kind" FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
     WHERE a.datname = $1 AND a.backend_type <> ALL ($2) AND coalesce(r.rolsuper, true)
       AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
     ORDER BY a.pid`,
    [database, ORDINARY_BACKENDS],
  );
  return rows.map(
    ({ pid, kind }) =>
      `an extension's background worker sits in database "${database}" (${kind}, pid ${pid}), which the administrator cannot end: stop it`,
  );
}
