/** Logins of the scratch server that act in copies as production's own roles do in production. */
import { randomBytes } from 'node:crypto';
import { type Client, escapeLiteral } from 'pg';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import { settingAssignment } from '../postgres/catalog/database-properties.ts';
import { withConnection } from '../postgres/connection.ts';
import { inDatabase, parseConnectionUrl } from '../postgres/connection-url.ts';
import { sqlState } from '../postgres/database-error.ts';
import { qualifiedName, sqlName } from '../postgres/identifier.ts';
import { ensurePlaceholderRoles, PLACEHOLDER } from '../postgres/restore/placeholder-roles.ts';
import { listMarkedRoles, markRole } from '../postgres/restore/role-mark.ts';
import { copyName, scratchSession } from '../postgres/restore/scratch-copy.ts';
import { scramVerifier } from '../postgres/scram.ts';
import type { ImitatedRole, RehearsalLogin, ScratchWorld } from './scratch-world.ts';

/** `<service>_scratch_<end of the run id>_migrator`. */
export const loginName = ({ service, runId }: ScratchWorld, { part }: Pick<ImitatedRole, 'part'>): string =>
  copyName(service, 'scratch', runId, part);

/**
 * How the migration, or the application, is to connect to a copy: with a login made for the run, with a new password each
 * time, that acts as production's role acts there. What it creates is owned as in production, and the same settings hold.
 *
 * @param copy a database of this run
 * @throws StepError `StepRefused` when it cannot be made to act so
 */
export async function rehearsalTarget(
  world: ScratchWorld,
  { copy, as }: { readonly copy: string; readonly as: ImitatedRole },
): Promise<RehearsalLogin> {
  const administrator = parseConnectionUrl(world.url);
  const login = loginName(world, as);
  const password = randomBytes(24).toString('base64url');
  const differences = await withConnection(administrator, scratchSession(world), async (client) => {
    const roles = new Set([as.name, as.actsAs, ...as.memberships.flatMap(({ role, member }) => [role, member])]);
    await ensurePlaceholderRoles(
      client,
      [...roles].filter((role) => !role.startsWith('pg_')),
    );
    const traits = await traitsOf(client);
    await makeLogin(client, world, { login, password, as, traits });
    return [
      ...(await joinAsInProduction(client, as, traits)),
      ...(await applySettings(client, login, as)),
      ...(await grantOnCopy(client, { copy, login, as })),
      ...(await missingAttributes(client, as)),
    ];
  });
  const target = { ...inDatabase(administrator, copy), user: login, password };
  await requireActing(world, target, as);
  return { target, actsAs: as.actsAs, differences };
}

interface Traits {
  readonly major: number;
  readonly superuser: boolean;
}

async function traitsOf(client: Client): Promise<Traits> {
  const { rows } = await client.query<Traits>(
    `SELECT current_setting('server_version_num')::int / 10000 AS "major", rolsuper AS "superuser"
     FROM pg_roles WHERE rolname = current_user`,
  );
  return rows[0]!;
}

interface LoginRequest {
  readonly login: string;
  readonly password: string;
  readonly as: ImitatedRole;
  readonly traits: Traits;
}

