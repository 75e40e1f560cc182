import type { Client } from 'pg';
import {
  hashPart,
  joinParts,
  partsOf,
  readableTables,
  shapeOf,
  type TableContents,
  type TablePart,
} from './contents-table.ts';
import type { ExtensionTables } from './extension-tables.ts';
import { readLargeObjects, type LargeObjects } from './large-objects.ts';
import { qualifiedName } from '../identifier.ts';
import { pinFormats } from './row-hash.ts';
import { readSequences, type SequenceState } from './sequences.ts';

/** All that a database holds beside its definitions, sorted by name. */
export interface DatabaseContents {
  readonly tables: readonly TableContents[];
  /** Not under MVCC: lower bounds. */
  readonly sequences: readonly SequenceState[];
  readonly largeObjects: LargeObjects;
}

export interface ContentsOptions {
  /** Bytes: of larger tables a sample of about this size is hashed. `Infinity`: everything. */
  readonly sampleAbove: number;
  /** Hashes the same columns and picks the same samples as were recorded here, so that both can be compared. */
  readonly like?: DatabaseContents;
  /** Default: none, as a ledger has it. */
  readonly extensionTables?: ExtensionTables;
  readonly progress?: (table: string, done: number, of: number) => void;
}

/**
 * Counts every row of every ordinary table and leaf partition and hashes them, or a sample of them. Left out: foreign tables
 * (their rows live elsewhere), materialized views (stale by nature), members of extensions (CREATE EXTENSION makes them),
 * unless `extensionTables` asks for some.
 *
 * Reads in the callers' transactions; for one picture they must share a snapshot, and the tables must have been locked before
 * it was taken: TRUNCATE is not under MVCC. Tables are dealt out in parts, largest first, to whichever session is free.
 *
 * @throws Error of pg when a row may not be read: hidden by a policy, no right on a table or a large object
 */
export async function readContents(sessions: readonly Client[], options: ContentsOptions): Promise<DatabaseContents> {
  const [first] = sessions;
  if (first === undefined) throw new Error('no session to read with');
  const tables = await readTables(sessions, options);
  const like = options.like?.largeObjects.sample;
  return {
    tables,
    sequences: sorted(await readSequences(first), ({ sequence }) => sequence),
    largeObjects: await readLargeObjects(sessions, {
      sampleAbove: options.sampleAbove,
      ...(like === undefined ? {} : { like }),
    }),
  };
}

/** The tables of `readContents`, sorted by name. @param only names as in the object map; absent: all */
export async function readTables(
  sessions: readonly Client[],
  options: Omit<ContentsOptions, 'like'> & {
    readonly like?: Pick<DatabaseContents, 'tables'>;
    readonly only?: (table: string) => boolean;
  },
): Promise<TableContents[]> {
  const [first] = sessions;
  if (first === undefined) throw new Error('no session to read with');
  for (const session of sessions) await pinFormats(session);
  const { only = () => true } = options;
  const recorded = new Map(options.like?.tables.map((entry) => [entry.table, entry]));
  const shapes = (await readableTables(first, options.extensionTables))
    .filter(({ schema, name }) => only(qualifiedName(schema, name)))
    .map((table) =>
      shapeOf(table, { sampleAbove: options.sampleAbove, like: recorded.get(qualifiedName(table.schema, table.name)) }),
    );
  const parts = shapes.flatMap(partsOf).sort((one, other) => other.bytes - one.bytes);
  const tally = new Tally(parts, options.progress ?? (() => undefined));
  const read = await inParallel(sessions, parts, async (session, part) => {
    const sums = await hashPart(session, part);
    tally.done(part);
    return { part, sums };
  });
  return sorted(joinParts(shapes, read), ({ table }) => table);
}

/** Counts finished tables: a table is finished with its last part. */
class Tally {
  private readonly open = new Map<string, number>();
  private readonly of: number;
  private readonly tell: NonNullable<ContentsOptions['progress']>;

