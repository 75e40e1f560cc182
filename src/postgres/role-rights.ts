import type { Client } from 'pg';
import { qualifiedName } from './identifier.ts';
import { readServerMajor } from './server-version.ts';

/** Relations of the user's, as far as rights on them matter: no extension members, no temporary ones. */
const USER_RELATIONS = `
  pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relpersistence <> 't'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`;

/** What a role lacks, and what it could do beyond its duty. */
export interface RightsFindings {
  readonly missing: readonly string[];
  readonly proven: readonly string[];
  readonly warnings: readonly string[];
}

/** Can the connected role create, restore, rename and empty databases, and see what it must? */
export async function inspectAdministrator(client: Client): Promise<RightsFindings> {
  const { rows } = await client.query<{
    role: string;
    superuser: boolean;
    createdb: boolean;
    owner: string;
    member: boolean;
    signal: boolean;
    monitor: boolean;
  }>(
    `SELECT current_user AS "role", r.rolsuper AS "superuser", r.rolcreatedb AS "createdb", pg_get_userbyid(d.datdba) AS "owner",
            pg_has_role(d.datdba, 'USAGE') AS "member", pg_has_role('pg_signal_backend', 'USAGE') AS "signal",
            pg_has_role('pg_monitor', 'USAGE') AS "monitor"
     FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()`,
  );
  const facts = rows[0]!;
  const role = `administrator "${facts.role}"`;
  const grantee = qualifiedName(facts.role);
  if (facts.superuser) {
    return {
      missing: [],
      proven: [`${role} is a superuser`],
      warnings: [`${role} is a superuser: more than it needs`],
    };
  }
  const rights: [boolean, string, string][] = [
    [facts.createdb, 'CREATEDB', `ALTER ROLE ${grantee} CREATEDB`],
    [facts.member, `member of the owner "${facts.owner}"`, `GRANT ${qualifiedName(facts.owner)} TO ${grantee}`],
    [facts.signal, 'pg_signal_backend', `GRANT pg_signal_backend TO ${grantee}`],
    [facts.monitor, 'pg_monitor', `GRANT pg_monitor TO ${grantee}`],
  ];
  const unread = await unreadable(client);
  const filtered = await filteredTables(client);
  const owners = await unreachableOwners(client);
  return {
    missing: [
      ...owners.map(
        ({ owner, example, count }) =>
          `${role} could not restore ${example}${count > 1 ? ` and ${count - 1} more` : ''}, owned by "${owner}": GRANT ${qualifiedName(owner)} TO ${grantee} (with INHERIT and SET), or give the objects to the database's owner`,
      ),
      ...rights.filter(([has]) => !has).map(([, what, remedy]) => `${role} lacks: ${what} (${remedy})`),
      ...(unread.length === 0
        ? []
        : [
            `${role} cannot read ${listed(unread)}, so a restore could not be compared: GRANT pg_read_all_data TO ${grantee}`,
          ]),
      ...(filtered.length === 0
        ? []
        : [
            `row security would hide rows of ${listed(filtered)} from ${role}, so a restore could not be compared: ALTER ROLE ${grantee} BYPASSRLS`,
          ]),
    ],
    proven: [
      `${role}: ${rights
        .filter(([has]) => has)
        .map(([, what]) => what)
        .join(', ')}`,
    ],
    warnings: [],
  };
}

