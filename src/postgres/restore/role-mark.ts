/** Login roles that a run makes on the scratch server carry the same mark as its databases do. */
import { type Client, escapeLiteral } from 'pg';
import { sqlName } from '../identifier.ts';
import { type DatabaseMark, databaseMark, parseDatabaseMark } from './database-mark.ts';

export interface MarkedRole {
  readonly name: string;
  readonly oid: number;
  readonly mark: DatabaseMark;
}

/** Writes the mark as the role's comment. */
export async function markRole(client: Client, name: string, mark: DatabaseMark): Promise<void> {
  const { rows } = await client.query<{ oid: number }>(
    'SELECT oid::int8::float8 AS "oid" FROM pg_roles WHERE rolname = $1',
    [name],
  );
  await client.query(`COMMENT ON ROLE ${sqlName(name)} IS ${escapeLiteral(databaseMark(mark, rows[0]?.oid))}`);
}

/** Roles of this server that carry a mark of their own, by name. */
export async function listMarkedRoles(client: Client): Promise<MarkedRole[]> {
  const { rows } = await client.query<{ name: string; oid: number; comment: string }>(
    `SELECT rolname AS "name", oid::int8::float8 AS "oid", shobj_description(oid, 'pg_authid') AS "comment"
     FROM pg_roles WHERE strpos(shobj_description(oid, 'pg_authid'), '[migration-runbook/mark/1 ') > 0
     ORDER BY rolname COLLATE "C"`,
  );
  return rows.flatMap(({ comment, ...role }) => {
    const mark = parseDatabaseMark(comment, role.oid);
    return mark === undefined ? [] : [{ ...role, mark }];
  });
}

/**
 * Drops a role that was made for a run. What it owns or is granted goes with the run's databases: drop those first.
 *
 * @throws when something still depends on it
 */
export async function dropMarkedRole(client: Client, name: string): Promise<void> {
  await client.query(`DROP ROLE IF EXISTS ${sqlName(name)}`);
}
