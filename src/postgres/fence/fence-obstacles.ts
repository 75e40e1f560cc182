import type { Client } from 'pg';
import { qualifiedName } from '../identifier.ts';
import { readServerMajor } from '../server-version.ts';
import { describeSession, listSessions } from '../sessions.ts';

/**
 * What a fence would not hold, and what the administrator may not do to raise it: all of it.
 *
 * @param client of the administrator, in the maintenance database
 * @returns findings, in words; empty = nothing
 */
export async function fenceObstacles(
  client: Client,
  { database, roles }: { readonly database: string; readonly roles: readonly string[] },
): Promise<string[]> {
  return [
    ...(await findMissingFenceRights(client, database, roles)),
    ...(await preparedTransactions(client, database)),
    ...(await subscriptions(client, database)),
    ...(await untouchableSessions(client, database)),
  ];
}

/** May the administrator set `default_transaction_read_only` for this database, and for these roles in it? */
export async function findMissingFenceRights(
  client: Client,
  database: string,
  roles: readonly string[],
): Promise<string[]> {
  const { rows } = await client.query<{ asking: string; owner: string; owns: boolean }>(
    `SELECT session_user AS "asking", pg_get_userbyid(datdba) AS "owner", pg_has_role(datdba, 'USAGE') AS "owns"
     FROM pg_database WHERE datname = $1`,
    [database],
  );
  const facts = rows[0];
  if (facts === undefined) return [`database "${database}" does not exist`];
  const { asking, owner, owns } = facts;
  const major = await readServerMajor(client);
  const found = await client.query<{ role: string; exists: boolean; superuser: boolean; may: boolean }>(
    // Until PostgreSQL 15 CREATEROLE reached every role but superusers.
    `SELECT given.role, r.oid IS NOT NULL AS "exists", coalesce(r.rolsuper, false) AS "superuser",
            me.rolsuper OR r.rolname = session_user
              OR (NOT r.rolsuper AND me.rolcreaterole
                  AND ($2 < 16 OR pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION'))) AS "may"
     FROM unnest($1::text[]) AS given(role) JOIN pg_roles me ON me.rolname = session_user
     LEFT JOIN pg_roles r ON r.rolname = given.role
     ORDER BY 1`,
    [roles, major],
  );
  return [
    ...(owns
      ? []
      : [
          `administrator "${asking}" may not fence database "${database}": GRANT ${qualifiedName(owner)} TO ${qualifiedName(asking)}`,
        ]),
    ...found.rows.flatMap(({ role, exists, superuser, may }) => {
      if (!exists) return [`role "${role}" does not exist`];
      if (may) return [];
      return superuser
        ? [
            `role "${role}" is a superuser, whose settings administrator "${asking}" may not change: the fence would not hold it`,
          ]
        : [
            `administrator "${asking}" may not change settings of role "${role}": ALTER ROLE ${qualifiedName(asking)} CREATEROLE${major < 16 ? '' : `; GRANT ${qualifiedName(role)} TO ${qualifiedName(asking)} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`}`,
          ];
    }),
  ];
}

/** COMMIT PREPARED is allowed in a read-only transaction, and brings in what was written before. */
async function preparedTransactions(client: Client, database: string): Promise<string[]> {
  const { rows } = await client.query<{ gid: string; owner: string }>(
    'SELECT gid, owner FROM pg_prepared_xacts WHERE database = $1 ORDER BY prepared',
    [database],
  );
  return rows.map(
    ({ gid, owner }) =>
      `prepared transaction '${gid}' of role "${owner}" could be committed behind the fence: COMMIT PREPARED or ROLLBACK PREPARED it`,
  );
}

/** An apply worker writes whatever the setting says. */
async function subscriptions(client: Client, database: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT s.subname AS "name" FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
     WHERE d.datname = $1 AND s.subenabled ORDER BY 1`,
    [database],
  );
  return rows.map(
    ({ name }) => `subscription "${name}" writes behind the fence: ALTER SUBSCRIPTION ${qualifiedName(name)} DISABLE`,
  );
}

/** A superuser's session is ended by a superuser only, and until it ends it writes. */
async function untouchableSessions(client: Client, database: string): Promise<string[]> {
  const { rows } = await client.query<{ superuser: boolean }>(
    'SELECT rolsuper AS "superuser" FROM pg_roles WHERE rolname = current_user',
  );
  if (rows[0]!.superuser) return [];
  return (await listSessions(client, { database }))
    .filter(({ superuser, backendType }) => superuser && backendType !== 'walsender')
    .map(
      (session) =>
        `sessions remain that could write: a superuser is connected to database "${database}" (${describeSession(session)}), whom the administrator cannot end: close that session`,
    );
}