/** Can the connected role change every table, as a member of its owner, in the way the role is configured? */
export async function inspectMigrator(client: Client): Promise<RightsFindings> {
  const { rows } = await client.query<{ session: string; acting: string; foreign: string[]; schemas: string[] }>(
    `SELECT session_user AS "session", current_user AS "acting",
       (SELECT coalesce(array_agg(format('%I.%I', n.nspname, c.relname) ORDER BY 1), '{}')
        FROM ${USER_RELATIONS} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND NOT pg_has_role(c.relowner, 'USAGE')) AS "foreign",
       (SELECT coalesce(array_agg(n.nspname::text ORDER BY 1), '{}') FROM pg_namespace n
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT has_schema_privilege(n.oid, 'CREATE')
          AND EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND pg_has_role(c.relowner, 'USAGE'))) AS "schemas"`,
  );
  const facts = rows[0]!;
  const role = `migrator "${facts.session}"${facts.acting === facts.session ? '' : ` (acting as "${facts.acting}")`}`;
  return {
    missing: [
      ...(facts.foreign.length === 0
        ? []
        : [`${role} may not alter ${listed(facts.foreign)}: it is no member of the owner`]),
      ...(facts.schemas.length === 0 ? [] : [`${role} may not create objects in schema ${listed(facts.schemas)}`]),
    ],
    proven: [`${role}: may alter every table`],
    warnings: [],
  };
}

/** Can the connected role read everything a dump reads? That it could write is worth a warning. */
export async function inspectBackupRole(client: Client): Promise<RightsFindings> {
  const { rows } = await client.query<{ role: string; superuser: boolean; writable: string[] }>(
    `SELECT current_user AS "role", (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS "superuser",
       (SELECT coalesce(array_agg(format('%I.%I', n.nspname, c.relname) ORDER BY 1), '{}')
        FROM ${USER_RELATIONS} AND c.relkind IN ('r', 'p')
          AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')) AS "writable"`,
  );
  const facts = rows[0]!;
  const role = `backup role "${facts.role}"`;
  const grantee = qualifiedName(facts.role);
  const unread = await unreadable(client);
  const filtered = await filteredTables(client);
  const large = await unreadableLargeObjects(client);
  return {
    missing: [
      ...(unread.length === 0 ? [] : [`${role} cannot read ${listed(unread)}: GRANT pg_read_all_data TO ${grantee}`]),
      ...(large.length === 0
        ? []
        : [
            `${role} cannot read ${large.length} large object(s), which pg_read_all_data does not cover: GRANT SELECT ON LARGE OBJECT ${large.slice(0, 5).join(', ')}${large.length > 5 ? ' ...' : ''} TO ${grantee}`,
          ]),
      ...(filtered.length === 0
        ? []
        : [`row security would hide rows of ${listed(filtered)} from ${role}: ALTER ROLE ${grantee} BYPASSRLS`]),
    ],
    proven: [`${role}: reads every table`],
    warnings: [
      ...(facts.superuser ? [`${role} is a superuser: more than it needs`] : []),
      ...(!facts.superuser && facts.writable.length > 0 ? [`${role} could also write ${listed(facts.writable)}`] : []),
    ],
  };
}

/**
 * Can the connected role of the scratch server compare a copy of this database? Its owners become roles which it is a member of:
 * row security holds it only where it holds the owner too.
 *
 * @param forced tables of production with forced row security, see `forcedRowSecurity`
 */
export async function inspectScratchAdministrator(client: Client, forced: readonly string[]): Promise<RightsFindings> {
  const { rows } = await client.query<{ role: string; bypasses: boolean }>(
    `SELECT rolname AS "role", rolsuper OR rolbypassrls AS "bypasses" FROM pg_roles WHERE rolname = current_user`,
  );
  const { role, bypasses } = rows[0]!;
  return {
    missing:
      bypasses || forced.length === 0
        ? []
        : [
            `row security is forced on ${listed(forced)}, and would hide rows of a copy from the administrator "${role}" of the scratch server: ALTER ROLE ${qualifiedName(role)} BYPASSRLS there`,
          ],
    proven: [],
    warnings: [],
  };
}

/** Tables whose row security holds their owner too. */
export async function forcedRowSecurity(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS "schema", c.relname AS "name" FROM ${USER_RELATIONS}
       AND c.relkind IN ('r', 'p') AND c.relrowsecurity AND c.relforcerowsecurity
     ORDER BY 1, 2`,
  );
  return rows.map(({ schema, name }) => qualifiedName(schema, name));
}

/** Tables of which row security would hide rows from the connected role. */
async function filteredTables(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS "schema", c.relname AS "name" FROM ${USER_RELATIONS}
       AND c.relkind IN ('r', 'p') AND row_security_active(c.oid)
     ORDER BY 1, 2`,
  );
  return rows.map(({ schema, name }) => qualifiedName(schema, name));
}

