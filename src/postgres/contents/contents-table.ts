import { type Client, escapeIdentifier } from 'pg';
import { qualifiedName, sqlName } from '../identifier.ts';
import { type ExtensionTables, isWantedSql } from './extension-tables.ts';
import { type HashedColumn, oneInSql, rowHashSql } from './row-hash.ts';

/** Which rows of a table went into its checksum. */
export type Sample =
  | { readonly kind: 'all' }
  /** Those whose hash over the columns `by` is divisible by `n`: the same ones after a restore. */
  | { readonly kind: 'one-in'; readonly n: number; readonly by: readonly string[] };

/** One table's rows, as a backup's ledger records them. */
export interface TableContents {
  /** Named as in the object map. */
  readonly table: string;
  /** All of them, sampled or not. */
  readonly rows: number;
  /** What was hashed, sorted; generated columns are not. */
  readonly columns: readonly string[];
  /** Sum of the rows' hashes (see `rowHashSql`), in decimal: independent of the rows' order, and duplicates count. */
  readonly checksum: string;
  readonly sample: Sample;
}

/** What decides how a table is read. */
export interface ReadableTable {
  readonly schema: string;
  readonly name: string;
  /** Its own size with TOAST, without indexes. */
  readonly bytes: number;
  /** Of the heap; null where rows cannot be addressed by block. */
  readonly blocks: number | null;
  /** Without generated ones: their values follow from the others by a definition that the object map compares. */
  readonly columns: readonly HashedColumn[];
  /** Columns that tell rows apart at little cost: the primary key, another unique one, or those of fixed length. */
  readonly key: readonly string[];
}

/** How a table is read: which columns, which rows. */
export interface TableShape {
  readonly source: ReadableTable;
  readonly table: string;
  readonly columns: readonly string[];
  readonly sample: Sample;
}

/** A range of a table's blocks, from `from` up to and without `to`; both null: all of it. */
export interface TablePart {
  readonly shape: TableShape;
  readonly bytes: number;
  readonly from: number | null;
  readonly to: number | null;
}

/** Of a part, or added up. Decimal. */
export interface Sums {
  readonly rows: string;
  readonly checksum: string;
}

/** Of type `t`, or of type `b` where `t` is a domain over it. */
const BUILT_IN_TYPE = `CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname
                            WHEN b.typnamespace = 'pg_catalog'::regnamespace THEN b.typname ELSE '' END`;

/** Ordinary tables and leaf partitions. */
export async function readableTables(client: Client, members: ExtensionTables = 'left-out'): Promise<ReadableTable[]> {
  const { rows } = await client.query<ReadableTable>(
    `SELECT n.nspname AS "schema", c.relname AS "name", pg_table_size(c.oid)::float8 AS "bytes",
            CASE WHEN m.amname = 'heap'
                 THEN (pg_relation_size(c.oid) / current_setting('block_size')::int)::float8 END AS "blocks",
            (SELECT coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'type', ${BUILT_IN_TYPE})), '[]')
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS "columns",
            coalesce(
              (SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey))
               FROM pg_index i
               WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
               ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1),
              ARRAY(SELECT a.attname::text FROM pg_attribute a
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attlen > 0)
            ) AS "key"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
     WHERE c.relkind = 'r' AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND ${isWantedSql(members)}`,
  );
  return rows;
}

/** Decides columns and sample; as recorded where there is a record that this table can follow. */
export function shapeOf(
  source: ReadableTable,
  { sampleAbove, like }: { readonly sampleAbove: number; readonly like: TableContents | undefined },
): TableShape {
  const table = qualifiedName(source.schema, source.name);
  const columns = source.columns.map(({ name }) => name).sort();
  const has = (wanted: readonly string[]): boolean => wanted.every((column) => columns.includes(column));
  if (like !== undefined) {
    const by = like.sample.kind === 'all' ? [] : like.sample.by;
    return {
      source,
      table,
      columns: has(like.columns) ? like.columns : columns,
      sample: has(by) ? like.sample : { kind: 'all' },
    };
  }
  const n = Math.ceil(source.bytes / sampleAbove);
  const key = source.key.filter((column) => columns.includes(column)).sort();
  const sample: Sample = n > 1 ? { kind: 'one-in', n, by: key.length > 0 ? key : columns } : { kind: 'all' };
  return { source, table, columns, sample };
}

/** Bytes of heap that one session reads at a time: many sessions can then share one large table. */
const PART = 128 * 1024 ** 2;

export function partsOf(shape: TableShape): TablePart[] {
  const { blocks, bytes } = shape.source;
  const count = blocks === null ? 1 : Math.min(blocks, Math.ceil(bytes / PART));
  if (blocks === null || count <= 1) return [{ shape, bytes, from: null, to: null }];
  const step = Math.ceil(blocks / count);
  return Array.from({ length: Math.ceil(blocks / step) }, (_, index) => ({
    shape,
    bytes: bytes / count,
    from: index * step,
    // The last one is open: the file may have grown, and rows of the snapshot that were moved there must not be missed.
    to: (index + 1) * step < blocks ? (index + 1) * step : null,
  }));
}

export async function hashPart(client: Client, { shape, from, to }: TablePart): Promise<Sums> {
  const { source, sample } = shape;
  const typed = (names: readonly string[]): HashedColumn[] => source.columns.filter(({ name }) => names.includes(name));
  const picked = sample.kind === 'all' ? '' : `FILTER (WHERE ${oneInSql('t', typed(sample.by), sample.n)})`;
  const range = [
    ...(from === null ? [] : [`t.ctid >= '(${from},0)'::tid`]),
    ...(to === null ? [] : [`t.ctid < '(${to},0)'::tid`]),
  ];
  // ONLY: children of an inheritance parent are tables of their own.
  const { rows } = await client.query<Sums>(
    `SELECT count(*)::text AS "rows", coalesce(sum(${rowHashSql('t', typed(shape.columns))}) ${picked}, 0)::text AS "checksum"
     FROM ONLY ${sqlName(source.schema, source.name)} AS ${escapeIdentifier('t')}
     ${range.length === 0 ? '' : `WHERE ${range.join(' AND ')}`}`,
  );
  return rows[0]!;
}

export function joinParts(
  shapes: readonly TableShape[],
  read: readonly { readonly part: TablePart; readonly sums: Sums }[],
): TableContents[] {
  const totals = new Map(shapes.map((shape) => [shape, { rows: 0n, checksum: 0n }]));
  for (const { part, sums } of read) {
    const total = totals.get(part.shape)!;
    total.rows += BigInt(sums.rows);
    total.checksum += BigInt(sums.checksum);
  }
  return shapes.map((shape) => {
    const { rows, checksum } = totals.get(shape)!;
    return {
      table: shape.table,
      rows: Number(rows),
      columns: shape.columns,
      checksum: String(checksum),
      sample: shape.sample,
    };
  });
}
