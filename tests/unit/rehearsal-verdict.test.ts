import { describe, expect, test } from 'vitest';
import { rollbackOffer } from '../../src/contract/rehearsal-offer.ts';
import { isLeftover } from '../../src/rehearsal/leftovers.ts';
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
    const beyond = Array.from({ length: 60 }, (_, index) => `table public.t${index}: 1 row(s) more`);
    const leftovers = judge({ downgrade: done({ beyond }), again });
    expect(leftovers.kind === 'leftovers' && leftovers.objects.at(-1)).toBe('and 10 more');
  });

  test('names every object that is left, so that each is known again after a rollback', () => {
    const objects = Array.from({ length: 300 }, (_, index) => `added table public.t${index}`);
    const verdict = judge({ downgrade: done({ objects, beyond: ['table public.audit: 3 row(s) more'] }), again });
    expect(verdict.kind === 'leftovers' && verdict.objects.slice(0, 300)).toEqual(objects);
    const isExpected = isLeftover(verdict.kind === 'leftovers' ? verdict.objects : []);
    expect(objects.filter((line) => !isExpected(line))).toEqual([]);
    expect(isExpected('added table public.t300')).toBe(false);
  });

  test('offers no rollback where it cannot name them all', () => {
    const objects = Array.from({ length: 301 }, (_, index) => `added table public.t${index}`);
    const verdict = judge({ downgrade: done({ objects, lost: [value] }), again });
    expect(verdict).toMatchObject({
      kind: 'fails',
      where: 'comparison',
      why: expect.stringMatching(
        /^301 objects are not as before, and 3 rows or values are lost: .*added table public.t4/,
      ),
    });
    expect(rollbackOffer(verdict).rollback).toBe('not-offered');
  });

  test('cuts long lines, and knows the object again by what was cut, however it is written', () => {
    const line = (cast: string, end: string): string =>
      `added constraint public.t.states: CHECK (${Array.from({ length: 40 }, (_, n) => `(state = 'state ${n}'${cast})`).join(' OR ')} OR state = '${end}')`;
    const verdict = judge({ downgrade: done({ objects: [line('', 'a')] }), again });
    const [cut = ''] = verdict.kind === 'leftovers' ? verdict.objects : [];
    expect(cut.length).toBeLessThanOrEqual(300);
    const isExpected = isLeftover([cut]);
    expect(isExpected(line('', 'a'))).toBe(true);
    expect(isExpected(line('::text', 'a'))).toBe(true);
    expect(isExpected(line('', 'b'))).toBe(false);
  });
});
