import { describe, expect, it } from 'vitest';
import {
  compareProperties,
  type DatabaseProperties,
  type DatabaseSetting,
  restoredProperties,
} from '../../src/postgres/catalog/database-properties.ts';

const properties = (change: Partial<DatabaseProperties> = {}): DatabaseProperties => ({
  owner: 'owner',
  encoding: 'UTF8',
  collate: 'C',
  ctype: 'C',
  provider: 'c',
  locale: null,
  icuRules: null,
  tablespace: 'pg_default',
  connectionLimit: -1,
  comment: null,
  grants: [{ grantee: 'app', privilege: 'CONNECT', grantable: false }],
  settings: [],
  ...change,
});

const setting = (name: string, value: string, role: string | null = null): DatabaseSetting => ({ role, name, value });
const FENCE = 'default_transaction_read_only';

describe('properties of a restored database', () => {
  it('are those of the backup, with the fence as it stands now', () => {
    const recorded = properties({
      connectionLimit: 40,
      settings: [setting('work_mem', '7MB', 'app'), setting(FENCE, 'off')],
    });
    const current = properties({
      connectionLimit: 3,
      settings: [setting('work_mem', '1MB'), setting(FENCE, 'on'), setting(FENCE, 'off', 'migrator')],
    });
    expect(restoredProperties(recorded, current)).toEqual({
      ...recorded,
      settings: [setting('work_mem', '7MB', 'app'), setting(FENCE, 'on'), setting(FENCE, 'off', 'migrator')],
    });
  });

  it('are compared without the fence and the comment', () => {
    const one = properties({ comment: 'ours', settings: [setting(FENCE, 'on')] });
    expect(compareProperties(one, properties({ comment: 'a mark' }))).toEqual([]);
  });

  it('differ by name, never showing the value of a setting', () => {
    const one = properties({ settings: [setting('app.secret', 'hunter2'), setting('work_mem', '7MB', 'app')] });
    const other = properties({
      connectionLimit: 3,
      grants: [{ grantee: null, privilege: 'CONNECT', grantable: true }],
      settings: [setting('app.secret', 'hunter3'), setting('lock_timeout', '1s')],
    });
    const findings = compareProperties(one, other);
    expect(findings).toEqual([
      'connectionLimit: -1 recorded, 3 found',
      'grant CONNECT for app: recorded, not found',
      'grant CONNECT* for PUBLIC: found, not recorded',
      'setting work_mem of role app: recorded, not found',
      'setting lock_timeout: found, not recorded',
      'setting app.secret: another value than was recorded',
    ]);
    expect(findings.join()).not.toContain('hunter');
  });
});
