import { describe, expect, test } from 'vitest';
import { judge, type StateDifference, type TrialFacts } from '../../src/rehearsal/verdict.ts';

const nothing: StateDifference = { objects: [], lost: [], beyond: [] };
const done = (difference: Partial<StateDifference>): TrialFacts['downgrade'] => ({
  kind: 'done',
  difference: { ...nothing, ...difference },
});
const again = { kind: 'done' } as const;
const value = { table: 'public.users', column: 'phone', values: 3 };

describe('the verdict', () => {
  test('is lossless only where nothing at all differs', () => {
    expect(judge({ downgrade: done({}), again })).toEqual({ kind: 'lossless' });
  });

  test('is leftovers for an object, and for rows more', () => {
    expect(judge({ downgrade: done({ objects: ['added type public.mood'] }), again })).toEqual({
      kind: 'leftovers',
      objects: ['added type public.mood'],
    });
    expect(judge({ downgrade: done({ beyond: ['table public.audit: 3 row(s) more'] }), again })).toEqual({
      kind: 'leftovers',
      objects: ['table public.audit: 3 row(s) more'],
    });
  });

  test('is lossy as soon as a value is lost, whatever else is left', () => {
    expect(judge({ downgrade: done({ lost: [value], objects: ['added type public.mood'] }), again })).toEqual({
      kind: 'lossy',
      lost: [value],
      objects: ['added type public.mood'],
    });
  });

  test('is that it fails when the upgrade cannot be repeated, even where values are lost too', () => {
    const failed = { kind: 'failed', where: 'b2', why: 'type "mood" already exists' } as const;
    const verdict = judge({ downgrade: done({ lost: [value], objects: ['added type public.mood'] }), again: failed });
    expect(verdict).toEqual({
      kind: 'fails',
      where: 'upgrade after the downgrade, revision b2',
      why: 'type "mood" already exists; the downgrade had left: added type public.mood',
    });
  });

  test('is that it fails where a command does, by its name', () => {
    expect(judge({ downgrade: { kind: 'failed', where: 'downgrade a1, revision b2', why: 'boom' } })).toEqual({
      kind: 'fails',
      where: 'downgrade a1, revision b2',
      why: 'boom',
    });
  });

  test('is impossible without a plan', () => {
    expect(judge({ downgrade: { kind: 'impossible', why: 'b2 has no downgrade' } })).toEqual({
      kind: 'impossible',
      why: 'b2 has no downgrade',
    });
  });

  test('fits a history: the largest losses by name, the rest counted', () => {
    const lost = Array.from({ length: 60 }, (_, index) => ({
      table: `public.t${index}`,
      column: null,
      values: index + 1,
    }));
    const verdict = judge({ downgrade: done({ lost }), again });
    expect(verdict).toMatchObject({
      lost: expect.arrayContaining([{ table: 'public.t59', column: null, values: 60 }]),
      // 1 + 2 + ... + 10
      objects: ['10 further tables or columns lose 55 rows or values'],
    });
    expect(verdict.kind === 'lossy' && verdict.lost.length).toBe(50);
    const objects = Array.from({ length: 60 }, (_, index) => `added table public.t${index}`);
    const leftovers = judge({ downgrade: done({ objects }), again });
    expect(leftovers.kind === 'leftovers' && leftovers.objects.at(-1)).toBe('and 10 more');
  });
});
