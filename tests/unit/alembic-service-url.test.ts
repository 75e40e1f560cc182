import { describe, expect, test } from 'vitest';
import { serviceEnvironment, serviceUrl } from '../../src/alembic/service-url.ts';
import { parseConnectionUrl } from '../../src/postgres/connection-url.ts';

const awkward = `p%40@ss w'o"rd/?#:&=+\\`;
const target = {
  ...parseConnectionUrl('postgresql://dana:x@db.example:6432/app?sslmode=require'),
  password: awkward,
};

describe("a service's URL", () => {
  test.each(['postgresql', 'postgresql+psycopg', 'postgresql+psycopg2', 'postgresql+asyncpg'])(
    'with the scheme %s leads to the same place when it is read back',
    (scheme) => {
      const url = serviceUrl(target, scheme);
      expect(url.startsWith(`${scheme}://dana:`)).toBe(true);
      const { sslmode: _, ...place } = target;
      expect(parseConnectionUrl(url.replace('?ssl=', '?sslmode='))).toMatchObject(place);
    },
  );

  test('has the TLS mode in the form its driver knows', () => {
    expect(serviceUrl(target, 'postgresql+psycopg')).toMatch(/\?sslmode=require$/);
    expect(serviceUrl(target, 'postgresql+asyncpg')).toMatch(/\?ssl=require$/);
    expect(() => serviceUrl(target, 'postgresql+pg8000')).toThrow(RangeError);
  });

  test('never begins with postgres://, which SQLAlchemy refuses', () => {
    expect(serviceUrl(target, 'postgres')).toMatch(/^postgresql:\/\//);
  });

  test('names a socket folder and an IPv6 address', () => {
    expect(serviceUrl({ ...target, host: '/run/postgresql' }, 'postgresql+psycopg')).toContain(
      '@:6432/app?sslmode=require&host=%2Frun%2Fpostgresql',
    );
    expect(serviceUrl({ ...target, host: '::1' }, 'postgresql+psycopg')).toContain('@[::1]:6432/');
  });

  test('of another database system is refused', () => {
    expect(() => serviceUrl(target, 'mysql+pymysql')).toThrow('mysql+pymysql');
  });

  test('comes under the name the service reads it from', () => {
    expect(
      Object.keys(serviceEnvironment(target, { urlVariable: 'DB_URL', urlScheme: 'postgresql+psycopg' })).sort(),
    ).toEqual(['DB_URL', 'PGSSLMODE']);
  });
});
