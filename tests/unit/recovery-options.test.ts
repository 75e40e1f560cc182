import { describe, expect, test } from 'vitest';
import type { Reality } from '../../src/contract/evidence/rollback.ts';
import type { RecoveryAction } from '../../src/contract/messages.ts';
import {
  judge,
  possibleActions,
  realityText,
  retryText,
  rowsText,
  retryFrom,
  type Situation,
} from '../../src/workflows/recovery-options.ts';
import type { UndoDoubt } from '../../src/workflows/run-state.ts';

const realities = {
  unreadable: undefined,
  unchanged: { kind: 'unchanged' },
  'partly applied, clean': { kind: 'partly-applied', revisions: ['0003'], clean: 'yes', why: 'stopped' },
  'partly applied, leftovers': { kind: 'partly-applied', revisions: ['0003'], clean: 'no', why: 'an invalid index' },
  'partly applied, unclear': { kind: 'partly-applied', revisions: ['0003'], clean: 'unknown', why: 'no transaction' },
  'fully applied': { kind: 'fully-applied' },
  foreign: { kind: 'foreign', why: 'somebody else changed it' },
} as const satisfies Record<string, Reality | undefined>;
type RealityName = keyof typeof realities;

const situation = (changes: Partial<Situation> = {}): Situation => ({
  reality: { kind: 'fully-applied' },
  trouble: { kind: 'failure', step: 'apply.smoke', message: 'playback is broken', findings: [] },
  rollbackPolicy: 'ask',
  downgradePlanned: true,
  rollbackOffer: 'as-profile',
  arrivals: 'none',
  backupVerified: true,
  isFenced: true,
  restore: 'ask',
  tried: [],
  rollback: 'none',
  undoDoubt: undefined,
  ...changes,
});

const verdictOf = (changes: Partial<Situation>): string => {
  const verdict = judge(situation(changes));
  return verdict.kind === 'automatic' ? `automatic ${verdict.action}` : verdict.kind;
};

describe('what happens by itself', () => {
  const table: Readonly<Record<RealityName, Readonly<Record<Situation['rollbackPolicy'], string>>>> = {
    unreadable: { ask: 'ask', automatic: 'ask', never: 'ask' },
    unchanged: { ask: 'nothing-to-undo', automatic: 'nothing-to-undo', never: 'nothing-to-undo' },
    'partly applied, clean': { ask: 'ask', automatic: 'automatic rollback', never: 'ask' },
    'partly applied, leftovers': { ask: 'ask', automatic: 'ask', never: 'ask' },
    'partly applied, unclear': { ask: 'ask', automatic: 'ask', never: 'ask' },
    'fully applied': { ask: 'ask', automatic: 'automatic rollback', never: 'ask' },
    foreign: { ask: 'ask', automatic: 'ask', never: 'ask' },
  };
  const cells = Object.entries(table).flatMap(([reality, verdicts]) =>
    Object.entries(verdicts).map(([policy, verdict]) => [reality, policy, verdict] as const),
  );

  test('a rollback whose rehearsal lost something waits for a person', () => {
    expect(verdictOf({ rollbackPolicy: 'automatic', rollbackOffer: 'by-decision' })).toBe('ask');
    expect(possibleActions(situation({ rollbackOffer: 'by-decision' }))).toContain('rollback');
  });

  test('a rollback whose rehearsal failed is not offered at all', () => {
    expect(verdictOf({ rollbackPolicy: 'automatic', rollbackOffer: 'not-offered' })).toBe('ask');
    expect(possibleActions(situation({ rollbackOffer: 'not-offered' }))).not.toContain('rollback');
  });

  test.each(['some', 'unknown'] as const)(
    'a rollback waits for a person when what it drops has %s arrivals',
    (arrivals) => {
      expect(verdictOf({ rollbackPolicy: 'automatic', arrivals })).toBe('ask');
    },
  );

  test('a rollback waits for a person where users could write since the upgrade', () => {
    expect(verdictOf({ rollbackPolicy: 'automatic', isFenced: false })).toBe('ask');
  });

  test('a restore that takes back nothing of the users’ starts by itself where the rollback is no way', () => {
    const automatic = { restore: 'automatic' } as const;
    expect(verdictOf({ ...automatic, rollbackOffer: 'not-offered' })).toBe('automatic restore');
    expect(verdictOf({ ...automatic, rollbackPolicy: 'never' })).toBe('automatic restore');
    expect(verdictOf({ ...automatic, rollbackPolicy: 'automatic' })).toBe('automatic rollback');
    expect(verdictOf({ ...automatic, rollbackPolicy: 'automatic', tried: ['rollback'] })).toBe('automatic restore');
    expect(verdictOf({ ...automatic, rollbackOffer: 'not-offered', tried: ['restore'] })).toBe('ask');
    expect(verdictOf({ ...automatic, rollbackPolicy: 'ask' })).toBe('ask');
  });

  test('nothing is undone by itself because the point of no return has passed after the upgrade', () => {
    const trouble = { kind: 'failure', step: 'apply.open/window', message: 'late', findings: [] } as const;
    expect(verdictOf({ rollbackPolicy: 'automatic', restore: 'automatic', trouble })).toBe('ask');
  });

  test.each(cells)('production %s, rollback policy %s: %s', (reality, policy, verdict) => {
    expect(
      verdictOf({
        reality: realities[reality as RealityName],
        rollbackPolicy: policy as Situation['rollbackPolicy'],
      }),
    ).toBe(verdict);
  });

  test.each(['validation.monitoring', 'validation.schema', 'gate.qa'])('is no rollback after a failed %s', (step) => {
    const trouble = { kind: 'failure', step, message: 'slower than before', findings: [] } as const;
    expect(verdictOf({ rollbackPolicy: 'automatic', trouble })).toBe('ask');
  });

  test('is no rollback without a planned downgrade', () => {
    expect(verdictOf({ rollbackPolicy: 'automatic', downgradePlanned: false })).toBe('ask');
  });

  test.each(['rollback', 'restore'] as const)('is no rollback after a failed %s', (tried) => {
    expect(verdictOf({ rollbackPolicy: 'automatic', tried: [tried] })).toBe('ask');
  });

  test('is never a restore', () => {
    for (const reality of Object.values(realities)) {
      for (const backupVerified of [true, false]) {
        for (const tried of [[], ['rollback'], ['restore'], ['rollback', 'restore']] as const) {
          const verdict = judge(
            situation({ reality, backupVerified, tried, rollbackPolicy: 'automatic', downgradePlanned: false }),
          );
          expect(verdict.kind).not.toBe('automatic');
        }
      }
    }
  });
});

