import { describe, expect, test } from 'vitest';
import { rowValueFilter } from '../../src/process/row-values.ts';

/** Everything that is a value of a row in these tests has one of these words in it. */
const VALUE = /ann|ben|carla|4711/i;

function strike(text: string): string {
  const shown = rowValueFilter();
  return text
    .split('\n')
    .flatMap((line) => shown(line) ?? [])
    .join('\n');
}

function struck(text: string): string {
  const shown = strike(text);
  expect(shown).not.toMatch(VALUE);
  return shown;
}

const NEXT = 'INFO  [alembic.runtime.migration] Running upgrade 0002 -> 0003, people';

describe('values of rows', () => {
  test.each([
    [
      'DETAIL:  Key (lower(email), tenant)=(ann@example.com, 7) already exists.',
      'DETAIL:  Key (lower(email), tenant)=(?) already exists.',
    ],
    ['DETAIL:  Key (email)=(ann) is duplicated.', 'DETAIL:  Key (email)=(?) is duplicated.'],
    [
      'DETAIL:  Key (owner)=(ann) is not present in table "x") is not present in table "people".',
      'DETAIL:  Key (owner)=(?) is not present in table "people".',
    ],
    [
      'DETAIL:  Key (id)=(4711) is still referenced from table "Big Jobs".',
      'DETAIL:  Key (id)=(?) is still referenced from table "Big Jobs".',
    ],
    [
      'DETAIL:  Key (during)=(["ann",4711)) conflicts with existing key (during)=([4711,ben)).',
      'DETAIL:  Key (during)=(?) conflicts with existing key.',
    ],
    ['DETAIL:  Failing row contains (1, ann@example.com, null).', 'DETAIL:  Failing row contains (?).'],
    [
      'DETAIL:  Partition key of the failing row contains (born) = (4711-01-01).',
      'DETAIL:  Partition key of the failing row contains (born) = (?).',
    ],
    ['CONTEXT:  COPY people, line 3: "ann\t4711"', 'CONTEXT:  COPY people, line 3: "?"'],
    ['CONTEXT:  COPY people, line 3, column email: "ann"', 'CONTEXT:  COPY people, line 3, column email: "?"'],
    [`CONTEXT:  SQL statement "UPDATE people SET name = 'ann'"`, 'CONTEXT:  SQL statement "?"'],
    ['ZUSATZ:  Schlüssel »(email)=(ann)« existiert bereits.', 'ZUSATZ:  ?'],
    ['web-1  | DETAIL:  Key (email)=(ann) already exists.', 'web-1  | DETAIL:  Key (email)=(?) already exists.'],
    ['E       DETAIL:  Key (email)=(ann) already exists.', 'E       DETAIL:  Key (email)=(?) already exists.'],
    [
      `IntegrityError('duplicate key value violates unique constraint "u"\\nDETAIL:  Key (email)=(ann) already exists.\\n')`,
      `IntegrityError('duplicate key value violates unique constraint "u"\\nDETAIL:  Key (email)=(?)`,
    ],
    [
      'psycopg.errors.InvalidTextRepresentation: invalid input syntax for type integer: "ann"',
      'psycopg.errors.InvalidTextRepresentation: invalid input syntax for type integer: "?"',
    ],
    ['E: invalid input value for enum "Mood": "ann"', 'E: invalid input value for enum "Mood": "?"'],
    ['E: value "4711471147114711" is out of range for type integer', 'E: value "?" is out of range for type integer'],
    [`LINE 1: INSERT INTO people VALUES ('ann', 4711)`, `LINE 1: INSERT INTO people VALUES ('?', ?)`],
    [`LINE 1: ...ann', 'ben' FROM people`, 'LINE 1: ...?'],
    [
      `{'S': 'ERROR', 'C': '23505', 'M': 'duplicate key value', 'D': 'Key (email)=(o\\'ann) already exists.', 'n': 'people_email_key'}`,
      `{'S': 'ERROR', 'C': '23505', 'M': 'duplicate key value', 'D': '?', 'n': 'people_email_key'}`,
    ],
    ["[parameters: ({'email': 'ann'}, {'email': 'ben'})]", '[parameters: ?]'],
    [
      "INFO  [sqlalchemy.engine.Engine] [generated in 0.00017s] {'email': 'ann'}",
      'INFO  [sqlalchemy.engine.Engine] [generated in 0.00017s] ?',
    ],
    [
      "2026-11-22 10:00:00,001 INFO sqlalchemy.engine.Engine INSERT INTO people VALUES ('ann', 4711)",
      "2026-11-22 10:00:00,001 INFO sqlalchemy.engine.Engine INSERT INTO people VALUES ('?', ?)",
    ],
    [
      "INFO:sqlalchemy.engine.Engine:UPDATE people SET name = 'ann'",
      "INFO:sqlalchemy.engine.Engine:UPDATE people SET name = '?'",
    ],
    ["DEBUG [sqlalchemy.engine.Engine] Row (4711, 'ann')", 'DEBUG [sqlalchemy.engine.Engine] Row (?)'],
  ])('are struck out of %s', (line, shown) => {
    expect(struck(line)).toBe(shown);
    // Whatever was open is closed where the next entry begins.
    expect(struck(`${line}\n${NEXT}`)).toBe(`${shown}\n${NEXT}`);
  });

  test('are struck out where they go over several lines', () => {
    expect(struck('DETAIL:  Key (note)=(first\nann\n(ben) already exists.\nmore')).toBe(
      'DETAIL:  Key (note)=(?)\nmore',
    );
    expect(struck('DETAIL:  Failing row contains (1, a note\nof ann, null).\nmore')).toBe(
      'DETAIL:  Failing row contains (?).\nmore',
    );
    expect(struck("[parameters: {'a': array([4711,\n  4711]),\n 'b': 'ann'}]\nmore")).toBe('[parameters: ?]\nmore');
    expect(struck('E: invalid input syntax for type json: "first\nann"\nmore')).toBe(
      'E: invalid input syntax for type json: "?"\nmore',
    );
    expect(
      struck(
        `CONTEXT:  SQL statement "INSERT INTO people\n  VALUES ('ann')"\nPL/pgSQL function add_people() line 3 at SQL statement`,
      ),
    ).toBe('CONTEXT:  SQL statement "?"\nPL/pgSQL function add_people() line 3 at SQL statement');
  });

  test('are struck out of a statement whose literals go over several lines', () => {
    const text = `[SQL: INSERT INTO people (name, tags, "it's") -- for ann's sake
VALUES ('it''s
ann', ARRAY['x]', 'ben'], 4711),
  ($tag$ 'carla'
carla $tag$, E'\\'ann', /* ben
ben */ :id_1)]
[parameters: {'id_1': 4711}]
(Background on this error at: https://sqlalche.me/e/20/gkpj)
don't worry`;
    expect(struck(text)).toBe(`[SQL: INSERT INTO people (name, tags, "it's")
VALUES ('?'
, ARRAY['?', '?'], ?),
  ('?'
, '?',
 :id_1)]
[parameters: ?]
(Background on this error at: https://sqlalche.me/e/20/gkpj)
don't worry`);
  });

  test('are struck out where a line was too long and is cut', () => {
    const text = `[SQL: INSERT INTO people VALUES ('ann [cut]\n[parameters: ('ann', [cut]\n(Background on this error at: a page)\nmore`;
    expect(struck(text)).toBe(
      `[SQL: INSERT INTO people VALUES ('?' [cut]\n[parameters: ?] [cut]\n(Background on this error at: a page)\nmore`,
    );
  });

  test('of a field that nobody knows are struck out to the next entry', () => {
    expect(struck(`DETAIL:  ann was seen.\nben too.\nHINT:  Look away.`)).toBe('DETAIL:  ?\nHINT:  Look away.');
  });

  test('that were struck out once are left so', () => {
    const text = `DETAIL:  Key (email)=(ann) already exists.\n[SQL: INSERT INTO people VALUES ('ann', 4711)]\n[parameters: ('ann',)]`;
    expect(strike(strike(text))).toBe(strike(text));
  });
});

