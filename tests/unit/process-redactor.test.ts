import { describe, expect, test } from 'vitest';
import { createRedactor } from '../../src/process/redactor.ts';

const password = `p@ss w/rd%'"q\\z`;

describe('a redactor', () => {
  test.each([
    ['as written', password],
    ['percent-encoded', encodeURIComponent(password)],
    ['percent-encoded with every reserved character', encodeURIComponent(password).replaceAll("'", '%27')],
    ['percent-encoded in lower case', encodeURIComponent(password).replace(/%../g, (e) => e.toLowerCase())],
    ['percent-encoded with plus for space', encodeURIComponent(password).replaceAll("'", '%27').replaceAll('%20', '+')],
    ['with the percent signs of an ini file', encodeURIComponent(password).replaceAll('%', '%%')],
    ['inside JSON', JSON.stringify(password).slice(1, -1)],
    ['inside a Python string', password.replaceAll('\\', '\\\\').replaceAll("'", "\\'")],
  ])('finds a password %s', (_form, written) => {
    expect(createRedactor([password]).redact(`before ${written} after`)).toBe('before [redacted] after');
  });

  test('finds the password of a URL by itself, raw and decoded', () => {
    const redactor = createRedactor(['postgresql://dana:p%40ss%2Fword@db.example:5432/app?sslmode=require']);
    expect(redactor.redact('raw p%40ss%2Fword, decoded p@ss/word')).toBe('raw [redacted], decoded [redacted]');
    expect(redactor.redact('user dana of app')).toBe('user dana of app');
  });

  test('finds the password of a URL whose password holds an unescaped at sign', () => {
    expect(createRedactor(['postgresql://u:one@two@host/db']).redact('one@two')).toBe('[redacted]');
  });

  test('finds the password of a keyword connection string', () => {
    expect(createRedactor(["host=db password='it\\'s here' user=u"]).redact("it's here")).toBe('[redacted]');
    expect(createRedactor(['postgresql://db/app?user=u&password=query-secret']).redact('query-secret')).toBe(
      '[redacted]',
    );
  });

  test('finds each line of a secret of several lines', () => {
    const key = '-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----';
    expect(createRedactor([key]).redact('  BgkqhkiG9w0B')).toBe('  [redacted]');
  });

  test('masks the longer of two secrets that overlap', () => {
    expect(createRedactor(['secret', 'secret-longer']).redact('secret-longer')).toBe('[redacted]');
  });

  test('leaves ordinary text alone when a secret is too short to protect anything', () => {
    expect(createRedactor(['abc', '']).redact('abc')).toBe('abc');
  });

  test('keeps what it knew when it learns more', () => {
    expect(createRedactor(['first-one']).with(['second-one']).redact('first-one second-one')).toBe(
      '[redacted] [redacted]',
    );
  });

  test('takes characters with a meaning in patterns literally', () => {
    expect(createRedactor(['a.c*(d)[e]$']).redact('abc*(d)[e]$ a.c*(d)[e]$')).toBe('abc*(d)[e]$ [redacted]');
  });
});