describe('an undo whose reply was lost', () => {
  test('is known by production being as before, when it was a rollback', () => {
    expect(judge(situation({ reality: { kind: 'unchanged' }, tried: ['rollback'], rollback: 'begun' }))).toEqual({
      kind: 'undone',
      by: 'rollback',
    });
  });

  test('is a person’s to judge when it was a restore: the backup may be older than the last row', () => {
    expect(verdictOf({ reality: { kind: 'unchanged' }, tried: ['restore'] })).toBe('ask');
    expect(verdictOf({ reality: { kind: 'unchanged' }, tried: ['rollback', 'restore'] })).toBe('ask');
  });
});

describe('what a person may choose', () => {
  const offered: Readonly<Record<RealityName, readonly RecoveryAction[]>> = {
    unreadable: ['retry', 'accept'],
    unchanged: ['retry', 'restore', 'accept'],
    'partly applied, clean': ['retry', 'rollback', 'restore', 'accept'],
    'partly applied, leftovers': ['retry', 'rollback', 'restore', 'accept'],
    'partly applied, unclear': ['retry', 'rollback', 'restore', 'accept'],
    'fully applied': ['retry', 'continue', 'rollback', 'restore', 'accept'],
    foreign: ['retry', 'restore', 'accept'],
  };

  test.each(Object.entries(offered))('when production is %s: %j', (reality, actions) => {
    expect(possibleActions(situation({ reality: realities[reality as RealityName] }))).toEqual(actions);
  });

  test('always holds a retry and the acceptance, whatever else is missing', () => {
    for (const reality of Object.values(realities)) {
      const actions = possibleActions(
        situation({ reality, backupVerified: false, downgradePlanned: false, rollbackPolicy: 'never' }),
      );
      expect(actions.filter((action) => action !== 'continue')).toEqual(['retry', 'accept']);
    }
  });

  test('holds no rollback where the profile forbids it or none is planned', () => {
    expect(possibleActions(situation({ rollbackPolicy: 'never' }))).not.toContain('rollback');
    expect(possibleActions(situation({ downgradePlanned: false }))).not.toContain('rollback');
  });

  test('holds no restore without a verified backup', () => {
    expect(possibleActions(situation({ backupVerified: false }))).not.toContain('restore');
  });

  test('is what the gate offers', () => {
    const asked = situation({ reality: realities['partly applied, unclear'] });
    expect(judge(asked)).toEqual({ kind: 'ask', actions: possibleActions(asked) });
  });
});

describe('a retry', () => {
  test.each(Object.entries(realities))('when production is %s starts where it must', (name, reality) => {
    expect(retryFrom({ reality, undoDoubt: undefined })).toBe(name === 'fully applied' ? 'checks' : 'upgrade');
  });
});

