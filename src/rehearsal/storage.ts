/** What a database takes up and which files its relations are in, before and after. */
import type { Client } from 'pg';
import { qualifiedName } from '../postgres/identifier.ts';

export interface StoredRelation {
  readonly oid: number;
  /** As in the object map. */
  readonly name: string;
  readonly kind: 'table' | 'index' | 'materialized view' | 'other';
  /** Of an index: its table. */
  readonly tableOid: number | null;
  /** `relfilenode`; another one: the relation was written anew. Null without files of its own. */
  readonly file: number | null;
  /** Without TOAST and indexes. */
  readonly bytes: number;
}

export interface StorageState {
  /** `pg_lsn`, as text. */
  readonly lsn: string;
  readonly databaseBytes: number;
  readonly relations: readonly StoredRelation[];
}

/** Every relation that is not the system's own: whatever can be locked by name. */
export async function readStorage(client: Client): Promise<StorageState> {
  const { rows: server } = await client.query<Pick<StorageState, 'lsn' | 'databaseBytes'>>(
    `SELECT pg_current_wal_insert_lsn()::text AS "lsn", pg_database_size(current_database())::float8 AS "databaseBytes"`,
  );
  const { rows } = await client.query<Omit<StoredRelation, 'name'> & { schema: string; relation: string }>(
    `SELECT c.oid::int8::float8 AS "oid", n.nspname AS "schema", c.relname AS "relation",
            CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'i' THEN 'index' WHEN 'I' THEN 'index'
                           WHEN 'm' THEN 'materialized view' ELSE 'other' END AS "kind",
            (SELECT i.indrelid::int8::float8 FROM pg_index i WHERE i.indexrelid = c.oid) AS "tableOid",
            nullif(pg_relation_filenode(c.oid)::int8::float8, 0) AS "file",
            CASE WHEN c.relkind IN ('r', 'm', 'i') THEN coalesce(pg_relation_size(c.oid), 0)::float8 ELSE 0 END AS "bytes"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relpersistence <> 't'`,
  );
  const relations = rows.map(({ schema, relation, ...stored }) => ({
    ...stored,
    name: qualifiedName(schema, relation),
  }));
  return { ...server[0]!, relations };
}

/** Bytes between two positions of the log, whoever wrote them: the whole server's. */
export async function walBetween(client: Client, from: string, to: string): Promise<number> {
  const { rows } = await client.query<{ bytes: number }>(
    'SELECT pg_wal_lsn_diff($1::pg_lsn, $2::pg_lsn)::float8 AS "bytes"',
    [to, from],
  );
  return rows[0]!.bytes;
}

/** Names of relations that were there before, those that they go by now included. */
export function namesOfExisting(before: StorageState, after: StorageState): ReadonlySet<string> {
  const oids = new Set(before.relations.map(({ oid }) => oid));
  const now = after.relations.filter(({ oid }) => oids.has(oid));
  return new Set([...before.relations, ...now].map(({ name }) => name));
}

/** Relations with other files than before, by the names they had; indexes only where their table was not written anew itself. */
export function rewritten(
  before: StorageState,
  after: StorageState,
): readonly { readonly relation: string; readonly bytes: number }[] {
  const first = new Map(before.relations.map((relation) => [relation.oid, relation]));
  const anew = after.relations.filter(({ oid, file, kind }) => {
    const was = first.get(oid);
    return kind !== 'other' && was !== undefined && was.file !== null && was.file !== file;
  });
  const oids = new Set(anew.map(({ oid }) => oid));
  return anew
    .filter(({ tableOid }) => tableOid === null || !oids.has(tableOid))
    .map(({ oid, bytes }) => ({ relation: first.get(oid)!.name, bytes }))
    .sort((one, other) => other.bytes - one.bytes);
}
