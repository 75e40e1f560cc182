import type { Client } from 'pg';
import type { Arrivals } from '../contract/evidence/rollback.ts';
import type { DroppedObject } from '../contract/evidence/rehearsal.ts';
import { COLUMNS_OF, type ComparableColumn, KEYS_OF } from '../postgres/contents/comparable-tables.ts';
import { countOf, isBeyondDefault } from '../postgres/contents/constant-default.ts';
import { sqlState } from '../postgres/database-error.ts';
import { qualifiedName, sqlName } from '../postgres/identifier.ts';

export type CountedObject = Arrivals['objects'][number];

/** A relation with arrivals, and what of it is to be exported. */
export interface ArrivalsSource {
  readonly table: string;
  readonly relation: Relation;
  /** Null: the table with all its columns. */
  readonly column: string | null;
  /** SQL that its rows fulfil. */
  readonly condition: string;
  readonly rows: number;
}

export interface Relation {
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly ComparableColumn[];
  readonly keys: readonly (readonly string[])[];
}

export interface CountedArrivals {
  readonly objects: readonly CountedObject[];
  readonly sources: readonly ArrivalsSource[];
  /** What could not be counted, in words. */
  readonly unknown: readonly string[];
}

/** Milliseconds. */
export interface CountLimits {
  readonly statement: number;
  readonly lock: number;
}

/** How much came: what is there beyond what the migration itself had put there. */
export const arrived = ({ found, rows }: CountedObject): number => Math.max(0, found - rows);

/**
 * Counts rows and values of objects in the caller's transaction, table by table. An object that does not exist holds
 * nothing; one that is locked, or takes too long, is told as unknown.
 *
 * @param client in a transaction, with the catalog alone in its search path
 * @param changed tables that are sources in any case
 */
export async function countObjects(
  client: Client,
  dropped: readonly DroppedObject[],
  limits: CountLimits,
  progress: (now: { readonly table: string; readonly done: number; readonly of: number }) => void,
  changed: ReadonlySet<string> = new Set(),
): Promise<CountedArrivals> {
  const byTable = Map.groupBy(dropped, ({ table }) => table);
  const relations = await readRelations(client, [...byTable.keys()]);
  const objects: CountedObject[] = [];
  const sources: ArrivalsSource[] = [];
  const unknown: string[] = [];
  let done = 0;
  for (const [table, wanted] of byTable) {
    progress({ table, done, of: byTable.size });
    done += 1;
    const relation = relations.get(table);
    const there = wanted.filter(({ column }) => relation && (column === null || hasColumn(relation, column)));
    objects.push(...wanted.filter((object) => !there.includes(object)).map((object) => ({ ...object, found: 0 })));
    if (relation === undefined || there.length === 0) continue;
    const counts = await countOne(client, relation, there, limits);
    if (typeof counts === 'string') {
      unknown.push(...there.map((object) => `${labelOf(object)} (${counts})`));
      continue;
    }
    const counted = there.map((object, index) => ({ ...object, found: foundOf(object, counts[index]!) }));
    objects.push(...counted);
    const found = counted.flatMap((object, index) =>
      arrived(object) > 0 || (changed.has(table) && object.found > 0)
        ? [sourceOf(relation, object, counts[index]!)]
        : [],
    );
    // The table as a whole has the values of its columns too.
    sources.push(
      ...(found.some(({ column }) => column === null) ? found.filter(({ column }) => column === null) : found),
    );
  }
  return { objects, sources, unknown };
}

const hasColumn = ({ columns }: Relation, column: string): boolean => columns.some(({ name }) => name === column);

interface Count {
  /** Rows, or values that are not null. */
  readonly held: number;
  readonly beyondDefault: number | undefined;
  /** SQL that the latter fulfil. */
  readonly condition: string | undefined;
}

/** Where it is known on both sides which values are not the default, only those count as more. */
const foundOf = ({ rows, beyondDefault }: DroppedObject, count: Count): number =>
  beyondDefault === undefined || count.beyondDefault === undefined
    ? count.held
    : rows + Math.max(0, count.beyondDefault - beyondDefault);

