import { describe, expect, it } from 'vitest';
import { STEP_ERRORS, StepError } from '../../src/contract/errors.ts';
import type { RestoreProfile } from '../../src/contract/profile.ts';
import { checkCapacity, type CapacityNeed } from '../../src/postgres/restore/capacity.ts';

const GB = 1024 ** 3;
/** 10 GB of data and at most 1 GB of WAL: 12 GB on each server. */
const need: CapacityNeed = { database: 'service', sizeBytes: 10 * GB, walBytes: GB, tablespaces: [] };
const command: RestoreProfile['capacity'] = {
  kind: 'command',
  action: { kind: 'command', command: ['free-bytes'], directory: 'profile', environment: {}, timeout: 1_000 },
};
const check = (printed: string, standbys: readonly string[] = ['replica1'], more: Partial<CapacityNeed> = {}) =>
  checkCapacity({ need: { ...need, ...more }, standbys, capacity: command, freeBytes: async () => printed });

describe('room for a second copy', () => {
  it('is there when every server has as much as the copy and its WAL need', async () => {
    const { findings, text } = await check(JSON.stringify({ primary: 13 * GB, replica1: 12.5 * GB }));
    expect(findings).toEqual([]);
    expect(text).toBe('measured: primary 13.0 GB free of 12.0 GB needed, replica1 12.5 GB free of 12.0 GB needed');
  });

  it('is missing where one server has less, and that one is named', async () => {
    const { findings } = await check(JSON.stringify({ primary: 50 * GB, replica1: 11 * GB }));
    expect(findings).toEqual([
      expect.stringMatching(/second copy of database "service" on replica1: 11\.0 GB free, 12\.0 GB needed/),
    ]);
  });

  it('is needed once for each server where one number means one volume for all', async () => {
    expect((await check(String(13 * GB))).findings).toEqual([
      expect.stringMatching(/on primary and replica1: 13\.0 GB free, 24\.0 GB needed/),
    ]);
    expect((await check(String(25 * GB))).findings).toEqual([]);
    expect((await check(String(13 * GB), [])).findings).toEqual([]);
  });

  it.each([
    ['', 'neither a number nor'],
    ['plenty', 'neither a number nor'],
    ['null', 'neither a number nor'],
    ['"5"', 'neither a number nor'],
    ['[13e9, 13e9]', 'neither a number nor'],
    ['-1', 'neither a number nor'],
    ['{}', 'tells nothing of "primary"'],
    [`{"primary": ${99 * GB}}`, 'tells nothing of "replica1"'],
    [`{"primary": ${99 * GB}, "replica1": null}`, 'no number of bytes'],
    [`{"primary": ${99 * GB}, "replica1": "99 GB"}`, 'no number of bytes'],
    [`{"primary": ${99 * GB}, "replica1": ${99 * GB}, "replica2": 1}`, 'neither the primary nor a standby'],
  ])('is not known from %s', async (printed, why) => {
    const { findings } = await check(printed);
    expect(findings.join('\n')).toContain(why);
  });

  it('is not known when the command fails, and why it failed is said', async () => {
    const { findings } = await checkCapacity({
      need,
      standbys: [],
      capacity: command,
      freeBytes: () =>
        Promise.reject(new StepError(STEP_ERRORS.processFailed, 'command free-bytes exited with code 3')),
    });
    expect(findings).toEqual(['restore.capacity: command free-bytes exited with code 3']);
  });

  it('is taken on trust where the profile waives it, and the waiver stands in the record in its own words', async () => {
    const { findings, text } = await checkCapacity({
      need: { ...need, tablespaces: ['fast'] },
      standbys: ['replica1'],
      capacity: { kind: 'waiver', reason: 'storage grows by itself, 2 TB at most' },
      freeBytes: () => Promise.reject(new Error('must not be asked')),
    });
    expect(findings).toEqual([]);
    expect(text).toBe(
      'waived: storage grows by itself, 2 TB at most (12.0 GB needed on the primary and on each standby) (tablespaces fast may lie on volumes of their own, which is not looked into)',
    );
  });
});
