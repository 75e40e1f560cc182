import { describe, expect, test } from 'vitest';
import { isBookkeeping, migrationScript, withPlaceholders } from '../../src/lint/script.ts';

const of = (...statements: readonly string[]) =>
  statements.map((statement) => ({ revision: 'r1', statement }) as const);

describe('the script for the linter', () => {
  test('puts what runs in a transaction between BEGIN and COMMIT, and nothing else', () => {
    const { text } = migrationScript(of('DROP TABLE a', 'CREATE INDEX CONCURRENTLY i ON b (c)', 'DROP TABLE d'));
    expect(text.replaceAll('\n;', ';')).toBe(
      'BEGIN;\nDROP TABLE a;\nCOMMIT;\nCREATE INDEX CONCURRENTLY i ON b (c);\nBEGIN;\nDROP TABLE d;\nCOMMIT;\n',
    );
  });

  test('keeps transactions apart where they are known', () => {
    const { text } = migrationScript([
      { revision: 'r1', statement: 'DROP TABLE a', transaction: 1 },
      { revision: 'r1', statement: 'DROP TABLE b', transaction: 1 },
      { revision: 'r2', statement: 'DROP TABLE c', transaction: 2 },
    ]);
    expect(text.match(/BEGIN/g)).toHaveLength(2);
  });

  test('knows the statement of each of its lines', () => {
    const { text, statementAt } = migrationScript(of('DROP TABLE\n a; -- the end', 'DROP TABLE b;'));
    const lines = text.split('\n');
    expect(statementAt[lines.indexOf(' a; -- the end')]).toBe(0);
    expect(statementAt[lines.indexOf('DROP TABLE b')]).toBe(1);
    expect(statementAt[lines.indexOf('COMMIT;')]).toBe(-1);
  });
});

describe('places for values', () => {
  test.each([
    ['UPDATE a SET b = %(b)s WHERE c = %s', 'UPDATE a SET b = $1 WHERE c = $1'],
    ["SELECT 'a %% b :c ?' WHERE x = :y", "SELECT 'a % b :c ?' WHERE x = $1"],
    ['INSERT INTO a VALUES (?, ?)', 'INSERT INTO a VALUES ($1, $1)'],
    ['SELECT a::text, b %% 2', 'SELECT a::text, b % 2'],
    ['SELECT $$ :x %s $$', 'SELECT $$ :x %s $$'],
  ])('%s become %s', (given, expected) => {
    expect(withPlaceholders(given)).toBe(expected);
  });
});

test.each([
  ['CREATE TABLE public.alembic_version (\n\tversion_num VARCHAR(32) NOT NULL, \n)', true],
  ["UPDATE alembic_version SET version_num='?' WHERE alembic_version.version_num = '?'", true],
  ["INSERT INTO alembic_version (version_num) VALUES ('?')", true],
  ['CREATE TABLE versions (id bigint)', false],
  ["UPDATE jobs SET state = '?'", false],
])("Alembic's own bookkeeping is told from the migration: %s", (statement, expected) => {
  expect(isBookkeeping(statement)).toBe(expected);
});
