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
} as const;

/**
 * SQL of one row's hash, a bigint: `hashtextextended` over the row written as a record of the named columns, sorted by name.
 * A record's text comes from the types' own output functions, as COPY's does; it sets NULL (nothing) apart from the empty
 * string (`""`) and doubles quotes and backslashes, so that no two rows share one text. Hashed as bytes (collation "C").
 *
 * Valid under `pinFormats` only. Generated columns are for the caller to leave out.
 *
 * @param alias of the table in the query
 */
export const rowHashSql = (alias: string, columns: readonly string[], seed = 0): string =>
  `pg_catalog.hashtextextended(${recordTextSql(alias, columns)}, ${seed})`;

/** The text that `rowHashSql` hashes. */
export const recordTextSql = (alias: string, columns: readonly string[]): string => {
  const fields = [...columns].sort().map((column) => `${escapeIdentifier(alias)}.${escapeIdentifier(column)}`);
  return `ROW(${fields.join(', ')})::pg_catalog.text COLLATE pg_catalog."C"`;
};
