import { describe, expect, test } from 'vitest';
import { conflicts, isWithin } from '../../src/postgres/lock-modes.ts';
import { classFromOutside, getsOnFromOutside, withoutLiterals } from '../../src/postgres/statement-text.ts';

describe('a lock mode', () => {
  test('is within itself and within whatever keeps out all that it does', () => {
    expect(isWithin('ShareLock', ['ShareLock'])).toBe(true);
    expect(isWithin('AccessShareLock', ['RowShareLock'])).toBe(true);
    expect(isWithin('ExclusiveLock', ['AccessExclusiveLock'])).toBe(true);
    expect(isWithin('ShareLock', ['AccessShareLock', 'ShareRowExclusiveLock'])).toBe(true);
  });

  test('is beyond a weaker one, and beyond none at all', () => {
    expect(isWithin('AccessExclusiveLock', ['ExclusiveLock'])).toBe(false);
    expect(isWithin('RowExclusiveLock', ['AccessShareLock', 'RowShareLock'])).toBe(false);
    expect(isWithin('AccessShareLock', [])).toBe(false);
  });

  test('is not ordered with one that keeps out others', () => {
    // SHARE admits other SHARE locks and keeps writers out, SHARE UPDATE EXCLUSIVE the other way round.
    expect(isWithin('ShareLock', ['ShareUpdateExclusiveLock'])).toBe(false);
    expect(isWithin('ShareUpdateExclusiveLock', ['ShareLock'])).toBe(false);
  });

  test('that is not known is within its equal only', () => {
    expect(isWithin('NewLock', ['AccessExclusiveLock'])).toBe(false);
    expect(isWithin('AccessShareLock', ['NewLock'])).toBe(false);
    expect(isWithin('NewLock', ['NewLock'])).toBe(true);
  });
});

describe('two lock modes', () => {
  test('conflict both ways or not at all', () => {
    for (const [one, other, expected] of [
      ['AccessShareLock', 'AccessExclusiveLock', true],
      ['AccessShareLock', 'ExclusiveLock', false],
      ['RowExclusiveLock', 'ShareLock', true],
      ['RowExclusiveLock', 'RowExclusiveLock', false],
      ['ShareUpdateExclusiveLock', 'ShareUpdateExclusiveLock', true],
    ] as const) {
      expect(conflicts(one, other), `${one}, ${other}`).toBe(expected);
      expect(conflicts(other, one), `${other}, ${one}`).toBe(expected);
    }
  });

  test('do not conflict as far as is known where one is not known', () => {
    expect(conflicts('NewLock', 'AccessExclusiveLock')).toBe(false);
    expect(conflicts('AccessExclusiveLock', 'NewLock')).toBe(false);
  });
});

describe('a statement seen from outside', () => {
  test('waits beside the application only where it says so itself', () => {
    expect(classFromOutside('CREATE INDEX CONCURRENTLY a ON b (c)')).toBe('concurrent');
    expect(classFromOutside('alter table b\n  validate   constraint c')).toBe('concurrent');
    expect(classFromOutside('REINDEX (VERBOSE, CONCURRENTLY) TABLE b')).toBe('concurrent');
    expect(classFromOutside('ALTER TABLE ONLY s."B" VALIDATE CONSTRAINT "c d", VALIDATE CONSTRAINT e;')).toBe(
      'concurrent',
    );
    expect(classFromOutside('ALTER TABLE b ADD COLUMN c int')).toBe('exclusive');
  });

  test.each([
    'ALTER TABLE b ADD COLUMN c int, VALIDATE CONSTRAINT d',
    'ALTER TABLE b VALIDATE CONSTRAINT d, ADD COLUMN c int',
    'ALTER TABLE b ADD COLUMN c int; ALTER TABLE b VALIDATE CONSTRAINT d',
    'ALTER TABLE b VALIDATE CONSTRAINT d; ALTER TABLE b ADD COLUMN c int',
    'ALTER DOMAIN b VALIDATE CONSTRAINT d',
    'REINDEX (CONCURRENTLY false) TABLE b',
  ])('does not wait beside it where it takes another lock too: %s', (sql) => {
    expect(classFromOutside(sql)).toBe('exclusive');
  });

  test.each([
    `ALTER TABLE b ADD COLUMN c text DEFAULT 'CONCURRENTLY'`,
    'ALTER TABLE b ADD COLUMN "concurrently" int',
    'ALTER TABLE b ADD COLUMN c int -- not CONCURRENTLY',
    'ALTER /* CONCURRENTLY */ TABLE b ADD COLUMN c int',
    `DO $x$ BEGIN RAISE NOTICE 'CONCURRENTLY'; END $x$`,
    `UPDATE b SET c = 'cut in the middle CONCURRENTLY`,
  ])('does not say so by a text, a name or a comment: %s', (sql) => {
    expect(classFromOutside(sql)).toBe('exclusive');
  });

  test('is shown without what could be a value of a row', () => {
    expect(
      withoutLiterals(`UPDATE users SET name = 'O''Hara', age=41, "x1" = 1.5e3 -- 'why'\n WHERE id = 7 AND t2.c3 = $1`),
    ).toBe('UPDATE users SET name = ?, age=?, "x1" = ? WHERE id = ? AND t2.c3 = $1');
    expect(withoutLiterals(`INSERT INTO t VALUES ('secret that was cut`)).toBe('INSERT INTO t VALUES (?');
    expect(withoutLiterals(`SELECT E'it\\'s secret', 'plain\\', 2`)).toBe('SELECT ?, ?, ?');
    expect(withoutLiterals('DO $body$ secret $body$ ; SELECT /* secret */ 1')).toBe('DO ? ; SELECT ?');
    expect(withoutLiterals('a '.repeat(300), 10)).toBe('a a a a a  ...');
  });

  test.each(['ALTER TABLE b ADD COLUMN c int', '/* app */ UPDATE b SET c = 1', 'SELECT 1'])('gets on: %s', (sql) => {
    expect(getsOnFromOutside(sql)).toBe(true);
  });

  test.each([
    '',
    'ROLLBACK',
    '-- after a failure\n rollback to savepoint a',
    "SET lock_timeout = '1s'",
    'SELECT pg_catalog.pg_advisory_unlock(7)',
    'SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;',
  ])('is only cleaning up: %s', (sql) => {
    expect(getsOnFromOutside(sql)).toBe(false);
  });
});
