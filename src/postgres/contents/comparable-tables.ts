import type { Client } from 'pg';
import { type ExtensionTables, isWantedSql } from './extension-tables.ts';
import type { HashedColumn } from './row-hash.ts';

export interface ComparableColumn {
  readonly name: string;
  /** As `format_type` writes it, with its modifier. */
  readonly type: string;
  /** A built-in type whose values mean the same in every database: no enum, domain, composite, extension's type, nor names of objects or of a currency. */
  readonly builtIn: boolean;
  readonly generated: boolean;
  /** See `HashedColumn`; null for a type that is not in `pg_catalog`. */
  readonly storedAs: string | null;
}

/** An ordinary table or leaf partition as far as its rows can be compared with those of another database. */
export interface ComparableTable {
  readonly schema: string;
  readonly name: string;
  /** By the last ANALYZE or VACUUM; 0 where there was none. */
  readonly estimatedRows: number;
  readonly columns: readonly ComparableColumn[];
  /** Columns of which no two rows agree and none is NULL, the primary key first. */
  readonly keys: readonly (readonly string[])[];
}

/** SQL: the columns of the relation `c`, as JSON of `ComparableColumn`. */
export const COLUMNS_OF = `coalesce((SELECT json_agg(json_build_object(
                     'name', a.attname,
                     'type', format_type(a.atttypid, a.atttypmod),
                     'builtIn', t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
                                AND t.typname !~ '^_?(money|aclitem|reg|pg_)',
                     'generated', a.attgenerated <> '',
                     'storedAs', CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname END) ORDER BY a.attnum)
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),'[]')`;

/** SQL: the keys of the relation `c`, as JSON. */
export const KEYS_OF = `coalesce((SELECT json_agg(k.names ORDER BY k.indisprimary DESC, json_array_length(k.names), k.names::text COLLATE "C")
            FROM (SELECT i.indisprimary, json_agg(a.attname ORDER BY p.place) AS names
                  FROM pg_index i
                  CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS p(attnum, place)
                  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = p.attnum
                  WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indisready
                    AND i.indpred IS NULL AND i.indexprs IS NULL AND p.place <= i.indnkeyatts
                  GROUP BY i.indexrelid, i.indisprimary
                  HAVING bool_and(a.attnotnull)) k), '[]')`;

/**
 * Every table whose rows a backup holds: ordinary tables and leaf partitions; temporary tables left out, and members of
 * extensions but for those that `members` says. Reads in the caller's transaction.
 */
export async function readComparableTables(
  client: Client,
  members: ExtensionTables = 'left-out',
): Promise<ComparableTable[]> {
  const { rows } = await client.query<ComparableTable>(
    `SELECT n.nspname AS "schema", c.relname AS "name", greatest(c.reltuples, 0)::float8 AS "estimatedRows",
       ${COLUMNS_OF} AS "columns", ${KEYS_OF} AS "keys"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND ${isWantedSql(members)}`,
  );
  return rows;
}

/** Columns as they are hashed on both sides alike: the short way where both store the same built-in type, else as text. */
export const hashedAlike = (
  names: readonly string[],
  one: ComparableTable,
  other: ComparableTable,
): readonly HashedColumn[] =>
  names.map((name) => {
    const [type, otherType] = [one, other].map(
      ({ columns }) => columns.find((column) => column.name === name)?.storedAs,
    );
    return type && type === otherType ? { name, type } : { name };
  });
