/** What keeps a dump of this database from being restored into a fresh one beside it. Read inside the database itself. */
import type { Client } from 'pg';
import { findPublicSchemaBlockers } from './public-schema.ts';
import { qualifiedName } from '../identifier.ts';
import { readServerMajor } from '../server-version.ts';

export interface Blockers {
  /** In words, with what to do by hand; empty = nothing stands in the way. */
  readonly findings: readonly string[];
  /** Worth knowing, in the way of nothing. */
  readonly notes: readonly string[];
}

/**
 * Extensions whose contents a dump does not carry or that live in one database of the server only. The manual way is that of
 * each extension's own documentation.
 */
const BOUND_EXTENSIONS: { readonly [name: string]: string } = {
  pg_cron:
    'can be created only in the one database that cron.database_name names, so not in a fresh one: move it to another database (cron.schedule_in_database runs jobs from there)',
  timescaledb:
    'is restored between timescaledb_pre_restore() and timescaledb_post_restore() only, and its scheduler holds a session of its own: restore by hand as its documentation says',
  citus: "keeps its tables' shards on other servers, which a dump of this database does not hold: restore by hand",
  pglogical: 'ties the database to its nodes and slots by OID: restore by hand, then build the nodes anew',
  bdr: 'ties the database to its nodes and slots by OID: restore by hand, then build the nodes anew',
  pgq: "keeps its consumers' positions as transaction numbers that mean nothing in a restored copy: restore by hand",
  londiste: 'ties the database to its node of the replication set: restore by hand, then build the node anew',
};

/** Settings that name the one database a background worker sits in: it would stay with the old one. */
const BOUND_WORKERS: { readonly [setting: string]: string } = {
  'cron.database_name': 'pg_cron',
  'pg_net.database_name': 'pg_net',
};

/** Administrators of managed services, who are no superusers and yet may create what otherwise only those may. */
const MANAGED_ADMINISTRATORS = [
  'rds_superuser',
  'cloudsqlsuperuser',
  'alloydbsuperuser',
  'azure_pg_admin',
  'neon_superuser',
];

/**
 * Found before any work is done, for a restore that fails half way costs as much as one that succeeds.
 *
 * @param client of the administrator, in the production database
 */
export async function findRestoreBlockers(client: Client): Promise<Blockers> {
  const power = await powerOf(client);
  const creatable = [...(await uncreatableExtensions(client)), ...(await superusersObjects(client))];
  const tablespaces = await forbiddenTablespaces(client);
  const lasting = [
    ...(await boundExtensions(client)),
    ...(await otherVersions(client)),
    ...tablespaces,
    ...(await findPublicSchemaBlockers(client)),
  ];
  switch (power) {
    case 'superuser':
      return { findings: lasting, notes: [] };
    case 'managed':
      return {
        findings: lasting,
        notes: creatable.map((text) => `${text}, unless the managed service lets its administrator`),
      };
    case 'ordinary':
      return {
        findings: [
          ...lasting,
          ...(await unsettable(client)),
          ...creatable.map(
            (text) => `${text}: use an administrator who is a superuser, or leave it out of the database`,
          ),
        ],
        notes: [],
      };
  }
}

async function powerOf(client: Client): Promise<'superuser' | 'managed' | 'ordinary'> {
  const { rows } = await client.query<{ superuser: boolean; managed: boolean }>(
    `SELECT rolsuper AS "superuser",
            EXISTS (SELECT FROM pg_roles m WHERE m.rolname = ANY ($1) AND pg_has_role(m.oid, 'MEMBER')) AS "managed"
     FROM pg_roles WHERE rolname = current_user`,
    [MANAGED_ADMINISTRATORS],
  );
  return rows[0]!.superuser ? 'superuser' : rows[0]!.managed ? 'managed' : 'ordinary';
}

/**
 * Settings of the database, and of roles in it, that the administrator may not give to the copy: parameters that only a
 * superuser sets, customized ones (`app.x`) among them since PostgreSQL 15, and those of roles he may not alter.
 */
