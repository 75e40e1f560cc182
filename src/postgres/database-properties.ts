import { escapeLiteral, type Client } from 'pg';
import { sqlName } from './identifier.ts';

/**
 * What belongs to a database as a whole and is in no dump of it: it stays with the OID, so a database that takes another's
 * name has to be given it (PostgreSQL documentation, "pg_dump", on `--create`).
 */
interface DatabaseProperties {
  readonly owner: string;
  readonly encoding: string;
  readonly collate: string;
  readonly ctype: string;
  /** `c`, `i` (ICU), `b` (builtin); null before PostgreSQL 15. */
  readonly provider: string | null;
  readonly locale: string | null;
  readonly icuRules: string | null;
  readonly tablespace: string;
  readonly connectionLimit: number;
  readonly comment: string | null;
}

async function readProperties(client: Client, database: string): Promise<DatabaseProperties> {
  const { rows } = await client.query<DatabaseProperties>(
    // daticulocale became datlocale with PostgreSQL 17; older servers have neither.
    `SELECT pg_get_userbyid(d.datdba) AS "owner", pg_encoding_to_char(d.encoding) AS "encoding",
            d.datcollate AS "collate", d.datctype AS "ctype", j->>'datlocprovider' AS "provider",
            coalesce(j->>'datlocale', j->>'daticulocale') AS "locale", j->>'daticurules' AS "icuRules",
            t.spcname AS "tablespace", d.datconnlimit AS "connectionLimit",
            shobj_description(d.oid, 'pg_database') AS "comment"
     FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace, LATERAL to_jsonb(d) j
     WHERE d.datname = $1`,
    [database],
  );
  return rows[0]!;
}

/**
 * Creates an empty database like another one: owner, encoding, locale, tablespace. Nobody but owner and administrator may
 * connect to it yet.
 */
export async function createDatabaseLike(client: Client, original: string, name: string): Promise<void> {
  const like = await readProperties(client, original);
  const options = [
    `OWNER ${sqlName(like.owner)}`,
    'TEMPLATE template0',
    `ENCODING ${escapeLiteral(like.encoding)}`,
    `LC_COLLATE ${escapeLiteral(like.collate)}`,
    `LC_CTYPE ${escapeLiteral(like.ctype)}`,
    ...localeOptions(like),
    ...(like.tablespace === 'pg_default' ? [] : [`TABLESPACE ${sqlName(like.tablespace)}`]),
  ];
  await client.query(`CREATE DATABASE ${sqlName(name)} ${options.join(' ')}`);
  await client.query(`REVOKE ALL ON DATABASE ${sqlName(name)} FROM PUBLIC`);
}

function localeOptions({ provider, locale, icuRules }: DatabaseProperties): string[] {
  if (provider === 'i') {
    return [
      'LOCALE_PROVIDER icu',
      `ICU_LOCALE ${escapeLiteral(locale ?? 'und')}`,
      ...(icuRules === null ? [] : [`ICU_RULES ${escapeLiteral(icuRules)}`]),
    ];
  }
  if (provider === 'b') return ['LOCALE_PROVIDER builtin', `BUILTIN_LOCALE ${escapeLiteral(locale ?? 'C')}`];
  return provider === 'c' ? ['LOCALE_PROVIDER libc'] : [];
}

/**
 * Gives a database the rights, settings, connection limit and comment of another. May be done again.
 *
 * @returns what could not be carried over, in words; empty = all was
 */
export async function carryProperties(client: Client, from: string, to: string): Promise<string[]> {
  const findings: string[] = [];
  const attempt = async (what: string, sql: string): Promise<void> => {
    await client.query(sql).catch((error: unknown) => {
      findings.push(`${what} of database "${from}" cannot be carried over: ${(error as Error).message.slice(0, 300)}`);
    });
  };
  const properties = await readProperties(client, from);
  for (const sql of await grantStatements(client, from, to)) await attempt('a right', sql);
  for (const sql of await settingStatements(client, from, to)) await attempt('a setting', sql);
  await attempt('the connection limit', `ALTER DATABASE ${sqlName(to)} CONNECTION LIMIT ${properties.connectionLimit}`);
  return findings;
}

/** The comment of a database, as SQL that gives it to another. For the transaction that swaps the names. */
export async function commentStatement(client: Client, from: string, to: string): Promise<string> {
  const { comment } = await readProperties(client, from);
  return `COMMENT ON DATABASE ${sqlName(to)} IS ${comment === null ? 'NULL' : escapeLiteral(comment)}`;
}

async function grantStatements(client: Client, from: string, to: string): Promise<string[]> {
  const target = sqlName(to);
  const entries = async (database: string) => {
    const { rows } = await client.query<{ grantee: string | null; privilege: string; grantable: boolean }>(
      `SELECT r.rolname AS "grantee", a.privilege_type AS "privilege", a.is_grantable AS "grantable"
       FROM pg_database d, LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
       LEFT JOIN pg_roles r ON r.oid = a.grantee
       WHERE d.datname = $1 AND (a.grantee = 0 OR r.oid IS NOT NULL)`,
      [database],
    );
    return rows;
  };
  const named = (grantee: string | null): string => (grantee === null ? 'PUBLIC' : sqlName(grantee));
  const present = new Set((await entries(to)).map(({ grantee }) => named(grantee)));
  return [
    ...[...present].map((grantee) => `REVOKE ALL ON DATABASE ${target} FROM ${grantee}`),
    ...(await entries(from)).map(
      ({ grantee, privilege, grantable }) =>
        `GRANT ${privilege} ON DATABASE ${target} TO ${named(grantee)}${grantable ? ' WITH GRANT OPTION' : ''}`,
    ),
  ];
}

/** Settings whose stored value is already a list of quoted identifiers (GUC_LIST_QUOTE): quoting it again would break it. */
const QUOTED_LISTS = new Set([
  'search_path',
  'temp_tablespaces',
  'local_preload_libraries',
  'session_preload_libraries',
]);

async function settingStatements(client: Client, from: string, to: string): Promise<string[]> {
  const settings = async (database: string) => {
    const { rows } = await client.query<{ role: string | null; settings: string[] }>(
      `SELECT r.rolname AS "role", s.setconfig AS "settings"
       FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
       WHERE d.datname = $1`,
      [database],
    );
    return rows;
  };
  const subject = (role: string | null): string =>
    role === null ? `ALTER DATABASE ${sqlName(to)}` : `ALTER ROLE ${sqlName(role)} IN DATABASE ${sqlName(to)}`;
  return [
    ...(await settings(to)).map(({ role }) => `${subject(role)} RESET ALL`),
    ...(await settings(from)).flatMap(({ role, settings: assignments }) =>
      assignments.map((assignment) => {
        const [, name = '', value = ''] = /^([^=]+)=(.*)$/s.exec(assignment) ?? [];
        const text = QUOTED_LISTS.has(name) && value !== '' ? value : escapeLiteral(value);
        return `${subject(role)} SET ${sqlName(...name.split('.'))} = ${text}`;
      }),
    ),
  ];
}
