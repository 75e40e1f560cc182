import { describe, expect, test } from 'vitest';
import { lastWords, rowValueFilter } from '../../src/process/last-words.ts';

const traceback = `Traceback (most recent call last):
  File "versions/0003.py", line 12, in upgrade
psycopg.errors.UniqueViolation: could not create unique index "users_email_idx"
DETAIL:  Key (lower(email))=(ann@example.com) is duplicated.

The above exception was the direct cause of the following exception:

sqlalchemy.exc.IntegrityError: (psycopg.errors.UniqueViolation) could not create unique index "users_email_idx"
DETAIL:  Key (lower(email))=(ann@example.com) is duplicated.
[SQL: INSERT INTO users (email)
VALUES ('ben@example.com', 'it''s')]
[parameters: {'name': 'Carla'}]
(Background on this error at: a page)
`;

describe('the last words of a program', () => {
  test('begin with the cause that a traceback ends with', () => {
    expect(lastWords('code 1', traceback)).toMatch(/^code 1: sqlalchemy\.exc\.IntegrityError: .*users_email_idx/);
  });

  test('hold no value of a row', () => {
    const words = lastWords('code 1', traceback);
    for (const value of ['ann@', 'ben@', 'Carla', 'it']) expect(words).not.toContain(`${value}'`);
    expect(words).not.toMatch(/ann@|ben@|Carla|it''s/);
    expect(words).toContain("VALUES ('?', '?')]");
  });

  test('name the objects that stand in the way', () => {
    const words = lastWords(
      'code 1',
      'E: cannot drop column email of table users\nDETAIL:  view addresses depends on column email of table users\nDETAIL:  Key (a)=(x depends on y) exists.',
    );
    expect(words).toContain('view addresses depends on');
    expect(words).not.toContain('Key (a)');
  });

  test('are those of a signal where it said nothing', () => {
    expect(lastWords('SIGKILL', ' \n')).toContain('SIGKILL from outside');
  });
});

describe('lines of a program that are shown while it runs', () => {
  test('hold no value of a row either', () => {
    const shown = rowValueFilter();
    const lines = traceback.split('\n').map(shown);
    expect(lines.join('\n')).not.toMatch(/ann@|ben@|Carla|it''s/);
    expect(shown('web-1  | DETAIL:  Key (email)=(ann@example.com) already exists.')).toBeUndefined();
    expect(
      shown(`INFO [sqlalchemy.engine.Engine] [generated in 0.00017s] {'email': 'ann@example.com'}`),
    ).toBeUndefined();
  });

  test('are what the program said otherwise', () => {
    const shown = rowValueFilter();
    const line = `INFO  [alembic.runtime.migration] Running upgrade 0002 -> 0003, it's 'quoted'`;
    expect(shown(line)).toBe(line);
  });
});
