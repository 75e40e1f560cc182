import { describe, expect, test } from 'vitest';
import type { StatementEvent } from '../../src/alembic/statements.ts';
import { FootprintRecorder } from '../../src/rehearsal/footprint.ts';
import { namesOfExisting, rewritten, type StorageState, type StoredRelation } from '../../src/rehearsal/storage.ts';

type Ended = Extract<StatementEvent, { event: 'statement' }>;

const statement = (over: Partial<Ended>): Ended => ({
  event: 'statement',
  revision: 'b2',
  class: 'exclusive',
  statement: 'ALTER TABLE users ADD COLUMN email text',
  startedAt: 1000,
  milliseconds: 5,
  rows: null,
  transaction: 1,
  ...over,
});

const users = { relation: 'public.users', mode: 'AccessExclusiveLock' };
const existing = new Set(['public.users', 'public.notes']);

describe('locks of an upgrade', () => {
  test('are held from the statement that took them to the end of its transaction', () => {
    const recorder = new FootprintRecorder();
    recorder.onStatement(statement({ locks: [users] }));
    recorder.onStatement(
      statement({ statement: 'UPDATE ...', class: 'rows', startedAt: 1010, milliseconds: 2000, locks: [users] }),
    );
    recorder.onStatement({ event: 'transaction-end', transaction: 1, at: 3015 });
    const { seen, archived } = recorder.finish(9000, existing, []);
    expect(seen.locks).toEqual([{ ...users, milliseconds: 2015, revision: 'b2' }]);
    expect(archived.locksBy).toBe('statements');
  });

  test('count the longest time where several transactions take the same one, and its first revision', () => {
    const recorder = new FootprintRecorder();
    for (const [transaction, startedAt, at] of [
      [1, 1000, 1100],
      [2, 2000, 2700],
      [3, 3000, 3001],
    ] as const) {
      recorder.onStatement(statement({ transaction, startedAt, revision: `r${transaction}`, locks: [users] }));
      recorder.onStatement({ event: 'transaction-end', transaction, at });
    }
    expect(recorder.finish(9000, existing, []).seen.locks).toEqual([{ ...users, milliseconds: 700, revision: 'r1' }]);
  });

  test('end where a savepoint is rolled back', () => {
    const recorder = new FootprintRecorder();
    recorder.onStatement(statement({ locks: [users] }));
    recorder.onStatement(
      statement({ statement: 'ROLLBACK TO a', class: 'session', startedAt: 1100, milliseconds: 1, locks: [] }),
    );
    recorder.onStatement({ event: 'transaction-end', transaction: 1, at: 5000 });
    expect(recorder.finish(9000, existing, []).seen.locks).toEqual([{ ...users, milliseconds: 101, revision: 'b2' }]);
  });

  test('of a transaction that nobody ended last until the command did', () => {
    const recorder = new FootprintRecorder();
    recorder.onStatement(statement({ locks: [users] }));
    expect(recorder.finish(4000, existing, []).seen.locks[0]).toMatchObject({ milliseconds: 3000 });
  });

  test('leave out relations that the upgrade made, and in the plan modes that keep nobody out', () => {
    const recorder = new FootprintRecorder();
    const weak = { relation: 'public.notes', mode: 'RowExclusiveLock' };
    recorder.onStatement(
      statement({ locks: [users, weak, { relation: 'public.teams', mode: 'AccessExclusiveLock' }] }),
    );
    const { seen, archived } = recorder.finish(1010, existing, []);
    expect(seen.locks.map(({ relation }) => relation)).toEqual(['public.users']);
    expect(archived.locks.map(({ relation }) => relation).toSorted()).toEqual(['public.notes', 'public.users']);
  });

  test('are those seen from outside where nothing is told from inside, with the revision of that time', () => {
    const recorder = new FootprintRecorder();
    recorder.onEvent({ event: 'revision-start', revision: 'b2', direction: 'upgrade', committed: true }, 900);
    const { seen, archived } = recorder.finish(2000, existing, [
      { ...users, first: 1000, last: 1400 },
      { ...users, first: 1500, last: 1600 },
    ]);
    expect(seen.locks).toEqual([{ ...users, milliseconds: 400, revision: 'b2' }]);
    expect(archived).toMatchObject({ locksBy: 'sampled', statements: [] });
  });
});

