import type { Client } from 'pg';
import { refusal } from '../contract/errors.ts';
import type { ImitatedRole } from './scratch-world.ts';

/**
 * How a login role of production acts in the production database.
 *
 * @param client in the production database, of any role: only catalogs are read
 * @throws StepError `StepRefused` when there is no such role
 */
export async function readImitatedRole(
  client: Client,
  { part, name }: Pick<ImitatedRole, 'part' | 'name'>,
): Promise<ImitatedRole> {
  const settings = await readSettings(client, name);
  const actsAs = settings.find((setting) => setting.name === 'role')?.value ?? name;
  const { rows } = await client.query<{ attributes: string[] }>(
    `SELECT array_remove(ARRAY[CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
                               CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
                               CASE WHEN rolreplication THEN 'REPLICATION' END], NULL) AS "attributes"
     FROM pg_roles WHERE rolname = $1`,
    [actsAs],
  );
  if (rows[0] === undefined) throw refusal([`role "${actsAs}" does not exist in production`]);
  const memberships = await readMemberships(client, name);
  return {
    part,
    name,
    actsAs,
    settings: settings.filter((setting) => !LEFT_OUT.includes(setting.name)),
    memberships,
    databaseRights: await readDatabaseRights(client, actsAs),
    attributes: rows[0].attributes,
  };
}

/** Given by other means, or the fence's. */
const LEFT_OUT = ['role', 'default_transaction_read_only'];

/** Of the role in this database, of the role, of the database, of the server: the first that says something about a name holds. */
async function readSettings(client: Client, role: string): Promise<ImitatedRole['settings']> {
  const { rows } = await client.query<ImitatedRole['settings'][number]>(
    `SELECT DISTINCT ON (given.name) given.name, given.value
     FROM pg_db_role_setting s, LATERAL (
       SELECT lower(split_part(entry, '=', 1)) AS "name", substr(entry, strpos(entry, '=') + 1) AS "value" FROM unnest(s.setconfig) entry) given
     WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
       AND s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = $1))
     ORDER BY given.name, s.setrole = 0, s.setdatabase = 0`,
    [role],
  );
  return rows;
}

/** Since PostgreSQL 16 a membership says whether rights are inherited and whether the role may be set. */
async function readMemberships(client: Client, role: string): Promise<ImitatedRole['memberships']> {
  const { rows } = await client.query<ImitatedRole['memberships'][number]>(
    `WITH RECURSIVE above (roleid, member) AS (
       SELECT m.roleid, m.member FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = $1
       UNION SELECT m.roleid, m.member FROM pg_auth_members m JOIN above a ON a.roleid = m.member)
     SELECT g.rolname AS "role", u.rolname AS "member",
            bool_or(coalesce((to_jsonb(m)->>'inherit_option')::boolean, u.rolinherit)) AS "inherit",
            bool_or(coalesce((to_jsonb(m)->>'set_option')::boolean, true)) AS "set"
     FROM above a JOIN pg_auth_members m ON m.roleid = a.roleid AND m.member = a.member
     JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles u ON u.oid = a.member
     GROUP BY g.rolname, u.rolname ORDER BY u.rolname COLLATE "C", g.rolname COLLATE "C"`,
    [role],
  );
  return rows;
}

async function readDatabaseRights(client: Client, role: string): Promise<string[]> {
  const { rows } = await client.query<{ right: string }>(
    `SELECT word AS "right" FROM unnest(ARRAY['CREATE', 'TEMPORARY']) AS word
     WHERE has_database_privilege($1, current_database(), word)`,
    [role],
  );
  return rows.map(({ right }) => right);
}
