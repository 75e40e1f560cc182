import { expect, it } from 'vitest';
import { inspectVersions } from '../../src/postgres/server-version.ts';

const servers = (production: number, staging: number, scratch: number) => ({
  production: { serverMajor: production },
  staging: { serverMajor: staging },
  scratch: { serverMajor: scratch },
});

it('takes servers of one major version from 14 on', () => {
  for (const major of [14, 15, 16, 17, 18, 19]) {
    expect(inspectVersions(servers(major, major, major))).toEqual({ findings: [], notes: [] });
  }
});

it('refuses production that is too old, and a scratch server that would show something else', () => {
  expect(inspectVersions(servers(13, 13, 13)).findings).toEqual(['production is PostgreSQL 13: 14 or later is needed']);
  for (const scratch of [15, 17]) {
    expect(inspectVersions(servers(16, 16, scratch)).findings).toEqual([
      expect.stringContaining(`the scratch server is PostgreSQL ${scratch}, production 16`),
    ]);
  }
});

it('notes that staging is of another major version, and says nothing of servers it could not reach', () => {
  expect(inspectVersions(servers(16, 17, 16))).toEqual({
    findings: [],
    notes: [expect.stringContaining('staging is PostgreSQL 17, production 16')],
  });
  const unreached = { staging: undefined, scratch: undefined };
  expect(inspectVersions({ production: { serverMajor: 16 }, ...unreached })).toEqual({ findings: [], notes: [] });
  expect(inspectVersions({ ...servers(16, 17, 18), production: undefined })).toEqual({ findings: [], notes: [] });
});