describe('times of an upgrade', () => {
  test('of a revision last from its beginning to that of the next', () => {
    const recorder = new FootprintRecorder();
    const start = (revision: string) =>
      ({ event: 'revision-start', revision, direction: 'upgrade', committed: false }) as const;
    recorder.onEvent(start('b2'), 1000);
    recorder.onStatement(statement({ revision: 'b2' }));
    recorder.onStatement(statement({ revision: 'b2' }));
    recorder.onEvent(start('c3'), 1700);
    recorder.onStatement(statement({ revision: 'c3', startedAt: 1701 }));
    recorder.onEvent({ event: 'finished' }, 2000);
    expect(recorder.finish(2100, existing, []).seen.revisions).toEqual([
      { revision: 'b2', milliseconds: 700, statements: 2 },
      { revision: 'c3', milliseconds: 300, statements: 1 },
    ]);
  });

  test('name the slowest statements first; a hundred thousand of them fit', () => {
    const recorder = new FootprintRecorder();
    for (let index = 0; index < 100_000; index += 1) {
      recorder.onStatement(
        statement({ class: 'rows', statement: `UPDATE ${index}`, milliseconds: index === 77 ? 500 : 1 }),
      );
    }
    const { seen, archived } = recorder.finish(2000, existing, []);
    expect(seen.slowest[0]).toMatchObject({ statement: 'UPDATE 77', milliseconds: 500 });
    expect(seen.slowest).toHaveLength(20);
    expect(archived.statements).toHaveLength(5000);
    expect(archived.statements.some((time) => time.statement === 'UPDATE 77')).toBe(true);
  });

  test('a linter is given what changes definitions, and no rows', () => {
    const recorder = new FootprintRecorder();
    recorder.onStatement(statement({}));
    recorder.onStatement(statement({ class: 'rows', statement: 'UPDATE users SET email = $1' }));
    recorder.onStatement(statement({ class: 'concurrent', statement: 'CREATE INDEX CONCURRENTLY ...' }));
    expect(recorder.definitions.map((told) => told.statement)).toEqual([
      'ALTER TABLE users ADD COLUMN email text',
      'CREATE INDEX CONCURRENTLY ...',
    ]);
  });
});

describe('storage before and after', () => {
  const relation = (over: Partial<StoredRelation>): StoredRelation => ({
    oid: 1,
    name: 'public.users',
    kind: 'table',
    tableOid: null,
    file: 100,
    bytes: 8192,
    ...over,
  });
  const state = (...relations: readonly StoredRelation[]): StorageState => ({
    lsn: '0/0',
    databaseBytes: 0,
    relations,
  });
  const index = relation({ oid: 2, name: 'public.users_pkey', kind: 'index', tableOid: 1, file: 101 });

  test('shows what was written anew by the name it had; its indexes go without saying', () => {
    const after = state(relation({ name: 'public.people', file: 200, bytes: 16384 }), { ...index, file: 201 });
    expect(rewritten(state(relation({}), index), after)).toEqual([{ relation: 'public.users', bytes: 16384 }]);
  });

  test('shows an index that was rebuilt alone, and nothing that is new or partitioned', () => {
    const before = state(relation({}), index, relation({ oid: 3, name: 'public.parts', file: null }));
    const after = state(
      relation({}),
      { ...index, file: 201 },
      relation({ oid: 3, name: 'public.parts', file: null }),
      relation({ oid: 4, name: 'public.new', file: 300 }),
    );
    expect(rewritten(before, after)).toEqual([{ relation: 'public.users_pkey', bytes: 8192 }]);
  });

  test('a relation that was renamed was there before under both names', () => {
    const names = namesOfExisting(
      state(relation({})),
      state(relation({ name: 'public.people' }), relation({ oid: 9, name: 'public.new' })),
    );
    expect([...names].toSorted()).toEqual(['public.people', 'public.users']);
  });
});
