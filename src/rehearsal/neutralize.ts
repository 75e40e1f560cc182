/** Cuts a copy of production off from the rest of the world: it must reach nobody, neither while it is restored nor later. */
import { type Client, escapeLiteral } from 'pg';
import { refusal } from '../contract/errors.ts';
import { keyOf, type ObjectMap, readObjectMap } from '../postgres/catalog/object-map.ts';
import type { ObjectKind } from '../postgres/catalog/object-map-queries.ts';
import { sqlState } from '../postgres/database-error.ts';
import { qualifiedName, sqlName } from '../postgres/identifier.ts';
import { NOWHERE } from '../postgres/nowhere.ts';
import type { Isolation } from '../postgres/restore/restore-compare.ts';
import { cutOffSubscriptions } from '../postgres/restore/subscriptions.ts';
import { OUTGOING } from './ways-out.ts';

export interface Neutralized {
  /** What could have reached out and was cut off, in words. */
  readonly neutralized: readonly string[];
  /** What was left out for that, and what could still reach out, in words. */
  readonly unknown: readonly string[];
}

/**
 * Foreign servers lead nowhere, user mappings hold no credentials, subscriptions are off, scheduled jobs do not run.
 * Materialized views over foreign tables are left without rows. Event triggers stay: they are part of what is tried.
 *
 * @param client in the copy, of a role that may act as the owners of what is in it; nothing that runs code is there yet
 * @throws StepError `StepRefused` where something cannot be cut off
 */
export async function neutralize(client: Client): Promise<Neutralized & { readonly isolation: Isolation }> {
  const before = await foreignObjects(client);
  const servers = await cutServers(client);
  const mappings = await emptyMappings(client);
  const findings = [...servers.findings, ...mappings.findings];
  if (findings.length > 0) throw refusal(findings);
  const views = await viewsOverForeignTables(client);
  return {
    neutralized: [...servers.done, ...mappings.done, ...(await stopSubscriptions(client)), ...(await stopJobs(client))],
    unknown: [
      ...views.map(
        ({ schema, name }) =>
          `materialized view ${qualifiedName(schema, name)} has no rows in the rehearsal: it reads foreign tables`,
      ),
      ...(await outgoingExtensions(client)),
    ],
    isolation: {
      leaveOut: views.map(({ schema, name, owner }) => `MATERIALIZED VIEW DATA ${schema} ${name} ${owner}`),
      asRestored: (found, recorded) => {
        const names = new Set(views.map(({ schema, name }) => qualifiedName(schema, name)));
        return asRestored(found, { before, recorded, views: names });
      },
    },
  };
}

/** Kinds whose definitions are changed here. */
const CUT_OFF: readonly ObjectKind[] = ['foreign-data-wrapper', 'foreign-server', 'user-mapping'];

/** As the backup has them. */
async function foreignObjects(client: Client): Promise<ObjectMap['objects']> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    return (await readObjectMap(client)).objects.filter(({ kind }) => CUT_OFF.includes(kind));
  } finally {
    await client.query('ROLLBACK');
  }
}

/** What was changed here is put back in the map; what is gone or new since then stays a difference. */
function asRestored(
  found: ObjectMap,
  known: {
    readonly before: ObjectMap['objects'];
    readonly recorded: ObjectMap;
    /** That were left without rows. */
    readonly views: ReadonlySet<string>;
  },
): ObjectMap {
  const original = new Map(known.before.map((object) => [keyOf(object), object]));
  const emptyInProduction = new Set(
    known.recorded.objects.filter(({ definition }) => NOT_POPULATED.test(definition)).map(keyOf),
  );
  return {
    ...found,
    objects: found.objects.map((object) => {
      if (object.kind === 'materialized-view' && known.views.has(object.name)) {
        const { definition } = object;
        return emptyInProduction.has(keyOf(object))
          ? object
          : { ...object, definition: definition.replace(NOT_POPULATED, ';') };
      }
      return CUT_OFF.includes(object.kind) ? (original.get(keyOf(object)) ?? object) : object;
    }),
  };
}

/** Behind the query of a materialized view. */
const NOT_POPULATED = /; not populated(?= using | with |$)/;

interface Outcome {
  readonly done: readonly string[];
  readonly findings: readonly string[];
}

interface ForeignServer {
  readonly name: string;
  readonly wrapper: string;
  /** Function that checks its options: tells whose they are. */
  readonly validator: string | null;
  readonly handler: string | null;
  readonly options: readonly string[];
}

/** Wrappers whose options are libpq's. */
const LIBPQ_VALIDATORS = new Set(['postgres_fdw_validator', 'dblink_fdw_validator', 'postgresql_fdw_validator']);

async function cutServers(client: Client): Promise<Outcome> {
  const { rows } = await client.query<ForeignServer>(
    `SELECT s.srvname AS "name", w.fdwname AS "wrapper", v.proname AS "validator", h.proname AS "handler",
            coalesce(s.srvoptions, '{}') AS "options"
     FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
     LEFT JOIN pg_proc v ON v.oid = w.fdwvalidator LEFT JOIN pg_proc h ON h.oid = w.fdwhandler
     ORDER BY s.srvname COLLATE "C"`,
  );
  const done: string[] = [];
  const findings: string[] = [];
  for (const server of rows) {
    const { name, wrapper } = server;
    const failure = LIBPQ_VALIDATORS.has(server.validator ?? '')
      ? await attempt(client, `ALTER SERVER ${sqlName(name)} OPTIONS (${libpqOptions(server)})`)
      : // What its options mean only the wrapper itself knows; without its handler nothing is asked.
        await attempt(client, `ALTER FOREIGN DATA WRAPPER ${sqlName(wrapper)} NO HANDLER`);
    if (failure === undefined) done.push(`foreign server ${qualifiedName(name)} (${wrapper}) leads nowhere`);
    else {
      findings.push(
        `foreign server ${qualifiedName(name)} (${wrapper}) cannot be cut off on the scratch server (${failure}): use an administrator there who may do so, a superuser for wrappers other than postgres_fdw`,
      );
    }
  }
  return { done, findings };
}

