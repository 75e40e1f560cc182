import { describe, expect, it } from 'vitest';
import {
  databaseMark,
  type DatabaseMark,
  isExpired,
  parseDatabaseMark,
} from '../../src/postgres/restore/database-mark.ts';

const mark: DatabaseMark = {
  kind: 'kept-aside',
  runId: '0190aaaa-0000-7000-8000-000000000001',
  service: 'whisper-transcriber',
  workflowId: 'migrate-whisper-transcriber',
  expiresAt: '2026-12-06T10:00:00.000Z',
  note: 'Was database "whisper".',
};

describe('the mark of a database', () => {
  it('reads as a sentence and parses back', () => {
    const comment = databaseMark(mark);
    expect(comment).toMatch(
      /^Put aside by run 0190aaaa-\S+ of migration-runbook \(migrate-whisper-transcriber, service whisper-transcriber\), to be kept until 2026-12-06T10:00:00.000Z\. Was database "whisper"\. \[/,
    );
    expect(parseDatabaseMark(comment)).toEqual(mark);
  });

  it.each([
    'a]b[c',
    `it's "quoted" \\ and ]}`,
    'Дані 数据 😀',
    'line\nbreak\ttab',
    '{"kind":"drill"}',
    '[migration-runbook/mark/1 {}]',
  ])('holds any text in names and notes: %j', (text) => {
    const odd = { ...mark, service: text, workflowId: text, note: text, facts: { text, number: 7.5 } };
    expect(parseDatabaseMark(databaseMark(odd))).toEqual(odd);
  });

  it('has a part for programs that every encoding of a server can hold', () => {
    const comment = databaseMark({ ...mark, note: 'ü 数' });
    expect(comment.slice(comment.indexOf('['))).toMatch(/^[\x20-\x7e]+$/);
  });

  it('survives people who write around it', () => {
    expect(parseDatabaseMark(`keep this one, ticket 12 [sic]\n${databaseMark(mark)}\n(asked Dana)`)).toEqual(mark);
  });

  it.each([
    ['no comment', null],
    ['an empty comment', ''],
    ['a comment of somebody else', "the service's database"],
    ['an altered kind', databaseMark(mark).replace('"kind":"kept-aside"', '"kind":"production"')],
    ['a lost field', databaseMark(mark).replace('"runId"', '"ran"')],
    [
      'an expiry that is no time',
      databaseMark(mark).replace('"expiresAt":"2026-12-06T10:00:00.000Z"', '"expiresAt":"never"'),
    ],
    ['half a mark', databaseMark(mark).slice(0, -20)],
    ['two marks', `${databaseMark(mark)} ${databaseMark({ ...mark, kind: 'drill' })}`],
  ])('is not seen in %s', (_, comment) => {
    expect(parseDatabaseMark(comment)).toBeUndefined();
  });

  it('counts for the database it was made for only, where that is recorded', () => {
    const comment = databaseMark(mark, 16_400);
    expect(parseDatabaseMark(comment, 16_400)).toEqual(mark);
    expect(parseDatabaseMark(comment, 16_999)).toBeUndefined();
    expect(parseDatabaseMark(databaseMark(mark), 16_999)).toEqual(mark);
  });

  it('expires at its time', () => {
    expect(isExpired(mark, Date.parse('2026-12-06T09:59:59Z'))).toBe(false);
    expect(isExpired(mark, Date.parse('2026-12-06T10:00:00Z'))).toBe(true);
  });
});
