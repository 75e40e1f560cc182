import { type Client, escapeIdentifier } from 'pg';

/**
 * Pins every setting that the text of a value depends on, for the session or the transaction in which it is called. Row
 * security is off: a policy that would hide rows makes reading fail.
 */
export async function pinFormats(client: Client): Promise<void> {
  await client.query(
    `SELECT pg_catalog.set_config(given.name, given.value, false)
     FROM pg_catalog.jsonb_each_text($1::jsonb) AS given(name, value)`,
    [JSON.stringify(FORMATS)],
  );
}

const FORMATS = {
  TimeZone: 'UTC',
  DateStyle: 'ISO, YMD',
  IntervalStyle: 'postgres',
  extra_float_digits: '1',
  bytea_output: 'hex',
  xmlbinary: 'base64',
  lc_monetary: 'C',
  // Names in columns of type regclass and its like are then always qualified.
  search_path: 'pg_catalog',
  quote_all_identifiers: 'off',
  row_security: 'off',
  // Compiling an expression of this kind costs more than it saves: docs/decisions/0013.
  jit: 'off',
  // Who opens the sessions decides how many processes read.
  max_parallel_workers_per_gather: '0',
} as const;

/** A column and the built-in type its values are stored as; without a type it is hashed as text, which takes longer. */
export interface HashedColumn {
  readonly name: string;
  /** Name in `pg_catalog`, that of the base type for a domain. */
  readonly type?: string;
}

/** Types that PostgreSQL hashes byte by byte: equal hashes mean that the values are written the same. */
const HASHED_AS_STORED = new Set(['bool', 'int2', 'int4', 'oid', 'date', 'uuid', 'bytea']);

/**
 * Text, hashed as bytes: the collation "C" keeps a nondeterministic one from taking different texts for the same. Floats are
 * here because a NaN has many binary forms, of which a restore keeps one.
 */
const HASHED_AS_TEXT = new Set(['text', 'varchar', 'name', 'json', 'jsonb', 'float4', 'float8']);

/**
 * Types whose own hash says less than their text - 1.0 and 1.00, 24 hours and a day, a bigint's folded halves -
 * and whose binary form says all of it, independent of settings and client encoding.
 */
const HASHED_AS_SENT = new Map(
  Object.entries({
    int8: 'int8send',
    numeric: 'numeric_send',
    time: 'time_send',
    timetz: 'timetz_send',
    timestamp: 'timestamp_send',
    timestamptz: 'timestamptz_send',
    interval: 'interval_send',
  }),
);

/**
 * SQL of one row's hash, a bigint over the named columns in the order of their names. Every column counts by all that tells
 * its value from another: scale of a numeric, sign of a zero, NULL against empty. Types without a short way are hashed by the
 * text of their output functions, the ones COPY uses, written as one record, in which NULL is nothing, the empty string `""`,
 * and quotes and backslashes are doubled. Measured against other ways in docs/decisions/0013.
 *
 * Valid under `pinFormats` only. Generated columns are for the caller to leave out.
 *
 * @param alias of the table in the query
 * @param columns a name alone is a column of unknown type
 */
export const rowHashSql = (alias: string, columns: readonly (HashedColumn | string)[]): string =>
  // A record's hash is a sum of its fields' hashes: hashed once more, or values swapped between rows would cancel out.
  `pg_catalog.hashtextextended(${recordHashSql(alias, columns, 0)}::pg_catalog.text COLLATE pg_catalog."C", 0)`;

/** SQL of a condition that about one row in `n` meets, the same ones in every copy of the table. */
export const oneInSql = (alias: string, columns: readonly (HashedColumn | string)[], n: number): string =>
  // The upper bits, in which all columns have a say.
  `((${recordHashSql(alias, columns, 1)} >> 17) & 70368744177663) % ${n} = 0`;

function recordHashSql(alias: string, columns: readonly (HashedColumn | string)[], seed: number): string {
  const named = columns
    .map((column): HashedColumn => (typeof column === 'string' ? { name: column } : column))
    .sort((one, other) => (one.name < other.name ? -1 : 1));
  const short = named.map((column) => fieldSql(alias, column));
  const rest = named.filter((_, index) => short[index] === undefined).map(({ name }) => name);
  const fields = short.filter((field) => field !== undefined);
  if (rest.length > 0 || fields.length === 0) fields.push(recordTextSql(alias, rest));
  return `pg_catalog.hash_record_extended(ROW(${fields.join(', ')}), ${seed})`;
}

function fieldSql(alias: string, { name, type = '' }: HashedColumn): string | undefined {
  const value = `${escapeIdentifier(alias)}.${escapeIdentifier(name)}`;
  if (HASHED_AS_STORED.has(type)) return `${value}::pg_catalog.${type}`;
  if (HASHED_AS_TEXT.has(type)) return `${value}::pg_catalog.text COLLATE pg_catalog."C"`;
  const send = HASHED_AS_SENT.get(type);
  return send === undefined ? undefined : `pg_catalog.${send}(${value})`;
}

/** The named columns as the text of one record. */
export const recordTextSql = (alias: string, columns: readonly string[]): string => {
  const fields = [...columns].sort().map((column) => `${escapeIdentifier(alias)}.${escapeIdentifier(column)}`);
  return `ROW(${fields.join(', ')})::pg_catalog.text COLLATE pg_catalog."C"`;
};