async function unsettable(client: Client): Promise<string[]> {
  const major = await readServerMajor(client);
  const { rows } = await client.query<{
    name: string;
    whose: string;
    role: string | null;
    asking: string;
    why: string;
  }>(
    `SELECT given.name, coalesce('role ' || quote_ident(r.rolname) || ' in this database', 'this database') AS "whose", r.rolname AS "role",
            current_user AS "asking", given.why
     FROM pg_db_role_setting s
     JOIN pg_database d ON d.oid = s.setdatabase AND d.datname = current_database()
     LEFT JOIN pg_roles r ON r.oid = s.setrole,
     LATERAL (SELECT split_part(entry, '=', 1) AS name,
                     CASE WHEN NOT (coalesce(r.rolname = current_user, true)
                                    OR (NOT r.rolsuper AND (SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user)
                                        AND ($1 < 16 OR pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION')))) THEN 'role'
                          WHEN ${major < 15 ? MAY_SET_UNTIL_14 : MAY_SET} THEN NULL
                          ELSE 'parameter' END AS why
              FROM unnest(s.setconfig) entry) given
     WHERE given.why IS NOT NULL ORDER BY 1, 2`,
    [major],
  );
  return rows.map(
    ({ name, whose, role, asking, why }) =>
      `setting ${name} of ${whose} could not be restored by "${asking}": ${remedy(major, { name, role, asking: qualifiedName(asking), why })}`,
  );
}

function remedy(
  major: number,
  { name, role, asking, why }: { name: string; role: string | null; asking: string; why: string },
): string {
  if (why === 'role') {
    return major < 16
      ? `ALTER ROLE ${asking} CREATEROLE, or RESET it where the role is a superuser`
      : `GRANT ${qualifiedName(role ?? '')} TO ${asking} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`;
  }
  return major < 15
    ? 'before PostgreSQL 15 only a superuser sets it: use an administrator who is one, or RESET it'
    : `GRANT SET ON PARAMETER ${qualifiedName(...name.split('.'))} TO ${asking}`;
}

/** Known parameters by their context; unknown ones with a dot are customized, and anybody's until PostgreSQL 14. */
const MAY_SET_UNTIL_14 = `coalesce((SELECT p.context = 'user' FROM pg_settings p WHERE p.name = split_part(entry, '=', 1)), true)`;

/** The right came with PostgreSQL 15, and the function that tells of it: an older server does not parse its call. */
const MAY_SET = `(
  coalesce((SELECT p.context = 'user' FROM pg_settings p WHERE p.name = split_part(entry, '=', 1)), false)
  OR has_parameter_privilege(current_user, split_part(entry, '=', 1), 'SET'))`;

async function boundExtensions(client: Client): Promise<string[]> {
  const installed = await client.query<{ name: string }>(
    'SELECT extname AS "name" FROM pg_extension WHERE extname = ANY ($1) ORDER BY 1',
    [Object.keys(BOUND_EXTENSIONS)],
  );
  const named = installed.rows.map(({ name }) => name);
  const settings = await client.query<{ name: string; value: string }>(
    // Not current_setting(): that fails on settings which the role may not see.
    `SELECT name, setting AS "value" FROM pg_settings WHERE name = ANY ($1) AND setting = current_database() ORDER BY 1`,
    [Object.keys(BOUND_WORKERS)],
  );
  return [
    ...named.map((name) => `extension ${name} ${BOUND_EXTENSIONS[name]!}`),
    ...settings.rows
      .filter(({ name }) => !named.includes(BOUND_WORKERS[name]!))
      .map(
        ({ name, value }) =>
          `the background worker of ${BOUND_WORKERS[name]!} sits in database "${value}" (${name}): it would stay with the old database; let it name another one and restart the server`,
      ),
  ];
}

/** A dump names no version: the default one is created, and the restored copy would not be equal. */
async function otherVersions(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string; installed: string; standard: string | null }>(
    `SELECT e.extname AS "name", e.extversion AS "installed", a.default_version AS "standard"
     FROM pg_extension e LEFT JOIN pg_available_extensions a ON a.name = e.extname
     WHERE e.extname <> 'plpgsql' AND e.extversion IS DISTINCT FROM a.default_version ORDER BY 1`,
  );
  return rows.map(({ name, installed, standard }) =>
    standard === null
      ? `extension ${name} cannot be created again: its files are not on the server`
      : `extension ${name} is of version ${installed}, a restore would create ${standard}: ALTER EXTENSION "${name}" UPDATE first`,
  );
}

