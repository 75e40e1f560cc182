/** Rows, large objects and sequences of the copy after the downgrade, against those of the backup. */
import type { Client } from 'pg';
import { type DatabaseContents, readContents, readTables } from '../postgres/contents/contents.ts';
import { readLargeObjects } from '../postgres/contents/large-objects.ts';
import { readSequences, sequencesBehind } from '../postgres/contents/sequences.ts';
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
  const differing = differingTables(before, after);
  const tables = new Set([...differing.keys()].filter((table) => table !== leaveOut));
  const rows = tables.size === 0 ? { lost: [], more: [] } : await findLostValues(sessions, tables, progress);
  const objects = await compareLargeObjects(sessions, before, after);
  return {
    lost: [...rows.lost, ...objects.lost],
    beyond: [
      ...rows.more,
      ...notProven(differing, tables, rows),
      ...objects.more,
      ...(await sequencesBehind(await readSequences(sessions.pristine), sessions.tried)),
    ],
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

/** What differs is to be found: a table whose checksum is another one and in which nothing is found is not called equal. */
const notProven = (
  differing: ReturnType<typeof differingTables>,
  tables: ReadonlySet<string>,
  { lost, more }: DataDifference,
): readonly string[] =>
  [...tables]
    .filter((table) => differing.get(table) === 'rows')
    .filter(
      (table) =>
        !lost.some((loss) => loss.table === table) && !more.some((line) => line.startsWith(`table ${table}: `)),
    )
    .map((table) => `table ${table}: not proven equal, its checksum is another one and no row was found that differs`);

/** Names of tables that are not proven equal, and in what: the columns that were read, or the rows. */
function differingTables(before: DatabaseContents, after: DatabaseContents): ReadonlyMap<string, 'columns' | 'rows'> {
  const first = new Map(before.tables.map((entry) => [entry.table, entry]));
  const second = new Map(after.tables.map((entry) => [entry.table, entry]));
  const form = (entry: DatabaseContents['tables'][number] | undefined): string =>
    JSON.stringify([entry?.rows, entry?.checksum, entry?.sample]);
  const found = new Map<string, 'columns' | 'rows'>();
  for (const table of new Set([...first.keys(), ...second.keys()])) {
    const [one, other] = [first.get(table), second.get(table)];
    if (one?.columns.join('\0') !== other?.columns.join('\0')) found.set(table, 'columns');
    else if (form(one) !== form(other)) found.set(table, 'rows');
  }
  return found;
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