describe('what a retry needs first', () => {
  test.each(Object.entries(realities))('when production is %s', (name, reality) => {
    const text = retryText({ reality, undoDoubt: undefined });
    const needs = ['partly applied, leftovers', 'partly applied, unclear', 'foreign'].includes(name);
    expect(text === '' || text.includes('does not go on from there')).toBe(true);
    expect(text !== '').toBe(needs);
    expect(text.includes('what it left is removed')).toBe(name === 'partly applied, leftovers');
  });
});

describe('reality in words', () => {
  test('differs for every kind, and names what is known', () => {
    const texts = Object.values(realities).map((reality) => realityText(reality));
    expect(new Set(texts).size).toBe(texts.length);
    expect(realityText(realities['partly applied, leftovers'])).toContain('0003 (an invalid index)');
    expect(realityText({ kind: 'partly-applied', revisions: [], clean: 'no', why: 'x' })).toContain('at no revision');
    expect(realityText(realities.foreign)).toContain('somebody else changed it');
  });
});

describe('after a rollback that began in the middle of what was rehearsed', () => {
  const after = (rows: UndoDoubt['rows'], changes: Partial<Situation> = {}): Situation =>
    situation({
      reality: { kind: 'unchanged' },
      trouble: { kind: 'failure', step: 'apply.upgrade', message: 'it failed', findings: [] },
      tried: ['rollback'],
      rollback: 'begun',
      undoDoubt: { undo: 'of-a-part', rows, why: 'table public.notes: other rows' },
      ...changes,
    });

  test.each(['equal', 'not-comparable', 'accepted'] as const)('rows that are %s end it as undone', (rows) => {
    expect(judge(after(rows))).toEqual({ kind: 'undone', by: 'rollback' });
  });

  test.each(['other', 'unproven'] as const)(
    'rows that are %s are for a person, who may say that they are right',
    (rows) => {
      expect(judge(after(rows))).toEqual({ kind: 'ask', actions: ['retry', 'continue', 'restore', 'accept'] });
      const failed = after(rows, { tried: ['rollback', 'restore'], restore: 'automatic' });
      expect(judge(failed).kind).toBe('ask');
    },
  );

  test('only rows that were found to be others start a restore, where the profile lets it', () => {
    expect(judge(after('other', { restore: 'automatic' }))).toEqual({ kind: 'automatic', action: 'restore' });
    expect(judge(after('unproven', { restore: 'automatic' })).kind).toBe('ask');
    expect(judge(after('other', { restore: 'automatic', backupVerified: false })).kind).toBe('ask');
  });

  test('that left what it was rehearsed to leave is undone, though the objects are not those of before', () => {
    const { leftovers, unclear } = {
      leftovers: realities['partly applied, leftovers'],
      unclear: realities['partly applied, unclear'],
    };
    for (const reality of [leftovers, unclear]) {
      expect(judge(after('not-comparable', { reality, rollback: 'ended' }))).toEqual({
        kind: 'undone',
        by: 'rollback',
      });
      const doubtful = after('unproven', { reality, rollback: 'ended', restore: 'automatic' });
      expect(judge(doubtful)).toEqual({ kind: 'ask', actions: ['retry', 'continue', 'restore', 'accept'] });
      expect(judge(after('not-comparable', { reality })).kind).toBe('ask');
    }
  });

  test('with a rollback that has not begun there is nothing to undo, whatever failed before', () => {
    expect(judge(after('equal', { rollback: 'none' }))).toEqual({ kind: 'nothing-to-undo' });
  });

  test.each(Object.entries(realities))('no upgrade is started over them when production is %s', (_name, reality) => {
    for (const rows of ['unproven', 'other', 'not-comparable'] as const) {
      expect(retryFrom(after(rows, { reality }))).toBe('look');
      expect(retryText(after(rows, { reality }))).toContain('looks again');
    }
    for (const rows of ['equal', 'accepted'] as const) expect(retryFrom(after(rows, { reality }))).not.toBe('look');
  });

  test('words say what is known', () => {
    expect(rowsText(undefined)).toBe('');
    expect(rowsText({ undo: 'of-a-part', rows: 'equal', why: '' })).toBe('');
    const texts = (['of-a-part', 'interrupted', 'by-others'] as const).flatMap((undo) =>
      (['other', 'unproven', 'not-comparable', 'accepted'] as const).map((rows) =>
        rowsText({ undo, rows, why: 'because' }),
      ),
    );
    expect(new Set(texts).size).toBe(12);
    for (const text of texts) expect(text).toContain('because');
  });
});
