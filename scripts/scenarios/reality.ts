/** Compares production with what an outcome claims, by reading the database, not the report. */
import type { Client } from 'pg';
import type { Outcome } from '../../src/contract/profile.ts';
import { captureObjectMap, type ObjectMap } from '../../src/postgres/catalog/object-map.ts';
import { compareMaps, describeChange, meansTheSame } from '../../src/postgres/catalog/object-map-change.ts';
import type { Example } from '../stack/example.ts';
import { withClient } from '../stack/postgres-cluster.ts';

interface TableContent {
  readonly columns: readonly string[];
  /** The rows that were there, and must stay as they were: up to the highest number, or the keys themselves. */
  readonly keys: KnownKeys;
  readonly rows: number;
  readonly checksum: string;
}

type KnownKeys =
  | { readonly kind: 'none' }
  | { readonly kind: 'up-to'; readonly highest: string }
  | { readonly kind: 'listed'; readonly list: readonly string[] };

/** Objects and content of production at one moment. */
export interface Picture {
  readonly map: ObjectMap;
  readonly versionRows: readonly string[];
  readonly tables: Readonly<Record<string, TableContent>>;
}

export const takePicture = (example: Example): Promise<Picture> =>
  onProduction(example, async (client) => {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    const names = await client.query<{ name: string }>(
      `SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind = 'r' AND n.nspname = 'public' AND c.relname <> 'alembic_version' ORDER BY 1`,
    );
    const tables: Record<string, TableContent> = {};
    for (const { name } of names.rows) tables[name] = await contentOf(client, name, await columnsOf(client, name));
    const versions = await client.query<{ version_num: string }>(
      'SELECT version_num FROM public.alembic_version ORDER BY 1',
    );
    await client.query('ROLLBACK');
    return { map: await captureObjectMap(client), versionRows: versions.rows.map((row) => row.version_num), tables };
  });

export interface Expectation {
  readonly outcome: Outcome;
  /** Before the run. */
  readonly before: Picture;
  /** After the rows of the scenario were added: what an undo without restore has to keep. */
  readonly loaded: Picture;
  readonly targetRevision: string;
}

/** @returns what is not as the outcome claims; empty when all is */
export async function compareWithReality(
  example: Example,
  { outcome, before, loaded, targetRevision }: Expectation,
): Promise<string[]> {
  const now = await takePicture(example);
  const findings: string[] = [];
  const kept = outcome === 'restored' ? before : loaded;
  const rows = await changedRows(example, kept);
  if (outcome === 'succeeded') {
    if (now.versionRows.join() !== targetRevision)
      findings.push(`version rows are ${now.versionRows.join()}, not ${targetRevision}`);
    const { removed } = compareMaps(before.map, now.map);
    findings.push(...removed.map(({ kind, name }) => `${kind} ${name} is gone`));
  } else {
    if (now.versionRows.join() !== before.versionRows.join()) {
      findings.push(`version rows are ${now.versionRows.join()}, not ${before.versionRows.join()}`);
    }
    const change = compareMaps(before.map, now.map);
    // What was dumped and restored may be written differently.
    const changed = outcome === 'restored' ? change.changed.filter((object) => !meansTheSame(object)) : change.changed;
    findings.push(...describeChange({ ...change, changed }));
  }
  findings.push(...rows);
  findings.push(...(await leftovers(example)));
  return findings;
}

/** Rows that were there must be there, with the same content, whatever smoke tests have added since. */
async function changedRows(example: Example, kept: Picture): Promise<string[]> {
  return onProduction(example, async (client) => {
    const findings: string[] = [];
    for (const [name, content] of Object.entries(kept.tables)) {
      const present = await client.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [name]);
      if (!present.rows[0]?.there) {
        findings.push(`table ${name} is gone`);
        continue;
      }
      const now = await contentOf(client, name, content.columns, content.keys);
      if (now.rows !== content.rows) findings.push(`${name}: ${now.rows} of ${content.rows} rows are there`);
      else if (now.checksum !== content.checksum) findings.push(`${name}: rows have changed`);
    }
    return findings;
  });
}

