import { describe, expect, it } from 'vitest';
import { judge, type Leftover } from '../../src/sweep/leftover.ts';
import { runStartedAt } from '../../src/sweep/run-time.ts';

const now = Date.parse('2026-11-22T12:00:00Z');
const leftover: Leftover = {
  kind: 'database',
  purpose: 'drill',
  server: 'scratch',
  name: 'whisper_drill_1',
  oid: 1,
  owner: { service: 'whisper', runId: 'run', workflowId: 'drill-whisper', step: 'drill.restore' },
  since: null,
  expiresAt: '2026-11-22T11:59:59Z',
  bytes: null,
};

describe('a leftover', () => {
  it('may be removed once it has expired and its run is over', () => {
    expect(judge(leftover, 'ended', { now, forgotten: 'keep' })).toEqual({ kind: 'removable' });
  });

  it.each([
    ['its run is running, however old it is', leftover, 'running', 'still running'],
    ['it has not expired', { ...leftover, expiresAt: '2026-11-22T12:00:01Z' }, 'ended', 'stay until'],
    ['nobody can read its expiry', { ...leftover, expiresAt: 'soon' }, 'ended', 'stay until soon'],
    ['the server does not know its run', leftover, 'forgotten', 'does not know its run'],
  ] as const)('is kept while %s', (_name, found, run, why) => {
    expect(judge(found, run, { now, forgotten: 'keep' })).toEqual({
      kind: 'kept',
      why: expect.stringContaining(why),
    });
  });

  it('of a forgotten run is removed only when asked for, and then only after its expiry', () => {
    expect(judge(leftover, 'forgotten', { now, forgotten: 'remove' })).toEqual({ kind: 'removable' });
    const fresh = { ...leftover, expiresAt: '2026-11-22T12:00:01Z' };
    expect(judge(fresh, 'forgotten', { now, forgotten: 'remove' }).kind).toBe('kept');
    expect(judge(leftover, 'running', { now, forgotten: 'remove' }).kind).toBe('kept');
  });
});

describe('the age of a run', () => {
  it('is in an id of version 7', () => {
    expect(runStartedAt('019364f1-7a80-7000-8000-000000000000')).toBe(
      new Date(Number.parseInt('019364f17a80', 16)).toISOString(),
    );
  });

  it('is not in other ids', () => {
    expect(runStartedAt('0190b5a4-0000-4000-8000-000000000001')).toBeNull();
    expect(runStartedAt('run')).toBeNull();
  });
});
