/** Rows, large objects and sequences of the copy after the downgrade, against those of the backup. */
import type { Client } from 'pg';
import { type DatabaseContents, readContents, readTables } from '../postgres/contents/contents.ts';
import { readLargeObjects } from '../postgres/contents/large-objects.ts';
import { qualifiedName } from '../postgres/identifier.ts';
import { type DataDifference, findLostLargeObjects, findLostValues, type LossSessions } from './lost-values.ts';

export interface ComparedData {
  readonly lost: DataDifference['lost'];
  /** What is there beyond what was, in words. */
  readonly beyond: readonly string[];
}

export interface DataSessions extends LossSessions {
  /** Further ones in either, that read side by side. */
  readonly readers: { readonly pristine: readonly Client[]; readonly tried: readonly Client[] };
}

/**
 * By checksum first, over every row and large object; what differs is looked at row by row.
 *
 * @param recorded of the pristine database: what it holds of whole tables is not read again. Absent: all is read from it
 * @param leaveOut Alembic's version table, by its name in the object map
 */
export async function compareData(
  sessions: DataSessions,
  recorded: DatabaseContents | undefined,
  leaveOut: string,
  progress: (table: string) => void,
): Promise<ComparedData> {
  const options = { ...WHOLE, progress: (table: string) => progress(table) };
  const pristine = [sessions.pristine, ...sessions.readers.pristine];
  const before =
    recorded === undefined ? await readContents(pristine, options) : await inFull(pristine, recorded, options.progress);
  const after = await readContents([sessions.tried, ...sessions.readers.tried], { ...options, like: before });
  const tables = new Set([...differingTables(before, after)].filter((table) => table !== leaveOut));
  const rows = tables.size === 0 ? { lost: [], more: [] } : await findLostValues(sessions, tables, progress);
  const objects = await compareLargeObjects(sessions, before, after);
  return {
    lost: [...rows.lost, ...objects.lost],
    beyond: [...rows.more, ...objects.more, ...(await sequencesBehind(sessions))],
  };
}

const WHOLE = { sampleAbove: Number.POSITIVE_INFINITY, extensionTables: 'configuration' } as const;

/**
 * What a ledger leaves open, read from the pristine database itself: rows of sampled tables and of extensions' configuration
 * tables, and sampled large objects.
 */
async function inFull(
  sessions: readonly Client[],
  recorded: DatabaseContents,
  progress: (table: string) => void,
): Promise<DatabaseContents> {
  const known = recorded.tables.filter(({ sample }) => sample.kind === 'all');
  const names = new Set(known.map(({ table }) => table));
  const like = recorded.tables.map((entry) => ({ ...entry, sample: { kind: 'all' } as const }));
  const read = await readTables(sessions, {
    ...WHOLE,
    progress,
    like: { tables: like },
    only: (table) => !names.has(table),
  });
  return {
    ...recorded,
    tables: [...known, ...read],
    largeObjects:
      recorded.largeObjects.sample.kind === 'all' ? recorded.largeObjects : await readLargeObjects(sessions, WHOLE),
  };
}

/** Names of tables that are not proven equal. */
function differingTables(before: DatabaseContents, after: DatabaseContents): ReadonlySet<string> {
  const form = ({ rows, columns, checksum, sample }: DatabaseContents['tables'][number]): string =>
    JSON.stringify([rows, columns, checksum, sample]);
  const first = new Map(before.tables.map((entry) => [entry.table, form(entry)]));
  const second = new Map(after.tables.map((entry) => [entry.table, form(entry)]));
  return new Set([...first.keys(), ...second.keys()].filter((table) => first.get(table) !== second.get(table)));
}

async function compareLargeObjects(
  sessions: LossSessions,
  { largeObjects: before }: DatabaseContents,
  { largeObjects: after }: DatabaseContents,
): Promise<DataDifference> {
  const sameContents = before.count === after.count && before.checksum === after.checksum;
  const { lost, more } = sameContents ? { lost: [], more: [] } : await findLostLargeObjects(sessions);
  const rights = before.rights === after.rights || !sameContents;
  return { lost, more: [...more, ...(rights ? [] : ['large objects: not the same owners, rights or comments'])] };
}

interface SequenceValue {
  readonly schema: string;
  readonly name: string;
  /** Null: none was given out yet. */
  readonly last: string | null;
  readonly increment: string;
}

/** A sequence further on does no harm; one that fell back gives out values that rows have already. */
async function sequencesBehind({ pristine, tried }: LossSessions): Promise<readonly string[]> {
  const read = async (client: Client): Promise<Map<string, SequenceValue>> => {
    const { rows } = await client.query<SequenceValue>(
      `SELECT schemaname AS "schema", sequencename AS "name", last_value::text AS "last", increment_by::text AS "increment"
       FROM pg_sequences ORDER BY 1, 2`,
    );
    return new Map(rows.map((row) => [qualifiedName(row.schema, row.name), row]));
  };
  const now = await read(tried);
  return [...(await read(pristine))].flatMap(([name, { last, increment }]) => {
    const found = now.get(name);
    // One that is gone is told as an object.
    if (last === null || found === undefined) return [];
    const behind =
      found.last === null ||
      (increment.startsWith('-') ? BigInt(found.last) > BigInt(last) : BigInt(found.last) < BigInt(last));
    return behind ? [`sequence ${name}: at ${found.last ?? 'its start'}, was at ${last}`] : [];
  });
}
