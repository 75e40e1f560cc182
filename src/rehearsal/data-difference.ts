/** Rows, large objects and sequences of the copy after the downgrade, against those of the backup. */
import type { Client } from 'pg';
import { type DatabaseContents, readContents } from '../postgres/contents/contents.ts';
import { qualifiedName } from '../postgres/identifier.ts';
import { type DataDifference, findLostLargeObjects, findLostValues, type LossSessions } from './lost-values.ts';

export interface ComparedData {
  readonly lost: DataDifference['lost'];
  /** What is there beyond what was, in words. */
  readonly beyond: readonly string[];
  /** Tables of which a sample was compared. */
  readonly sampled: readonly string[];
}

export interface DataSessions extends LossSessions {
  /** Further ones in the copy, that read side by side. */
  readonly readers: readonly Client[];
}

/**
 * By checksum first, with the columns and samples that were recorded; what differs is looked at row by row.
 *
 * @param recorded of the pristine database; absent: read from it
 * @param leaveOut Alembic's version table, by its name in the object map
 */
export async function compareData(
  sessions: DataSessions,
  recorded: DatabaseContents | undefined,
  leaveOut: string,
  progress: (table: string) => void,
): Promise<ComparedData> {
  const tell = { progress: (table: string) => progress(table) };
  const before =
    recorded ?? (await readContents([sessions.pristine], { sampleAbove: Number.POSITIVE_INFINITY, ...tell }));
  const after = await readContents([sessions.tried, ...sessions.readers], {
    sampleAbove: Number.POSITIVE_INFINITY,
    like: before,
    ...tell,
  });
  const tables = new Set([...differingTables(before, after)].filter((table) => table !== leaveOut));
  const rows = tables.size === 0 ? { lost: [], more: [] } : await findLostValues(sessions, tables, progress);
  const objects = await compareLargeObjects(sessions, before, after);
  return {
    lost: [...rows.lost, ...objects.lost],
    beyond: [...rows.more, ...objects.more, ...(await sequencesBehind(sessions))],
    sampled: before.tables.filter(({ sample }) => sample.kind === 'one-in').map(({ table }) => table),
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
