import { type Client, escapeLiteral } from 'pg';
import { refusal } from '../../contract/errors.ts';
import { sqlState } from '../database-error.ts';
import { sqlName } from '../identifier.ts';
import { readServerMajor } from '../server-version.ts';

/**
 * Makes sure that every role a backup names exists on this server, so that owners and rights come back as they were. What
 * is missing is created without login and without password, and stays: another copy may need it, and nobody can use it.
 *
 * @param client of the administrator of a server that is not production
 * @returns the roles that were created
 * @throws StepError `StepRefused` with what is in the way
 */
export async function ensurePlaceholderRoles(client: Client, roles: readonly string[]): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT name FROM unnest($1::text[]) AS name
     WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) ORDER BY name COLLATE "C"`,
    [roles],
  );
  const missing = rows.map(({ name }) => name);
  const findings: string[] = [];
  for (const name of missing) {
    try {
      // In one message, and so in one transaction: without its comment it would be taken for somebody's own.
      await client.query(
        `CREATE ROLE ${sqlName(name)} NOLOGIN; COMMENT ON ROLE ${sqlName(name)} IS ${escapeLiteral(PLACEHOLDER)}`,
      );
    } catch (error) {
      const state = sqlState(error);
      if (state !== undefined && MADE_BY_ANOTHER.has(state)) continue;
      // Anything else, such as a lock that is not to be had, may pass.
      if (state === undefined || !FORBIDDEN.has(state)) throw error;
      findings.push(`role "${name}" is missing and cannot be created (${textOf(error)})`);
    }
  }
  if (findings.length > 0) {
    throw refusal([
      ...findings,
      'the administrator of the scratch server needs CREATEROLE, or create the roles there: CREATE ROLE name NOLOGIN',
    ]);
  }
  await joinRoles(client, roles);
  return missing;
}

/**
 * SQLSTATEs of a role or membership that another copy, made at the same time, has made: already there, or, where both began
 * before either had committed, a duplicate key of the catalog.
 */
const MADE_BY_ANOTHER: ReadonlySet<string> = new Set(['42710', '23505']);

/** SQLSTATEs of a missing right and of a reserved name. */
const FORBIDDEN: ReadonlySet<string> = new Set(['42501', '42939']);

/** Comment of every placeholder. */
export const PLACEHOLDER =
  'Placeholder made by migration-runbook: owns and is granted what a role of production does, in copies of its databases.';

/**
 * Who restores must be able to act as each owner. A role that does not let itself be granted may own nothing; where it does,
 * pg_restore names it.
 */
async function joinRoles(client: Client, roles: readonly string[]): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT r.rolname AS "name" FROM pg_roles r, pg_roles me
     WHERE me.rolname = current_user AND NOT me.rolsuper AND r.rolname = ANY ($1) AND r.rolname <> current_user
       AND r.rolname !~ '^pg_' AND NOT r.rolsuper AND NOT pg_has_role(r.oid, ${await settable(client)})
     ORDER BY 1`,
    [roles],
  );
  for (const { name } of rows) {
    await client.query(`GRANT ${sqlName(name)} TO CURRENT_USER`).catch((error: unknown) => {
      const state = sqlState(error);
      if (state !== '42501' && (state === undefined || !MADE_BY_ANOTHER.has(state))) throw error;
    });
  }
}

/** Since PostgreSQL 16 a member may lack the right to act as the role. */
async function settable(client: Client): Promise<"'SET'" | "'MEMBER'"> {
  return (await readServerMajor(client)) >= 16 ? "'SET'" : "'MEMBER'";
}

const textOf = (error: unknown): string => (error instanceof Error ? error.message.slice(0, 200) : 'unknown reason');