describe('what is no value of a row', () => {
  test.each([
    'sqlalchemy.exc.IntegrityError: (psycopg.errors.UniqueViolation) duplicate key value violates unique constraint "people_email_key"',
    'ERROR:  null value in column "email" of relation "people" violates not-null constraint',
    'DETAIL:  view addresses depends on column email of table people',
    'DETAIL:  drop cascades to view addresses',
    'DETAIL:  Process 12 waits for ShareLock on transaction 99; blocked by process 13.',
    'CONTEXT:  PL/pgSQL function audit(text) line 3 at RAISE',
    'CONTEXT:  while updating tuple (0,1) in relation "people"',
    "INFO  [alembic.runtime.migration] Running upgrade 0002 -> 0003, it's 'quoted' [1]",
    '  File "versions/0003.py", line 12, in upgrade',
    "    op.execute('something')",
    "from sqlalchemy.engine import create_engine  # don't",
    'FAILED tests/test_migrations.py::test_downgrade - AssertionError: assert [1] == [2]',
  ])('is left as it stands: %s', (line) => {
    expect(strike(line)).toBe(line);
    expect(strike(`${line}\nmore`)).toBe(`${line}\nmore`);
  });

  test('of a definition are its numbers', () => {
    expect(strike(`[SQL: ALTER TABLE people ADD COLUMN zip VARCHAR(10) DEFAULT 'ann']\nmore`)).toBe(
      `[SQL: ALTER TABLE people ADD COLUMN zip VARCHAR(10) DEFAULT '?']\nmore`,
    );
  });
});
