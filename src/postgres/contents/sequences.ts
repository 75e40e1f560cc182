import type { Client } from 'pg';
import { qualifiedName, sqlName } from '../identifier.ts';

/** `lastValue` is text: a bigint may not fit a JSON number. */
export interface SequenceState {
  /** Named as in the object map. */
  readonly sequence: string;
  readonly lastValue: string;
  readonly isCalled: boolean;
}

/** Every sequence but extensions' own. Not under MVCC: a value may be later than the caller's snapshot. */
export async function readSequences(client: Client): Promise<SequenceState[]> {
  const states: SequenceState[] = [];
  for (const { schema, name } of await listSequences(client)) {
    const { rows } = await client.query<Omit<SequenceState, 'sequence'>>(
      `SELECT last_value::text AS "lastValue", is_called AS "isCalled" FROM ${sqlName(schema, name)}`,
    );
    states.push({ sequence: qualifiedName(schema, name), ...rows[0]! });
  }
  return states;
}

/**
 * Sequences that give out values again which were given out, or were not to be. One that is further on does no harm; one that
 * is gone is told as an object.
 *
 * @param was as recorded or read elsewhere
 * @param client of the database as it is now
 */
export async function sequencesBehind(was: readonly SequenceState[], client: Client): Promise<readonly string[]> {
  const increments = new Map(
    (await listSequences(client)).map(({ schema, name, increment }) => [
      qualifiedName(schema, name),
      BigInt(increment),
    ]),
  );
  const now = new Map((await readSequences(client)).map((state) => [state.sequence, state]));
  return was.flatMap((before) => {
    const found = now.get(before.sequence);
    if (found === undefined) return [];
    const increment = increments.get(before.sequence) ?? 1n;
    const [next, wasNext] = [nextOf(found, increment), nextOf(before, increment)];
    const isBehind = increment < 0n ? next > wasNext : next < wasNext;
    return isBehind ? [`sequence ${before.sequence}: at ${positionText(found)}, was at ${positionText(before)}`] : [];
  });
}

const nextOf = ({ lastValue, isCalled }: SequenceState, increment: bigint): bigint =>
  BigInt(lastValue) + (isCalled ? increment : 0n);

const positionText = ({ lastValue, isCalled }: SequenceState): string =>
  isCalled ? lastValue : `${lastValue}, which it has not given out yet`;

interface Sequence {
  readonly schema: string;
  readonly name: string;
  readonly increment: string;
  /** Column that takes its values from the sequence; null for a sequence of its own. */
  readonly tableSchema: string | null;
  readonly table: string | null;
  readonly column: string | null;
}

/**
 * Brings every sequence to where it is ahead of the recorded value and of the column it feeds, never back. Sequences are
 * not under MVCC: the dump may have read one before the ledger did, and while rows were being inserted.
 *
 * @returns how many sequences there are, and the names of those that had to be moved
 */
export async function advanceSequences(
  client: Client,
  recorded: readonly SequenceState[],
): Promise<{ readonly sequences: number; readonly advanced: readonly string[] }> {
  const known = new Map(recorded.map((state) => [state.sequence, state]));
  const advanced: string[] = [];
  const sequences = await listSequences(client);
  for (const sequence of sequences) {
    const name = qualifiedName(sequence.schema, sequence.name);
    const needed = await neededValue(client, sequence, known.get(name));
    if (needed !== undefined) {
      await client.query('SELECT setval($1::regclass, $2::bigint, true)', [
        sqlName(sequence.schema, sequence.name),
        needed,
      ]);
      advanced.push(name);
    }
  }
  return { sequences: sequences.length, advanced };
}

/** The value the sequence has to have given out already, where it is not that far. */
async function neededValue(
  client: Client,
  sequence: Sequence,
  recorded: SequenceState | undefined,
): Promise<string | undefined> {
  const { rows } = await client.query<{ lastValue: string; isCalled: boolean }>(
    `SELECT last_value::text AS "lastValue", is_called AS "isCalled" FROM ${sqlName(sequence.schema, sequence.name)}`,
  );
  const state = rows[0]!;
  const downwards = sequence.increment.startsWith('-');
  const given = [
    ...(recorded?.isCalled === true ? [BigInt(recorded.lastValue)] : []),
    ...(await extremeOfColumn(client, sequence, downwards ? 'min' : 'max')),
  ];
  if (given.length === 0) return undefined;
  const furthest = given.reduce((one, other) => (one > other !== downwards ? one : other));
  const current = BigInt(state.lastValue);
  const behind = downwards ? current > furthest : current < furthest;
  return behind || (current === furthest && !state.isCalled) ? String(furthest) : undefined;
}

async function extremeOfColumn(client: Client, sequence: Sequence, extreme: 'min' | 'max'): Promise<bigint[]> {
  if (sequence.tableSchema === null || sequence.table === null || sequence.column === null) return [];
  const { rows } = await client.query<{ value: string | null }>(
    `SELECT ${extreme}(${sqlName(sequence.column)})::text AS value FROM ${sqlName(sequence.tableSchema, sequence.table)}`,
  );
  const value = rows[0]?.value;
  // A serial column may have been made numeric or text since.
  return value !== undefined && value !== null && /^-?\d+$/.test(value) ? [BigInt(value)] : [];
}

async function listSequences(client: Client): Promise<Sequence[]> {
  const { rows } = await client.query<Sequence>(
    `SELECT n.nspname AS "schema", c.relname AS "name", s.seqincrement::text AS "increment",
            tn.nspname AS "tableSchema", t.relname AS "table", a.attname AS "column"
     FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
                          AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
     LEFT JOIN pg_class t ON t.oid = d.refobjid LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
     LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
     WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_'
       AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.objid = c.oid AND x.deptype = 'e')
     ORDER BY 1, 2`,
  );
  return rows;
}