  constructor(parts: readonly TablePart[], tell: NonNullable<ContentsOptions['progress']>) {
    for (const { shape } of parts) this.open.set(shape.table, (this.open.get(shape.table) ?? 0) + 1);
    this.of = this.open.size;
    this.tell = tell;
  }

  done({ shape: { table } }: TablePart): void {
    const left = this.open.get(table)! - 1;
    if (left === 0) this.open.delete(table);
    else this.open.set(table, left);
    this.tell(table, this.of - this.open.size, this.of);
  }
}

/**
 * Every session takes the next piece of work as soon as it is free. After a failure nothing more is begun; it is thrown once
 * every session has come to rest.
 */
export async function inParallel<Work, Result>(
  sessions: readonly Client[],
  work: readonly Work[],
  perform: (session: Client, piece: Work) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  const waiting = work.values();
  let failed = false;
  const serve = async (session: Client): Promise<void> => {
    for (const piece of waiting) {
      if (failed) return;
      try {
        results.push(await perform(session, piece));
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const ends = await Promise.allSettled(sessions.map(serve));
  const failure = ends.find((end) => end.status === 'rejected');
  if (failure !== undefined) throw failure.reason;
  return results;
}

const sorted = <T>(entries: readonly T[], key: (entry: T) => string): T[] =>
  [...entries].sort((one, other) => (key(one) < key(other) ? -1 : key(one) > key(other) ? 1 : 0));

/**
 * Are the same rows in both? Read `found` with `like: recorded`. Sequences are not compared: see `advanceSequences`.
 *
 * @returns findings in words; empty = equal
 */
export function compareContents(recorded: DatabaseContents, found: DatabaseContents): readonly string[] {
  const first = new Map(recorded.tables.map((entry) => [entry.table, entry]));
  const second = new Map(found.tables.map((entry) => [entry.table, entry]));
  const findings: string[] = [];
  for (const table of [...new Set([...first.keys(), ...second.keys()])].sort()) {
    const [one, other] = [first.get(table), second.get(table)];
    if (one === undefined) findings.push(`table ${table}: not recorded, found with ${rowsOf(other!)}`);
    else if (other === undefined) findings.push(`table ${table}: recorded with ${rowsOf(one)}, not found`);
    else findings.push(...compareTable(one, other));
  }
  return [...findings, ...compareLargeObjects(recorded.largeObjects, found.largeObjects)];
}

function compareTable(one: TableContents, other: TableContents): string[] {
  const here = `table ${one.table}`;
  if (one.rows !== other.rows) return [`${here}: ${rowsOf(one)} recorded, ${rowsOf(other)} found`];
  if (one.columns.join('\0') !== other.columns.join('\0')) {
    return [`${here}: columns ${one.columns.join(', ')} recorded, ${other.columns.join(', ')} found`];
  }
  if (JSON.stringify(one.sample) !== JSON.stringify(other.sample)) {
    return [`${here}: other rows were sampled than were recorded, so its checksum proves nothing`];
  }
  return one.checksum === other.checksum ? [] : [`${here}: ${rowsOf(one)} in both, but not the same ones`];
}

function compareLargeObjects(one: LargeObjects, other: LargeObjects): string[] {
  if (one.count !== other.count) return [`large objects: ${one.count} recorded, ${other.count} found`];
  if (JSON.stringify(one.sample) !== JSON.stringify(other.sample)) {
    return ['large objects: others were sampled than were recorded, so their checksum proves nothing'];
  }
  return [
    ...(one.checksum === other.checksum ? [] : ['large objects: as many as recorded, but not the same contents']),
    ...(one.rights === other.rights ? [] : ['large objects: not the same owners, rights or comments']),
  ];
}

const rowsOf = ({ rows }: TableContents): string => `${rows} row${rows === 1 ? '' : 's'}`;
