import { describe, expect, test } from 'vitest';
import { lastWords } from '../../src/process/last-words.ts';

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
    expect(words).toContain('Key (lower(email))=(?) is duplicated.');
    expect(words).not.toMatch(/parameters|Background/);
  });

  test('name the objects that stand in the way', () => {
    const words = lastWords(
      'code 1',
      'E: cannot drop column email of table users\nDETAIL:  view addresses depends on column email of table users\nDETAIL:  Key (a)=(x depends on y) exists.',
    );
    expect(words).toContain('view addresses depends on');
    expect(words).toContain('Key (a)=(?)');
  });

  test('tell the failure that the last exception came up in the handling of', () => {
    const words = lastWords(
      'code 1',
      `Traceback (most recent call last):
psycopg.errors.AdminShutdown: terminating connection due to administrator command

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
sqlalchemy.exc.OperationalError: (psycopg.errors.AdminShutdown) terminating connection due to administrator command
[SQL: UPDATE users SET email = 'ann@example.com']

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
sqlalchemy.exc.PendingRollbackError: Can't reconnect until invalid transaction is rolled back.
`,
    );
    expect(words).toMatch(/^code 1: sqlalchemy\.exc\.PendingRollbackError: /);
    expect(words).toMatch(
      /while handling sqlalchemy\.exc\.OperationalError: .*terminating connection due to administrator/,
    );
    expect(words).not.toContain('ann@');
  });

  test('are those of a signal where it said nothing', () => {
    expect(lastWords('SIGKILL', ' \n')).toContain('SIGKILL from outside');
  });
});
