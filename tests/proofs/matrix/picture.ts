/** What a database looks like to PostgreSQL's own tools: nothing here uses the object map or the ledger. */
import { join } from 'node:path';
import type { Client } from 'pg';
import { runCommand } from '../../../scripts/stack/command.ts';
import type { PostgresServer } from '../../../scripts/stack/connection.ts';
import { withClient } from '../../../scripts/stack/postgres-cluster.ts';

export interface Picture {
  /** Text of `pg_dump --schema-only`, entry by entry. */
  readonly schema: ReadonlyMap<string, string>;
  /** Rows, sequences, large objects, properties of the database: what, and its value as text. */
  readonly facts: ReadonlyMap<string, string>;
}

export interface Place {
  readonly server: PostgresServer;
  readonly directory: string;
}

export const urlOf = ({ server }: Place, database: string): string => {
  const url = new URL(server.superuserUrl);
  url.pathname = `/${encodeURIComponent(database)}`;
  return url.href;
};

export const takePicture = async (place: Place, database: string): Promise<Picture> => ({
  schema: await schemaOf(place, database),
  facts: await withClient(urlOf(place, database), readFacts),
});

/** Runs a program of the server's own version as superuser; the password is in the environment. */
export function runProgram(
  { server, directory }: Place,
  name: string,
  database: string,
  words: readonly string[],
): Promise<string> {
  const url = new URL(server.superuserUrl);
  return runCommand(join(server.binDirectory, name), [...words, '--no-password'], {
    directory,
    environment: {
      PGHOST: url.hostname,
      PGPORT: url.port,
      PGUSER: decodeURIComponent(url.username),
      PGPASSWORD: decodeURIComponent(url.password),
      PGDATABASE: database,
    },
  });
}

export async function schemaOf(place: Place, database: string): Promise<Map<string, string>> {
  const text = await runProgram(place, 'pg_dump', database, ['--schema-only']);
  const schema = new Map<string, string>();
  // Each entry has a comment of three lines before it; the random word of \\restrict stands outside of them or at the end.
  for (const entry of text.split(/^--\n-- (?=Name: )/m).slice(1)) {
    const [title = '', ...lines] = entry.split('\n');
    const body = lines
      .filter((line) => !/^(?:--.*|\\(?:un)?restrict .*|SET default_\w+ = .*;|)$/.test(line))
      .join('\n');
    schema.set(title, (schema.get(title) ?? '') + body);
  }
  return schema;
}

async function readFacts(client: Client): Promise<Map<string, string>> {
  const facts = new Map<string, string>();
  const { rows: relations } = await client.query<{ name: string; kind: string }>(
    `SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind AS kind
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE (c.relkind IN ('r', 'S') OR (c.relkind = 'm' AND c.relispopulated))
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1`,
  );
  for (const { name, kind } of relations) {
    const { rows } = await client.query<{ fact: string }>(
      kind === 'S'
        ? `SELECT format('at %s, called %s', last_value, is_called) AS fact FROM ${name}`
        : `SELECT format('%s, %s', count(*), md5(string_agg(md5(t::text), '' ORDER BY md5(t::text)))) AS fact FROM ONLY ${name} t`,
    );
    facts.set(`${kind === 'S' ? 'sequence' : 'rows of'} ${name}`, rows[0]?.fact ?? '');
  }
  const { rows: others } = await client.query<{ what: string; fact: string | null }>(
    `SELECT 'large object ' || oid AS what,
            format('%s %s %s %s', lomowner::regrole, lomacl, obj_description(oid, 'pg_largeobject'), md5(lo_get(oid))) AS fact
     FROM pg_largeobject_metadata
     UNION ALL
     SELECT 'setting ' || split_part(a, '=', 1) || ' ' || s.setrole::regrole::text, a
     FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) a
     WHERE d.datname = current_database()
     UNION ALL
     SELECT 'owner and limit of the database', format('%s %s', datdba::regrole, datconnlimit)
     FROM pg_database WHERE datname = current_database()
     UNION ALL
     SELECT 'rights in the database', string_agg(format('%s %s %s', a.grantee::regrole, a.privilege_type, a.is_grantable), ', '
                                                  ORDER BY a.grantee::regrole::text, a.privilege_type)
     FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a WHERE datname = current_database()
     UNION ALL
     SELECT 'comment of the database', shobj_description(oid, 'pg_database')
     FROM pg_database WHERE datname = current_database()`,
  );
  for (const { what, fact } of others) facts.set(what, fact ?? '');
  return facts;
}

/**
 * What differs from the picture taken at the time of the backup. PostgreSQL writes some expressions differently once they have
 * been dumped and restored; `rewritten` is the schema as it comes out of that, and either way of writing counts as the same.
 */
export function differences(before: Picture, rewritten: ReadonlyMap<string, string>, after: Picture): string[] {
  const found: string[] = [];
  for (const [title, text] of before.schema) {
    const now = after.schema.get(title);
    if (now === undefined) found.push(`gone: ${short(title)}`);
    else if (now !== text && now !== rewritten.get(title)) found.push(`other: ${short(title)}`);
  }
  for (const title of after.schema.keys()) if (!before.schema.has(title)) found.push(`left over: ${short(title)}`);
  for (const what of new Set([...before.facts.keys(), ...after.facts.keys()])) {
    if (before.facts.get(what) !== after.facts.get(what)) found.push(`other: ${what}`);
  }
  return found;
}

/** `Name: users; Type: TABLE; Schema: public; Owner: x` -> `TABLE users`. */
const short = (title: string): string => {
  const { name = title, type = '' } = /^Name: (?<name>.*?); Type: (?<type>.*?);/.exec(title)?.groups ?? {};
  return `${type} ${name}`;
};