/** In one transaction: there is never one without its mark. */
async function makeLogin(
  client: Client,
  { service, runId, workflowId, expiresAt }: ScratchWorld,
  { login, password, as, traits }: LoginRequest,
): Promise<void> {
  const role = sqlName(login);
  const { rows } = await client.query<{ name: string }>('SELECT rolname AS "name" FROM pg_roles WHERE rolname = $1', [
    login,
  ]);
  if (
    rows.length > 0 &&
    !(await listMarkedRoles(client)).some(({ name, mark }) => name === login && mark.runId === runId)
  ) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `role "${login}" on the scratch server is in the way and not of this run: rename or drop it`,
      { role: login },
    );
  }
  const options = `LOGIN PASSWORD ${escapeLiteral(scramVerifier(password))} VALID UNTIL ${escapeLiteral(expiresAt)}`;
  const asMember = traits.major >= 16 ? ' WITH INHERIT TRUE, SET TRUE' : '';
  const statements = [
    rows.length === 0 ? `CREATE ROLE ${role} ${options}` : `ALTER ROLE ${role} ${options}`,
    `ALTER ROLE ${role} RESET ALL`,
    `GRANT ${sqlName(as.name)} TO ${role}${asMember}`,
    `ALTER ROLE ${role} SET role = ${escapeLiteral(as.actsAs)}`,
    // To see its sessions whole, and to end them.
    ...(traits.superuser ? [] : [`GRANT ${role} TO CURRENT_USER${asMember}`]),
  ];
  await client.query('BEGIN');
  try {
    for (const sql of statements) await client.query(sql);
    const note = `It acts as "${as.actsAs}" in copies of production.`;
    await markRole(client, login, { kind: 'scratch', runId, service, workflowId, expiresAt, note });
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    if (sqlState(error) !== '42501') throw error;
    throw refusal([
      `the administrator of the scratch server cannot make a login that acts as "${as.name}" (${(error as Error).message.slice(0, 200)}): it needs CREATEROLE, and role "${as.name}" granted to it there WITH ADMIN OPTION`,
    ]);
  }
}

/**
 * Memberships above the role, so that its rights reach as far. Only placeholders are given any: other roles of the server are
 * somebody's own.
 */
async function joinAsInProduction(client: Client, { memberships }: ImitatedRole, { major }: Traits): Promise<string[]> {
  const differences: string[] = [];
  for (const membership of memberships) {
    const { role, member } = membership;
    if (NOT_GIVEN.has(role)) {
      differences.push(await withhold(client, role, member));
      continue;
    }
    const { joined, placeholder } = await standingOf(client, membership);
    if (joined) continue;
    const failure = placeholder ? await join(client, membership, major) : 'it was not made by a run';
    if (failure !== undefined) {
      differences.push(`role "${member}" is not a member of "${role}" on the scratch server (${failure})`);
    }
  }
  return differences;
}

type Membership = ImitatedRole['memberships'][number];

/** Another run that gives the same placeholder the same membership at the same time makes this one fail: then it is given. */
async function join(client: Client, membership: Membership, major: number): Promise<string | undefined> {
  const { role, member, inherit, set } = membership;
  const how = major >= 16 ? ` WITH INHERIT ${String(inherit).toUpperCase()}, SET ${String(set).toUpperCase()}` : '';
  const failure = await attempt(client, `GRANT ${sqlName(role)} TO ${sqlName(member)}${how}`);
  return failure === undefined || (await standingOf(client, membership)).joined ? undefined : failure;
}

interface Standing {
  readonly joined: boolean;
  readonly placeholder: boolean;
}

async function standingOf(client: Client, { role, member, inherit, set }: Membership): Promise<Standing> {
  const { rows } = await client.query<Standing>(
    `SELECT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE g.rolname = $1 AND m.member = u.oid
                    AND coalesce((to_jsonb(m)->>'inherit_option')::boolean, true) >= $4
                    AND coalesce((to_jsonb(m)->>'set_option')::boolean, true) >= $5) AS "joined",
            coalesce(shobj_description(u.oid, 'pg_authid') = $3, false) AS "placeholder"
     FROM pg_roles u WHERE u.rolname = $2`,
    [role, member, PLACEHOLDER, inherit, set],
  );
  return rows[0] ?? { joined: false, placeholder: false };
}

/** A subscription draws from another server as soon as it is made: nothing could cut it off before. */
const NOT_GIVEN = new Set(['pg_create_subscription']);

