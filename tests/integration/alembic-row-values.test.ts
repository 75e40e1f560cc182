import { describe, expect, test } from 'vitest';
import { upgrade } from '../../src/alembic/upgrade.ts';
import { lastWords } from '../../src/process/last-words.ts';
import { drivers, reportedService } from './alembic-service.ts';

/** In every value of a row, and in nothing else. */
const VALUE = /v4lue|47114711/;

/** Values are put together: what a traceback quotes of the revision's source is no value of a row. */
const UPGRADE = String.raw`import traceback
text, number = "v" + "4lue", int("4711" * 2)
bind = op.get_bind()
people = sa.table("people", sa.column("id"), sa.column("email"), sa.column("note"))
row = dict(id=number, email=f"{text}\n{text}", note=f"{text}\n\nDETAIL of {text}")
def literally(sql):
    op.execute(sql.replace("TEXT", text).replace("NUMBER", str(number)))
op.execute("CREATE TABLE people (id bigint, email character varying, note character varying)")
op.create_unique_constraint("people_email_key", "people", ["email"])
bind.execute(people.insert(), [row])
with sa.create_engine("sqlite://", echo="debug").connect() as echoing:
    echoing.execute(sa.text("CREATE TABLE people (id int, email text, note text)"))
    echoing.execute(people.insert(), [row])
    echoing.execute(sa.text(f"INSERT INTO people VALUES ({number}, '{text}\n{text}', NULL)"))
    echoing.execute(people.select()).fetchall()
for fail in [
    lambda: op.create_check_constraint("short_note", "people", "length(note) < 3"),
    lambda: op.execute("ALTER TABLE people ALTER COLUMN note TYPE integer USING note::integer"),
    lambda: literally("DO $$ BEGIN EXECUTE 'INSERT INTO people VALUES (NUMBER, ''TEXT\nTEXT''), (NUMBER, ''TEXT\nTEXT'')'; END $$"),
    lambda: (op.alter_column("people", "id", nullable=False),
             literally("INSERT INTO people VALUES (NUMBER, 'TEXT', NULL), (NULL, 'TEXT\nTEXT', 'TEXT')")),
]:
    try:
        with bind.begin_nested():
            fail()
    except sa.exc.DBAPIError:
        traceback.print_exc()
bind.execute(people.insert(), [row, row])`;

/** In this order. asyncpg tells the detail of an error, and SQLAlchemy does not hand it on. */
const READABLE = [
  /INSERT INTO people \(id, email, note\) VALUES/,
  /\[generated in [^\]]+\] \?$/,
  / Row \(\?\)$/,
  /check constraint "short_note" of relation "people" is violated by some row/,
  /\[SQL: ALTER TABLE people ADD CONSTRAINT short_note CHECK \(length\(note\) < 3\)\]/,
  /invalid input syntax for type integer: "\?"/,
  /\[SQL: ALTER TABLE people ALTER COLUMN note TYPE integer USING note::integer\]/,
  /duplicate key value violates unique constraint "people_email_key"/,
  /DETAIL: {2}Key \(email\)=\(\?\)/,
  /null value in column "id" of relation "people" violates not-null constraint/,
  /DETAIL: {2}Failing row contains \(\?\)\./,
  /duplicate key value violates unique constraint "people_email_key"/,
  /DETAIL: {2}Key \(email\)=\(\?\)/,
  /sqlalchemy\.exc\.IntegrityError: .*duplicate key value violates unique constraint "people_email_key"/,
  /\[parameters: \?\]/,
];

describe.each(drivers)('with %s', (driver) => {
  test('what Alembic and SQLAlchemy write holds names of objects and no value of a row', async () => {
    const { options } = await reportedService([{ id: 'r1', upgrade: UPGRADE }], driver);
    const lines: string[] = [];
    const { result } = await upgrade({ ...options, target: 'r1', onLine: (_stream, line) => lines.push(line) });
    expect(result).toMatchObject({ kind: 'exited', code: 1 });
    expect(lines.filter((line) => VALUE.test(line))).toEqual([]);
    expect(result.stderrTail + result.stdoutTail).not.toMatch(VALUE);
    let from = 0;
    const missing = READABLE.filter((what) => {
      const found = lines.findIndex((line, index) => index >= from && what.test(line));
      from = Math.max(from, found);
      return found < 0;
    });
    expect(missing).toEqual([]);
    const words = lastWords('code 1', result.stderrTail);
    expect(words).toMatch(/^code 1: sqlalchemy\.exc\.IntegrityError: .*people_email_key/);
    expect(words).not.toMatch(VALUE);
  });
});
