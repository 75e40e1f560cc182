import { type Client, escapeLiteral } from 'pg';
import { sqlState } from '../database-error.ts';
import { sqlName } from '../identifier.ts';

/**
 * Every database this project makes or puts aside says so in its comment: a sentence for people, then the same for
 * programs. The comment changes in the same transaction as a name does, so the record cannot differ from the deed, and it
 * is there for whoever looks with nothing but psql.
 */
export interface DatabaseMark {
  /**
   * `restore`: a backup is being restored into it, to take production's place. `kept-aside`: was production until a restore
   * took its place. `scratch`, `drill`: made on the scratch server for a run, for a drill.
   */
  readonly kind: 'restore' | 'kept-aside' | 'scratch' | 'drill';
  /** First run id of the workflow. */
  readonly runId: string;
  readonly service: string;
  readonly workflowId: string;
  /** ISO 8601: from then on a sweep offers to drop it. */
  readonly expiresAt: string;
  /** Further words for people; one line. */
  readonly note: string;
  /** What the step that made the mark needs to know again, e.g. numbers for its evidence. */
  readonly facts?: { readonly [name: string]: string | number };
}

const SENTENCES: { readonly [Kind in DatabaseMark['kind']]: string } = {
  restore: 'Being restored by',
  'kept-aside': 'Put aside by',
  scratch: 'Made for trying by',
  drill: 'Made for a restore drill by',
};

const FORMAT = 'migration-runbook/mark/1';

/**
 * The comment's text. The part for programs is JSON in ASCII without square brackets, so that no name, note or encoding of
 * the server can end it early, and people may write before and after it.
 *
 * @param oid of the database the mark is made for; a mark that travelled to another one, e.g. by `pg_dump --create`, is
 * then not taken for that one's own. Absent where it is not known yet.
 */
export function databaseMark(mark: DatabaseMark, oid?: number): string {
  const { kind, runId, service, workflowId, expiresAt, note, facts } = mark;
  const sentence = `${SENTENCES[kind]} run ${runId} of migration-runbook (${workflowId}, service ${service}), to be kept until ${expiresAt}. ${note}`;
  const machine = JSON.stringify({ kind, runId, service, workflowId, expiresAt, note, facts, oid });
  const ascii = machine.replaceAll(
    /[^\x20-\x7e]|[[\]]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return `${sentence.replaceAll(/\s+/g, ' ').replaceAll('[', '(').replaceAll(']', ')').trim()} [${FORMAT} ${ascii}]`;
}

/**
 * Reads a mark out of a comment.
 *
 * @param oid of the database that carries the comment; absent = not compared
 * @returns undefined when there is none, more than one, one that was altered, or one of another database: not ours to touch
 */
export function parseDatabaseMark(comment: string | null | undefined, oid?: number): DatabaseMark | undefined {
  const found = [...(comment ?? '').matchAll(/\[migration-runbook\/mark\/1 (\{[^[\]]*\})\]/g)];
  if (found.length !== 1) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(found[0]![1]!);
  } catch {
    return undefined;
  }
  const given = value as Record<string, unknown>;
  const { kind, runId, service, workflowId, expiresAt, note, facts } = given;
  if (typeof kind !== 'string' || !Object.hasOwn(SENTENCES, kind)) return undefined;
  for (const text of [runId, service, workflowId, expiresAt, note]) if (typeof text !== 'string') return undefined;
  if (Number.isNaN(Date.parse(expiresAt as string))) return undefined;
  if (oid !== undefined && given['oid'] !== undefined && given['oid'] !== oid) return undefined;
  if (facts !== undefined && !isFacts(facts)) return undefined;
  const mark = { kind, runId, service, workflowId, expiresAt, note } as DatabaseMark;
  return facts === undefined ? mark : { ...mark, facts };
}

const isFacts = (value: unknown): value is NonNullable<DatabaseMark['facts']> =>
  typeof value === 'object' &&
  value !== null &&
  Object.values(value).every((fact) => typeof fact === 'string' || typeof fact === 'number');

export const isExpired = ({ expiresAt }: Pick<DatabaseMark, 'expiresAt'>, now: number): boolean =>
  Date.parse(expiresAt) <= now;

/**
 * Writes the mark as the database's comment.
 *
 * @param client of the database's owner or a member of it, anywhere on the server
 */
export async function markDatabase(client: Client, name: string, mark: DatabaseMark): Promise<void> {
  const { rows } = await client.query<{ oid: number }>(
    'SELECT oid::int8::float8 AS "oid" FROM pg_database WHERE datname = $1',
    [name],
  );
  await client.query(`COMMENT ON DATABASE ${sqlName(name)} IS ${escapeLiteral(databaseMark(mark, rows[0]?.oid))}`);
}

export interface MarkedDatabase {
  readonly name: string;
  readonly oid: number;
  readonly open: boolean;
  readonly owner: string;
  readonly mark: DatabaseMark;
}

/** Databases of this server that carry a mark of their own, oldest expiry first. */
export async function listMarkedDatabases(client: Client): Promise<MarkedDatabase[]> {
  const { rows } = await client.query<Omit<MarkedDatabase, 'mark'> & { comment: string }>(
    `SELECT datname AS "name", oid::int8::float8 AS "oid", datallowconn AS "open", pg_get_userbyid(datdba) AS "owner",
            shobj_description(oid, 'pg_database') AS "comment"
     FROM pg_database WHERE strpos(shobj_description(oid, 'pg_database'), $1) > 0 ORDER BY datname`,
    [`[${FORMAT} `],
  );
  return rows
    .flatMap(({ comment, ...database }) => {
      const mark = parseDatabaseMark(comment, database.oid);
      return mark === undefined ? [] : [{ ...database, mark }];
    })
    .sort((one, other) => Date.parse(one.mark.expiresAt) - Date.parse(other.mark.expiresAt));
}

/**
 * Bytes; null where the asking role may not see it, or the database was dropped meanwhile. Asked for each by itself: within a
 * list, one that somebody drops at that moment makes the server refuse the whole list.
 *
 * @param client not in a transaction
 */
export async function readDatabaseSize(client: Client, oid: number): Promise<number | null> {
  try {
    const { rows } = await client.query<{ size: number | null }>(
      `SELECT pg_database_size(oid)::float8 AS "size" FROM pg_database
       WHERE oid = $1 AND (has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE'))`,
      [oid],
    );
    return rows[0]?.size ?? null;
  } catch (error) {
    if (sqlState(error) !== UNDEFINED_OBJECT) throw error;
    return null;
  }
}

const UNDEFINED_OBJECT = '42704';