/** Sessions of the migrator, invalid indexes, databases shut by a swap, a fence that is still up, a copy that nobody needs. */
async function leftovers(example: Example): Promise<string[]> {
  return onProduction(example, async (client) => {
    const { rows } = await client.query<{ finding: string }>(
      `SELECT 'a session of the migrator is left: ' || pid AS finding FROM pg_stat_activity WHERE usename = 'whisper_migrator'
       UNION ALL
       SELECT 'invalid index ' || indexrelid::regclass FROM pg_index WHERE NOT indisvalid
       UNION ALL
       SELECT 'nobody can connect to ' || datname FROM pg_database WHERE datname = current_database() AND NOT datallowconn
       UNION ALL
       SELECT 'the fence is still up: ' || array_to_string(s.setconfig, ', ')
       FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
       WHERE d.datname = current_database() AND array_to_string(s.setconfig, ',') LIKE '%default_transaction_read_only%'
       UNION ALL
       SELECT 'a restored database is left: ' || datname FROM pg_database
       WHERE strpos(datname, current_database() || '_restore_') = 1`,
    );
    return rows.map(({ finding }) => finding);
  });
}

async function columnsOf(client: Client, table: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT quote_ident(attname) AS name FROM pg_attribute
     WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname`,
    [table],
  );
  return rows.map(({ name }) => name);
}

/** All rows, or those known by their keys: the first column of the primary key. */
async function contentOf(
  client: Client,
  table: string,
  columns: readonly string[],
  known?: KnownKeys,
): Promise<TableContent> {
  const key = await client.query<{ name: string; type: string }>(
    `SELECT quote_ident(a.attname) AS name, format_type(a.atttypid, NULL) AS type
     FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
     WHERE i.indrelid = $1::regclass AND i.indisprimary`,
    [table],
  );
  const column = key.rows[0];
  const keys = known ?? (column ? await keysOf(client, table, column) : { kind: 'none' as const });
  const { text, values } = condition(keys, column);
  const { rows } = await client.query<{ rows: string; checksum: string | null }>(
    `SELECT count(*) AS rows, sum(hashtextextended(ROW(${columns.join(', ')})::text, 0))::text AS checksum
     FROM ${table} WHERE ${known ? text : 'true'}`,
    known ? values : [],
  );
  return { columns, keys, rows: Number(rows[0]?.rows ?? 0), checksum: rows[0]?.checksum ?? '' };
}

interface KeyColumn {
  readonly name: string;
  readonly type: string;
}

async function keysOf(client: Client, table: string, { name, type }: KeyColumn): Promise<KnownKeys> {
  if (/^(bigint|integer|smallint)$/.test(type)) {
    const { rows } = await client.query<{ highest: string }>(
      `SELECT coalesce(max(${name}), 0)::text AS highest FROM ${table}`,
    );
    return { kind: 'up-to', highest: rows[0]?.highest ?? '0' };
  }
  // Keys that do not grow: new rows may lie anywhere between the old ones.
  const { rows } = await client.query<{ key: string }>(`SELECT ${name}::text AS key FROM ${table}`);
  return { kind: 'listed', list: rows.map((row) => row.key) };
}

function condition(
  keys: KnownKeys,
  column: KeyColumn | undefined,
): { readonly text: string; readonly values: unknown[] } {
  if (keys.kind === 'none' || !column) return { text: 'true', values: [] };
  return keys.kind === 'up-to'
    ? { text: `${column.name} <= $1::${column.type}`, values: [keys.highest] }
    : { text: `${column.name}::text = ANY ($1)`, values: [keys.list] };
}

export function onProduction<T>(example: Example, work: (client: Client) => Promise<T>): Promise<T> {
  const { primary } = example.stack.postgres;
  if (!primary) throw new Error('the stack runs without its primary');
  const url = new URL(primary.superuserUrl);
  url.pathname = `/${encodeURIComponent(example.databases.production)}`;
  return withClient(url.href, work);
}