/** Tables and sequences that the connected role may not read. */
async function unreadable(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS "schema", c.relname AS "name" FROM ${USER_RELATIONS}
       AND c.relkind IN ('r', 'p', 'm', 'S')
       AND NOT (has_schema_privilege(n.oid, 'USAGE') AND
                CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END)
     ORDER BY 1, 2`,
  );
  return rows.map(({ schema, name }) => qualifiedName(schema, name));
}

const listed = (names: readonly string[]): string =>
  names.length <= 5 ? names.join(', ') : `${names.slice(0, 5).join(', ')} and ${names.length - 5} more`;

interface UnreachableOwner {
  readonly owner: string;
  readonly example: string;
  readonly count: number;
}

/**
 * Owners of the database's objects whom the connected role cannot become, or whose rights it has not: pg_restore would fail to
 * give them their objects back, or to write into what it has just given them. Extension members are made by their extension; the public schema usually belongs to the database's owner by role.
 */
async function unreachableOwners(client: Client): Promise<UnreachableOwner[]> {
  // Since 16 membership alone does not let a role be set.
  const privilege = (await readServerMajor(client)) >= 16 ? 'SET' : 'MEMBER';
  const { rows } = await client.query<UnreachableOwner>(
    `WITH owned (classid, objid, owner, what) AS (
       SELECT 'pg_class'::regclass, c.oid, c.relowner, format('%I.%I', n.nspname, c.relname)
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       UNION ALL
       SELECT 'pg_proc'::regclass, p.oid, p.proowner, format('function %I.%I', n.nspname, p.proname)
       FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
       WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       UNION ALL
       SELECT 'pg_type'::regclass, t.oid, t.typowner, format('type %I.%I', n.nspname, t.typname)
       FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
       WHERE t.typtype IN ('e', 'd', 'r') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       UNION ALL
       SELECT 'pg_namespace'::regclass, n.oid, n.nspowner, format('schema %I', n.nspname)
       FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')
       UNION ALL
       SELECT 'pg_largeobject_metadata'::regclass, l.oid, l.lomowner, format('large object %s', l.oid) FROM pg_largeobject_metadata l
       UNION ALL
       SELECT 'pg_event_trigger'::regclass, e.oid, e.evtowner, format('event trigger %I', e.evtname) FROM pg_event_trigger e
       UNION ALL
       SELECT 'pg_publication'::regclass, p.oid, p.pubowner, format('publication %I', p.pubname) FROM pg_publication p
       UNION ALL
       SELECT 'pg_foreign_server'::regclass, f.oid, f.srvowner, format('server %I', f.srvname) FROM pg_foreign_server f
       UNION ALL
       SELECT 'pg_default_acl'::regclass, a.oid, a.defaclrole, 'default privileges' FROM pg_default_acl a)
     SELECT pg_get_userbyid(owner) AS "owner", min(what) AS "example", count(*)::int AS "count"
     FROM owned
     WHERE NOT (pg_has_role(owner, $1) AND pg_has_role(owner, 'USAGE'))
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = owned.classid AND d.objid = owned.objid AND d.deptype = 'e')
     GROUP BY owner ORDER BY 1`,
    [privilege],
  );
  return rows;
}

async function unreadableLargeObjects(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ oid: string }>(
    `SELECT l.oid::text AS oid FROM pg_largeobject_metadata l
     WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
       AND NOT pg_has_role(l.lomowner, 'USAGE')
       AND NOT EXISTS (SELECT FROM aclexplode(l.lomacl) a
                       WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
     ORDER BY l.oid LIMIT 1000`,
  );
  return rows.map(({ oid }) => oid);
}