async function uncreatableExtensions(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT e.extname AS "name"
     FROM pg_extension e JOIN pg_available_extensions a ON a.name = e.extname
     JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
     WHERE e.extname <> 'plpgsql' AND v.superuser AND NOT v.trusted ORDER BY 1`,
  );
  return rows.map(({ name }) => `extension ${name} can be created by a superuser only`);
}

/** Objects that are no members of an extension and that only a superuser can create (documentation of each CREATE). */
async function superusersObjects(client: Client): Promise<string[]> {
  // Publications of whole schemas came with 15.
  const ofSchemas =
    (await readServerMajor(client)) < 15
      ? ''
      : ' OR EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = pg_publication.oid)';
  const { rows } = await client.query<{ what: string; names: string[] }>(
    `WITH members AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
     made (what, classid, objid, name) AS (
       SELECT 'event trigger', 'pg_event_trigger'::regclass, oid, format('%I', evtname) FROM pg_event_trigger
       UNION ALL
       SELECT 'publication of all tables or of a schema', 'pg_publication'::regclass, oid, format('%I', pubname) FROM pg_publication
       WHERE puballtables${ofSchemas}
       UNION ALL
       SELECT CASE WHEN p.proleakproof THEN 'leakproof function' ELSE 'function in language ' || l.lanname END,
              'pg_proc'::regclass, p.oid, format('%I.%I', n.nspname, p.proname)
       FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
       WHERE (p.proleakproof OR NOT l.lanpltrusted) AND n.nspname <> 'information_schema'
       UNION ALL
       SELECT 'base type', 'pg_type'::regclass, t.oid, format('%I.%I', n.nspname, t.typname)
       FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
       WHERE t.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
       UNION ALL
       SELECT 'operator family', 'pg_opfamily'::regclass, o.oid, format('%I.%I', n.nspname, o.opfname)
       FROM pg_opfamily o JOIN pg_namespace n ON n.oid = o.opfnamespace
       UNION ALL
       SELECT 'cast without function', 'pg_cast'::regclass, oid, format('(%s AS %s)', castsource::regtype, casttarget::regtype)
       FROM pg_cast WHERE castmethod = 'b'
       UNION ALL
       SELECT 'foreign-data wrapper', 'pg_foreign_data_wrapper'::regclass, oid, format('%I', fdwname) FROM pg_foreign_data_wrapper
       UNION ALL
       SELECT 'text search parser', 'pg_ts_parser'::regclass, oid, format('%I', prsname) FROM pg_ts_parser
       UNION ALL
       SELECT 'text search template', 'pg_ts_template'::regclass, oid, format('%I', tmplname) FROM pg_ts_template
       UNION ALL
       SELECT 'access method', 'pg_am'::regclass, oid, format('%I', amname) FROM pg_am)
     SELECT what, array_agg(name ORDER BY name) AS "names"
     FROM made
     -- From here on OIDs are given to what people make (FirstNormalObjectId).
     WHERE objid >= 16384 AND NOT EXISTS (SELECT FROM members m WHERE m.classid = made.classid AND m.objid = made.objid)
     GROUP BY what ORDER BY what`,
  );
  return rows.map(
    ({ what, names }) =>
      `${what} ${names.slice(0, 3).join(', ')}${names.length > 3 ? ` and ${names.length - 3} more` : ''} can be created by a superuser only`,
  );
}

async function forbiddenTablespaces(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string; role: string }>(
    `SELECT t.spcname AS "name", current_user AS "role" FROM pg_tablespace t
     WHERE t.spcname NOT IN ('pg_default', 'pg_global') AND NOT has_tablespace_privilege(t.oid, 'CREATE')
       AND (t.oid = (SELECT dattablespace FROM pg_database WHERE datname = current_database())
            OR EXISTS (SELECT FROM pg_class c WHERE c.reltablespace = t.oid))
     ORDER BY 1`,
  );
  return rows.map(
    ({ name, role }) =>
      `the administrator may create nothing in tablespace "${name}", which the database uses: GRANT CREATE ON TABLESPACE ${qualifiedName(name)} TO ${qualifiedName(role)}`,
  );
}