/** Placeholders outlast a run: an earlier one may have given it. */
async function withhold(client: Client, role: string, member: string): Promise<string> {
  const { rowCount } = await client.query(
    `SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
     WHERE g.rolname = $1 AND u.rolname = $2 AND shobj_description(u.oid, 'pg_authid') = $3`,
    [role, member, PLACEHOLDER],
  );
  const failure = rowCount === 0 ? undefined : await attempt(client, `REVOKE ${sqlName(role)} FROM ${sqlName(member)}`);
  if (failure !== undefined) {
    return `role "${member}" has "${role}" on the scratch server, which cannot be taken from it (${failure}): a subscription that the migration makes draws from its publisher in earnest`;
  }
  return `role "${member}" is not given "${role}" on the scratch server, so that no copy draws from another server`;
}

/** @returns names only: values may be secrets */
async function applySettings(
  client: Client,
  login: string,
  { settings, name: imitated }: ImitatedRole,
): Promise<string[]> {
  const differences: string[] = [];
  for (const { name, value } of settings) {
    const failure = await attempt(client, `ALTER ROLE ${sqlName(login)} SET ${settingAssignment(name, value)}`);
    if (failure !== undefined) {
      differences.push(`setting ${name} of role "${imitated}" cannot be given on the scratch server`);
    }
  }
  return differences;
}

async function grantOnCopy(
  client: Client,
  { copy, login, as }: { readonly copy: string; readonly login: string; readonly as: ImitatedRole },
): Promise<string[]> {
  await client.query(`GRANT CONNECT ON DATABASE ${sqlName(copy)} TO ${sqlName(login)}`);
  const differences: string[] = [];
  for (const right of as.databaseRights) {
    const { rows } = await client.query<{ has: boolean }>('SELECT has_database_privilege($1, $2, $3) AS "has"', [
      as.actsAs,
      copy,
      right,
    ]);
    if (rows[0]!.has) continue;
    const failure = await attempt(client, `GRANT ${right} ON DATABASE ${sqlName(copy)} TO ${sqlName(as.actsAs)}`);
    if (failure !== undefined) differences.push(`role "${as.actsAs}" has not ${right} on the copy (${failure})`);
  }
  return differences;
}

async function missingAttributes(client: Client, { actsAs, attributes }: ImitatedRole): Promise<string[]> {
  const { rows } = await client.query<{ missing: string[] }>(
    `SELECT array_remove(ARRAY[CASE WHEN NOT rolsuper THEN 'SUPERUSER' END, CASE WHEN NOT rolbypassrls THEN 'BYPASSRLS' END,
                               CASE WHEN NOT rolcreatedb THEN 'CREATEDB' END, CASE WHEN NOT rolcreaterole THEN 'CREATEROLE' END,
                               CASE WHEN NOT rolreplication THEN 'REPLICATION' END], NULL) AS "missing"
     FROM pg_roles WHERE rolname = $1`,
    [actsAs],
  );
  const missing = rows[0]?.missing ?? [];
  return attributes
    .filter((attribute) => missing.includes(attribute))
    .map((attribute) => `role "${actsAs}" is ${attribute} in production and not on the scratch server`);
}

/** A setting that does not hold at login is a warning in the server's log and no more. */
async function requireActing(world: ScratchWorld, target: RehearsalLogin['target'], as: ImitatedRole): Promise<void> {
  const { runId, step, signal } = world;
  await withConnection(target, { runId, step, signal }, async (client) => {
    const { rows } = await client.query<{ acting: string }>('SELECT current_user AS "acting"');
    if (rows[0]!.acting !== as.actsAs) {
      throw refusal([
        `login "${target.user}" of the scratch server acts as "${rows[0]!.acting}" and not as "${as.actsAs}": what it creates would not be owned as in production; on the scratch server: GRANT ${qualifiedName(as.actsAs)} TO ${qualifiedName(as.name)}`,
      ]);
    }
  });
}

/** @returns what the server said when it refused; undefined when it was done */
async function attempt(client: Client, sql: string): Promise<string | undefined> {
  try {
    await client.query(sql);
    return undefined;
  } catch (error) {
    if (sqlState(error) === undefined) throw error;
    return (error as Error).message.slice(0, 200);
  }
}
