import { sqlState } from '../database-error.ts';
import { type ComparableTable, readComparableTables } from './comparable-tables.ts';
import { sqlName } from '../identifier.ts';
import { differingLargeObjects } from './large-object-difference.ts';
import { type ComparedSessions, type DifferingBuckets, findDifferingBuckets } from './row-difference.ts';
import { both, type DifferingRow } from './sorted-merge.ts';
import { type PairInBoth, type PairInOne, pairTables, type TablePair } from './table-pairs.ts';

/** Where production and the restored copy differ; which rows exactly, `differingRows` tells. */
export interface DatabaseDifference {
  /** Tables of both sides, rows of which differ. */
  readonly changed: readonly { readonly pair: PairInBoth; readonly differing: DifferingBuckets }[];
  /** Tables with rows that only one side has at all. */
  readonly alone: readonly { readonly pair: PairInOne; readonly rows: number }[];
  readonly largeObjects: readonly DifferingRow[];
  /**
   * Tables that the migration gave columns, and which. Rows are compared without them: what the migration filled in and what
   * people wrote there later look alike.
   */
  readonly added: readonly { readonly table: string; readonly columns: readonly string[] }[];
  /**
   * What production does not have any more, and the copy as the backup had it: tables (no column is named) and columns of
   * tables. What was written there after the backup is in neither database. Renamed counts as gone and added.
   */
  readonly gone: readonly { readonly table: string; readonly columns: readonly string[] }[];
  /** What could not be compared, in words. */
  readonly unknown: readonly string[];
}

export interface ComparisonProgress {
  readonly table: string;
  readonly done: number;
  readonly of: number;
}

/**
 * Compares two databases of one server table by table, partitions leaf by leaf, and their large objects. A table that may
 * not be read is reported and does not keep the others from being compared.
 *
 * @param leaveOut what is no part of a service's data, such as Alembic's version table
 */
export async function compareDatabases(
  sessions: ComparedSessions,
  leaveOut: { readonly schema: string; readonly table: string },
  progress: (now: ComparisonProgress) => void,
): Promise<DatabaseDifference> {
  const [ours, theirs] = await both(readComparableTables(sessions.production), readComparableTables(sessions.copy));
  const left = ({ schema, name }: ComparableTable): boolean => schema === leaveOut.schema && name === leaveOut.table;
  const pairs = pairTables(ours, theirs, left);
  const changed: { pair: PairInBoth; differing: DifferingBuckets }[] = [];
  const alone: { pair: PairInOne; rows: number }[] = [];
  const largeObjects: DifferingRow[] = [];
  const added: { table: string; columns: readonly string[] }[] = [];
  const unknown: string[] = [];
  const gone = pairs.flatMap(goneOf);

  const attempt = async (what: string, work: () => Promise<void>): Promise<void> => {
    const refused = await attemptApart(sessions, work);
    if (refused !== undefined) unknown.push(`${what} (cannot be read: SQLSTATE ${refused})`);
  };
  for (const [done, pair] of pairs.entries()) {
    progress({ table: pair.table, done, of: pairs.length });
    await attempt(pair.table, async () => {
      if (pair.presence === 'both') {
        const differing = await findDifferingBuckets(sessions, pair);
        if (differing !== null) changed.push({ pair, differing });
        if (pair.onlyInProduction.length > 0) added.push({ table: pair.table, columns: pair.onlyInProduction });
      } else {
        const rows = await countRows(sessions, pair);
        if (rows > 0) alone.push({ pair, rows });
      }
    });
  }
  progress({ table: 'large objects', done: pairs.length, of: pairs.length });
  await attempt('large objects', async () => {
    for await (const row of differingLargeObjects(sessions)) largeObjects.push(row);
  });
  return { changed, alone, largeObjects, added, gone, unknown };
}

function goneOf(pair: TablePair): DatabaseDifference['gone'] {
  const { table } = pair;
  if (pair.presence !== 'both') return pair.presence === 'copy' ? [{ table, columns: [] }] : [];
  const stored = new Set(pair.copy.columns.filter(({ generated }) => !generated).map(({ name }) => name));
  const columns = pair.onlyInCopy.filter((name) => stored.has(name));
  return columns.length === 0 ? [] : [{ table, columns }];
}

async function countRows(sessions: ComparedSessions, { presence, present }: PairInOne): Promise<number> {
  const { rows } = await sessions[presence].query<{ rows: string }>(
    `SELECT count(*) AS rows FROM ONLY ${sqlName(present.schema, present.name)}`,
  );
  return Number(rows[0]!.rows);
}

/**
 * Does what the server may refuse without spoiling the transactions of both sessions.
 *
 * @returns the SQLSTATE of a refusal, e.g. 42501 for a table that may not be read
 */
async function attemptApart(sessions: ComparedSessions, work: () => Promise<void>): Promise<string | undefined> {
  const onBoth = (statement: string) => both(sessions.production.query(statement), sessions.copy.query(statement));
  await onBoth('SAVEPOINT one_table');
  try {
    await work();
    await onBoth('RELEASE SAVEPOINT one_table');
    return undefined;
  } catch (error) {
    const state = sqlState(error);
    if (state === undefined || LOST.some((prefix) => state.startsWith(prefix))) throw error;
    await onBoth('ROLLBACK TO SAVEPOINT one_table');
    return state;
  }
}

/** Connection, resources, operator intervention, system: these concern the session, not the table. */
const LOST = ['08', '53', '57', '58'];
