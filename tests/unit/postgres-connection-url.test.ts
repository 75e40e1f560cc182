import { describe, expect, it } from 'vitest';
import { STEP_ERRORS, StepError } from '../../src/contract/errors.ts';
import { describeTarget, libpqEnvironment, parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { boundedIdentifier, qualifiedName, sqlName } from '../../src/postgres/identifier.ts';

describe('a database address', () => {
  it.each([
    [
      'postgresql://u:p@h:6543/d',
      { host: 'h', port: 6543, database: 'd', user: 'u', password: 'p', sslmode: 'prefer' },
    ],
    ['postgres://u@h', { host: 'h', port: 5432, database: 'u', user: 'u', sslmode: 'prefer' }],
    [
      'postgresql+psycopg://u:p%40%2Fs@h/d?sslmode=verify-full&sslrootcert=/ca.pem',
      {
        host: 'h',
        port: 5432,
        database: 'd',
        user: 'u',
        password: 'p@/s',
        sslmode: 'verify-full',
        sslrootcert: '/ca.pem',
      },
    ],
    [
      'postgresql://u:a#b?c@h/d',
      { host: 'h', port: 5432, database: 'd', user: 'u', password: 'a#b?c', sslmode: 'prefer' },
    ],
    [
      'postgresql://u:p@[::1]:5433/d',
      { host: '::1', port: 5433, database: 'd', user: 'u', password: 'p', sslmode: 'prefer' },
    ],
    [
      'postgresql:///d?host=/run/postgresql&user=u',
      { host: '/run/postgresql', port: 5432, database: 'd', user: 'u', sslmode: 'prefer' },
    ],
    [
      'postgresql://%2Frun%2Fpg/d?user=u&ssl=true',
      { host: '/run/pg', port: 5432, database: 'd', user: 'u', sslmode: 'require' },
    ],
    [
      'postgresql://u:p@h/my%20db?connect_timeout=3&application_name=x',
      { host: 'h', port: 5432, database: 'my db', user: 'u', password: 'p', sslmode: 'prefer' },
    ],
  ])('%s', (url, target) => {
    expect(parseConnectionUrl(url)).toEqual(target);
  });

  it.each([
    ['no URL at all', 'hunter2', /not a URL/],
    ['another scheme', 'mysql://u:hunter2@h/d', /not a URL/],
    ['no user', 'postgresql://h/d?password=hunter2', /names no user/],
    ['several hosts', 'postgresql://u:hunter2@a,b/d', /several hosts/],
    ['an unknown parameter', 'postgresql://u:hunter2@h/d?nonsense=hunter2', /not supported: nonsense/],
    ['an unknown sslmode', 'postgresql://u:hunter2@h/d?sslmode=hunter2', /must be one of/],
    ['a port that is none', 'postgresql://u:hunter2@h:x/d', /port/],
    ['a stray percent sign', 'postgresql://u:hunter2%@h/d', /%25/],
  ])('is refused without being quoted: %s', (_, url, message) => {
    let error: unknown;
    try {
      parseConnectionUrl(url);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(StepError);
    expect((error as StepError).type).toBe(STEP_ERRORS.refused);
    expect((error as StepError).message).toMatch(message);
    expect(JSON.stringify([(error as StepError).message, (error as StepError).details])).not.toContain('hunter2');
  });

  it('reaches libpq programs by environment, and people without user and password', () => {
    const target = parseConnectionUrl('postgresql://u:p@h:6543/d?sslmode=require');
    expect(libpqEnvironment(target)).toEqual({
      PGHOST: 'h',
      PGPORT: '6543',
      PGDATABASE: 'd',
      PGUSER: 'u',
      PGPASSWORD: 'p',
      PGSSLMODE: 'require',
      PGCONNECT_TIMEOUT: '10',
    });
    expect(describeTarget(target)).toBe('database "d" at h:6543');
  });
});

describe('a name', () => {
  it('is written plainly where it can be, and quoted in SQL', () => {
    expect(qualifiedName('public', 'user', 'Weird."Name')).toBe('public.user."Weird.""Name"');
    expect(sqlName('public', 'user')).toBe('"public"."user"');
  });

  it('keeps its ending within 63 bytes, also where letters take several', () => {
    expect(boundedIdentifier('whisper', '_restore_0190aaaa')).toBe('whisper_restore_0190aaaa');
    expect(boundedIdentifier('🐘'.repeat(20), '_x')).toBe(`${'🐘'.repeat(15)}_x`);
    const long = boundedIdentifier('ö'.repeat(60), '_restore_0190aaaa');
    expect(long.endsWith('_restore_0190aaaa')).toBe(true);
    expect(Buffer.byteLength(long)).toBeLessThanOrEqual(63);
  });
});
