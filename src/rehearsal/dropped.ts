/** What the downgrade drops of that which the upgrade made, and how many rows the migration itself had put there. */
import { type Client, escapeIdentifier } from 'pg';
import type { DroppedObject } from '../contract/evidence/rehearsal.ts';
import { countBeyondDefault } from '../postgres/contents/constant-default.ts';
import { isWantedSql } from '../postgres/contents/extension-tables.ts';
import { qualifiedName, sqlName } from '../postgres/identifier.ts';

/** A table or a column by what it is, whatever it is called: renaming keeps OID and number. */
export interface HeldObject extends DroppedObject {
  readonly oid: number;
  /** Of a column. */
  readonly number: number | null;
  /** Of a partition: its parent. */
  readonly parent: number | null;
}

interface TableRow {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly parent: number | null;
  readonly columns: readonly {
    readonly name: string;
    readonly number: number;
    readonly generated: boolean;
    readonly default: string | null;
  }[];
}

/** Tables that hold rows, partitioned ones and partitions included. */
async function readTables(client: Client): Promise<TableRow[]> {
  const { rows } = await client.query<TableRow>(
    `SELECT c.oid::int8::float8 AS "oid", n.nspname AS "schema", c.relname AS "name",
            CASE WHEN c.relispartition
                 THEN (SELECT i.inhparent::int8::float8 FROM pg_inherits i WHERE i.inhrelid = c.oid) END AS "parent",
            coalesce((SELECT json_agg(json_build_object('name', a.attname, 'number', a.attnum, 'generated', a.attgenerated <> '',
                                                                'default', pg_get_expr(d.adbin, d.adrelid)))
                      FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS "columns"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND ${isWantedSql('configuration')}
     ORDER BY 2, 3`,
  );
  return rows;
}

const columnName = (table: string, column: string): string => `${table}.${escapeIdentifier(column)}`;

/** Tables and columns by name, before the upgrade. */
export async function namesHeld(client: Client): Promise<ReadonlySet<string>> {
  const tables = await readTables(client);
  return new Set(
    tables.flatMap(({ schema, name, columns }) => {
      const table = qualifiedName(schema, name);
      return [table, ...columns.map((column) => columnName(table, column.name))];
    }),
  );
}

/**
 * Tables and columns under names that were not there before, with their rows, and their values that are not null: counted
 * on the upgraded copy, before the downgrade drops them.
 *
 * @param before of the same database before the upgrade
 * @param leaveOut Alembic's version table
 */
export async function countNewObjects(
  client: Client,
  before: ReadonlySet<string>,
  leaveOut: string,
): Promise<HeldObject[]> {
  const found: HeldObject[] = [];
  for (const { oid, schema, name, parent, columns } of await readTables(client)) {
    const table = qualifiedName(schema, name);
    if (table === leaveOut) continue;
    const isNew = !before.has(table);
    const added = columns.filter((column) => !column.generated && !before.has(columnName(table, column.name)));
    if (!isNew && added.length === 0) continue;
    const counts = [
      'count(*)',
      ...added.flatMap((column) => [
        `count(${escapeIdentifier(column.name)})`,
        countBeyondDefault(column.name, column.default) ?? 'NULL',
      ]),
    ];
    const { rows } = await client.query<(string | null)[]>({
      text: `SELECT ${counts.join(', ')} FROM ${sqlName(schema, name)}`,
      rowMode: 'array',
    });
    const [all = '0', ...values] = rows[0]!;
    if (isNew) found.push({ table, column: null, rows: Number(all), oid, number: null, parent });
    for (const [index, column] of added.entries()) {
      const [held, beyondDefault] = values.slice(2 * index);
      found.push({
        table,
        column: column.name,
        rows: Number(held),
        ...(typeof beyondDefault === 'string' && { beyondDefault: Number(beyondDefault) }),
        oid,
        number: column.number,
        parent,
      });
    }
  }
  return found;
}

/**
 * Which of them the downgrade has dropped: neither is the object there any more, under whatever name, nor another one under
 * its name. Of a table that is gone its columns are not told, of a partitioned table its partitions.
 */
export async function droppedSince(client: Client, upgraded: readonly HeldObject[]): Promise<DroppedObject[]> {
  const tables = await readTables(client);
  const names = await namesHeld(client);
  const live = new Map(tables.map(({ oid, columns }) => [oid, new Set(columns.map(({ number }) => number))]));
  const gone = upgraded.filter(({ table, column, oid, number }) => {
    const there = live.get(oid);
    const lives = there !== undefined && (number === null || there.has(number));
    return !lives && !names.has(column === null ? table : columnName(table, column));
  });
  const tablesGone = new Set(gone.filter(({ column }) => column === null).map(({ oid }) => oid));
  const columnsGone = new Set(
    gone.filter(({ column }) => column !== null).map(({ oid, column }) => `${oid} ${column}`),
  );
  return gone
    .filter(({ column, oid, parent }) => {
      if (column === null) return parent === null || !tablesGone.has(parent);
      return !tablesGone.has(oid) && (parent === null || !columnsGone.has(`${parent} ${column}`));
    })
    .map(({ oid: _oid, number: _number, parent: _parent, ...dropped }) => dropped);
}