function libpqOptions({ options }: ForeignServer): string {
  const given = new Map(options.map((option) => [option.slice(0, option.indexOf('=')), option]));
  // hostaddr goes before host; nobody listens at port 1 of the server itself.
  const wanted: readonly (readonly [name: string, value: string])[] = [
    ['host', NOWHERE],
    ['port', '1'],
    ['dbname', 'nowhere'],
    ...(given.has('hostaddr') ? [['hostaddr', '127.0.0.1'] as const] : []),
    ...(given.has('service') ? [['service', 'nowhere'] as const] : []),
  ];
  return wanted
    .map(([name, value]) => `${given.has(name) ? 'SET' : 'ADD'} ${sqlName(name)} ${escapeLiteral(value)}`)
    .join(', ');
}

interface UserMapping {
  readonly server: string;
  /** Null: PUBLIC. */
  readonly role: string | null;
  /** Names; null where the asking role may not see them. */
  readonly options: readonly string[] | null;
}

/** Names of options stay, so that a migration can change them; those that are hidden go with the whole mapping. */
async function emptyMappings(client: Client): Promise<Outcome> {
  const { rows } = await client.query<UserMapping>(
    `SELECT u.srvname AS "server", CASE WHEN u.umuser <> 0 THEN u.usename END AS "role",
            (SELECT array_agg(split_part(o, '=', 1)) FROM unnest(u.umoptions) o) AS "options"
     FROM pg_user_mappings u ORDER BY u.srvname COLLATE "C", u.usename COLLATE "C"`,
  );
  const done: string[] = [];
  const findings: string[] = [];
  for (const { server, role, options } of rows) {
    const whose = `FOR ${role === null ? 'PUBLIC' : sqlName(role)} SERVER ${sqlName(server)}`;
    const settable = (options ?? []).filter((name) => name !== 'password_required');
    const sets = settable.map((name) => `SET ${sqlName(name)} 'nobody'`).join(', ');
    let failure = sets === '' ? 'hidden' : await attempt(client, `ALTER USER MAPPING ${whose} OPTIONS (${sets})`);
    if (failure !== undefined) {
      failure = await attempt(client, `DROP USER MAPPING ${whose}; CREATE USER MAPPING ${whose}`);
    }
    const named = `user mapping of ${role === null ? 'PUBLIC' : `role "${role}"`} for foreign server ${qualifiedName(server)}`;
    if (failure === undefined) done.push(`${named} holds no credentials`);
    else findings.push(`${named} cannot be emptied on the scratch server: ${failure}`);
  }
  return { done, findings };
}

async function stopSubscriptions(client: Client): Promise<string[]> {
  const names = await cutOffSubscriptions(client);
  return names.map((name) => `subscription ${qualifiedName(name)} is disabled and leads nowhere`);
}

/** Tables of schedulers that work inside the server. Others connect from outside, to the database they were told. */
const JOB_TABLES: readonly { readonly extension: string; readonly table: string; readonly stop: string }[] = [
  { extension: 'pg_cron', table: 'cron.job', stop: 'UPDATE cron.job SET active = false WHERE active' },
];

async function stopJobs(client: Client): Promise<string[]> {
  const stopped: string[] = [];
  for (const { extension, table, stop } of JOB_TABLES) {
    const { rowCount } = await client.query(
      `SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
       WHERE d.classid = 'pg_class'::regclass AND d.objid = to_regclass($1) AND d.refclassid = 'pg_extension'::regclass
         AND d.deptype = 'e' AND e.extname = $2`,
      [table, extension],
    );
    if (rowCount === 0) continue;
    const { rowCount: jobs } = await client.query(stop);
    if (jobs !== null && jobs > 0) stopped.push(`${jobs} job(s) of ${extension} are switched off`);
  }
  return stopped;
}

interface View {
  readonly schema: string;
  readonly name: string;
  readonly owner: string;
}

/** Materialized views that read a foreign table, by other views, other materialized views or a partitioned table. */
async function viewsOverForeignTables(client: Client): Promise<View[]> {
  const { rows } = await client.query<View>(
    `WITH RECURSIVE reaching_out (oid) AS (
       SELECT oid FROM pg_class WHERE relkind = 'f'
       UNION
       SELECT reader.oid FROM reaching_out o, LATERAL (
         SELECT r.ev_class AS oid FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
         WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = o.oid
           AND r.ev_type = '1' AND r.ev_class <> o.oid
         UNION SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = o.oid) AS reader)
     SELECT n.nspname AS "schema", c.relname AS "name", pg_get_userbyid(c.relowner) AS "owner"
     FROM reaching_out o JOIN pg_class c ON c.oid = o.oid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm' ORDER BY 1, 2`,
  );
  return rows;
}

async function outgoingExtensions(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    'SELECT extname AS "name" FROM pg_extension WHERE extname = ANY ($1) ORDER BY 1',
    [OUTGOING],
  );
  return rows.map(
    ({ name }) =>
      `functions that use extension ${name} may reach other hosts from the scratch server: only its network can keep them from it`,
  );
}

/** @returns what the server said when it refused; undefined when it was done */
async function attempt(client: Client, sql: string): Promise<string | undefined> {
  try {
    await client.query(sql);
    return undefined;
  } catch (error) {
    if (sqlState(error) === undefined) throw error;
    // A refused option is quoted by its name.
    return (error as Error).message.slice(0, 200);
  }
}