function sourceOf(
  relation: Relation,
  { table, column, beyondDefault: rehearsed }: CountedObject,
  { held, beyondDefault, condition }: Count,
): ArrivalsSource {
  if (column === null) return { table, relation, column, condition: 'true', rows: held };
  return rehearsed === undefined || beyondDefault === undefined || condition === undefined
    ? { table, relation, column, condition: `${sqlName(column)} IS NOT NULL`, rows: held }
    : { table, relation, column, condition, rows: beyondDefault };
}

/** Counts, in the order wanted; or why there are none. */
async function countOne(
  client: Client,
  relation: Relation,
  wanted: readonly DroppedObject[],
  limits: CountLimits,
): Promise<readonly Count[] | string> {
  await client.query('SAVEPOINT counting');
  try {
    await client.query(`SET LOCAL statement_timeout = ${limits.statement}`);
    await client.query(`SET LOCAL lock_timeout = ${limits.lock}`);
    const defaults = await readDefaults(client, relation);
    const conditions = wanted.map(({ column }) =>
      column === null ? undefined : isBeyondDefault(column, defaults.get(column) ?? null),
    );
    const counts = wanted.flatMap(({ column }, index) => [
      column === null ? 'count(*)' : `count(${sqlName(column)})`,
      conditions[index] === undefined ? 'NULL' : countOf(conditions[index]),
    ]);
    const { rows } = await client.query<(string | null)[]>({
      text: `SELECT ${counts.join(', ')} FROM ${sqlName(relation.schema, relation.name)}`,
      rowMode: 'array',
    });
    return wanted.map((_object, index) => {
      const [held, beyond] = rows[0]!.slice(2 * index);
      return {
        held: Number(held),
        beyondDefault: typeof beyond === 'string' ? Number(beyond) : undefined,
        condition: conditions[index],
      };
    });
  } catch (error) {
    const why = whyUnknown(sqlState(error), limits);
    if (why === undefined) throw error;
    return why;
  } finally {
    await client.query('ROLLBACK TO SAVEPOINT counting').catch(() => undefined);
  }
}

/** SQL of each default, by column. The deparser locks the table: under the same limits as the count. */
async function readDefaults(client: Client, { schema, name }: Relation): Promise<ReadonlyMap<string, string>> {
  const { rows } = await client.query<{ column: string; expression: string }>(
    `SELECT a.attname AS "column", pg_get_expr(d.adbin, d.adrelid) AS "expression"
     FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
     WHERE d.adrelid = (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = $1 AND c.relname = $2)`,
    [schema, name],
  );
  return new Map(rows.map(({ column, expression }) => [column, expression]));
}

/** By SQLSTATE (PostgreSQL documentation, Error Codes). What else goes wrong is no answer, and the step is tried again. */
function whyUnknown(state: string | undefined, { statement, lock }: CountLimits): string | undefined {
  switch (state) {
    case '55P03':
      return `it is locked for more than ${lock / 1000} s`;
    case '57014':
      return `counting takes longer than ${statement / 1000} s`;
    case '42501':
      return 'the administrator may not read it: it wants pg_read_all_data, and BYPASSRLS where there are policies';
    case undefined:
    default:
      return undefined;
  }
}

const labelOf = ({ table, column }: DroppedObject): string =>
  column === null ? table : `${table}.${qualifiedName(column)}`;

/** Those that exist, partitioned tables included, by their name in the object map. */
async function readRelations(client: Client, names: readonly string[]): Promise<ReadonlyMap<string, Relation>> {
  const { rows } = await client.query<Relation>(
    `SELECT n.nspname AS "schema", c.relname AS "name", ${COLUMNS_OF} AS "columns", ${KEYS_OF} AS "keys"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'`,
  );
  const wanted = new Set(names);
  return new Map(
    rows
      .map((relation) => [qualifiedName(relation.schema, relation.name), relation] as const)
      .filter(([name]) => wanted.has(name)),
  );
}
