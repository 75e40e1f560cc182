import { beforeEach, describe, expect, test } from 'vitest';
import type { Rehearsal } from '../../src/contract/evidence/rehearsal.ts';
import type { Obligation } from '../../src/contract/status.ts';
import { RunState, type Trouble, troubleText } from '../../src/workflows/run-state.ts';
import { verdictOf } from '../../src/workflows/verdict.ts';

const request = {
  service: 'whisper-transcriber',
  releaseTag: 'v2.1.0',
  changeTicket: 'CHG-1042',
  requestedBy: 'dana@example.com',
};

let clock = 0;
let state: RunState;

beforeEach(() => {
  clock = Date.parse('2026-11-22T22:00:00Z');
  state = new RunState(request, () => new Date(clock));
});

const pass = (seconds: number): void => {
  clock += seconds * 1000;
};

const obligation = (name: string, status: Obligation['status'] = 'engaged'): Omit<Obligation, 'since'> => ({
  name,
  kind: 'freeze',
  before: { state: 'released', detail: {} },
  status,
});

describe('the timeline', () => {
  test('records when each step began and ended, with its evidence', () => {
    state.beginStep('backup.capture', 'Backup');
    pass(4);
    state.endStep('backup.capture', { status: 'done', evidence: { rows: 7 } });
    expect(state.timeline).toEqual([
      {
        id: 'backup.capture',
        summary: 'Backup',
        startedAt: '2026-11-22T22:00:00.000Z',
        endedAt: '2026-11-22T22:00:04.000Z',
        status: 'done',
        evidence: { rows: 7 },
      },
    ]);
  });

  test('numbers the repetitions of a step, and counts no other step as one', () => {
    for (const wanted of ['apply.smoke', 'apply.smoke#2', 'apply.smoke#3']) {
      const id = state.nextStepId('apply.smoke');
      expect(id).toBe(wanted);
      state.beginStep(id, '');
    }
    expect(state.nextStepId('apply.smoke-writes')).toBe('apply.smoke-writes');
    expect(state.nextStepId('apply.smoke/part')).toBe('apply.smoke/part');
  });

  test('knows what is settled: done once, or overruled', () => {
    expect(state.isSettled('apply.smoke')).toBe(false);
    state.beginStep('apply.smoke', '');
    expect(state.isSettled('apply.smoke')).toBe(false);
    state.endStep('apply.smoke', { status: 'failed', error: 'broken' });
    expect(state.isSettled('apply.smoke')).toBe(false);
    state.beginStep('apply.smoke#2', '');
    state.endStep('apply.smoke#2', { status: 'done' });
    expect(state.isSettled('apply.smoke')).toBe(true);
    expect(state.isSettled('apply.smoke-writes')).toBe(false);
  });

  test('overrules the last failure of a step and leaves the earlier ones', () => {
    for (const id of ['apply.smoke', 'apply.smoke#2']) {
      state.beginStep(id, '');
      state.endStep(id, { status: 'failed', error: 'broken' });
    }
    state.overrule('apply.smoke');
    expect(state.timeline.map(({ status }) => status)).toEqual(['failed', 'overruled']);
    expect(state.timeline[1]?.error).toBe('broken');
    expect(state.isSettled('apply.smoke')).toBe(true);
  });

  test('takes the end of a step it does not know, or an overruling, without harm', () => {
    state.endStep('nowhere', { status: 'done' });
    state.overrule('nowhere');
    expect(state.timeline).toEqual([]);
  });
});

describe('obligations', () => {
  test('are registered once each, since when they were first engaged', () => {
    state.setObligation(obligation('deployments', 'engaging'));
    pass(5);
    state.setObligation(obligation('deployments', 'engaged'));
    expect(state.obligations).toEqual([{ ...obligation('deployments'), since: '2026-11-22T22:00:00.000Z' }]);
  });

  test('are owed newest first, while they are being engaged, engaged or could not be put back', () => {
    for (const [name, status] of [
      ['notice', 'engaged'],
      ['silence', 'released'],
      ['freeze', 'open'],
      ['kept', 'kept'],
      ['jobs', 'engaging'],
    ] as const) {
      state.setObligation(obligation(name, status));
    }
    expect(state.owed().map(({ name }) => name)).toEqual(['jobs', 'freeze', 'notice']);
    expect(state.status().openObligations).toBe(3);
  });

  test('keep their order when one changes', () => {
    state.setObligation(obligation('first'));
    state.setObligation(obligation('second'));
    state.setObligation(obligation('first', 'open'));
    expect(state.owed().map(({ name }) => name)).toEqual(['second', 'first']);
  });
});

describe('refusals', () => {
  test('are all counted, the last twenty kept', () => {
    for (let number = 1; number <= 2000; number += 1) state.refuse('approve', `why ${number}`);
    expect(state.refusalCount).toBe(2000);
    expect(state.lastRefusals).toHaveLength(20);
    expect(state.lastRefusals[0]?.why).toBe('why 1981');
    expect(state.lastRefusals.at(-1)?.why).toBe('why 2000');
  });

  test('name the sender where one is known', () => {
    state.refuse('approve', 'malformed');
    state.refuse('approve', 'requested this run', 'dana@example.com');
    expect(state.lastRefusals.map((refusal) => 'by' in refusal)).toEqual([false, true]);
  });
});

describe('the status', () => {
  test('of a run that has just begun says who asked for what, and nothing more', () => {
    expect(state.status()).toEqual({
      ...request,
      stage: 'before-upgrade',
      obligations: [],
      openObligations: 0,
      decisions: [],
      refusals: { count: 0, last: [] },
      actions: [],
    });
  });

  test('names the step that runs: the one that began last', () => {
    state.beginStep('apply.upgrade', 'Upgrade');
    state.beginStep('apply.upgrade/watch', 'Watch');
    expect(state.status().step?.id).toBe('apply.upgrade/watch');
    state.endStep('apply.upgrade/watch', { status: 'done' });
    expect(state.status().step).toEqual({
      id: 'apply.upgrade',
      summary: 'Upgrade',
      since: '2026-11-22T22:00:00.000Z',
    });
    state.endStep('apply.upgrade', { status: 'failed' });
    expect(state.status().step).toBeUndefined();
  });

  test('offers recovery actions only at the gate recovery', () => {
    state.waiting = { for: 'qa', gate: 'qa', until: '' };
    expect(state.status().actions).toEqual([]);
    state.waiting = { for: 'recovery', gate: 'recovery', actions: ['retry', 'accept'], why: 'x' };
    expect(state.status().actions).toEqual(['retry', 'accept']);
  });

  test('is a picture of the moment, not a window on what comes', () => {
    const status = state.status();
    state.refuse('approve', 'x');
    state.decide({ by: 'erin', what: 'abort' });
    state.setObligation(obligation('freeze'));
    expect(status).toMatchObject({ decisions: [], obligations: [], refusals: { count: 0, last: [] } });
  });

  test('can be sent as JSON', () => {
    state.trouble = { kind: 'deadline', message: 'the window ended' };
    state.windowEnd = '2026-11-22T23:00:00Z';
    state.outcome = 'aborted';
    state.decide({ by: 'erin', what: 'approve', gate: 'production' });
    expect(JSON.parse(JSON.stringify(state.status()))).toEqual(state.status());
  });
});

describe('trouble in words', () => {
  const cases: readonly (readonly [Trouble, string])[] = [
    [{ kind: 'failure', step: 'apply.smoke', message: 'broken', findings: [] }, 'apply.smoke failed: broken'],
    [{ kind: 'abort', by: 'erin', reason: 'disk', cancelled: false }, 'aborted by erin: disk'],
    [
      { kind: 'abort', by: '', reason: 'the workflow was cancelled', cancelled: true },
      'cancelled: the workflow was cancelled',
    ],
    [{ kind: 'rejected', by: 'erin', reason: 'no' }, 'rejected by erin: no'],
    [{ kind: 'no-approval', message: '0 of 1' }, '0 of 1'],
    [{ kind: 'deadline', message: 'late' }, 'late'],
    [{ kind: 'lease-lost', message: 'gone' }, 'gone'],
  ];
  test.each(cases)('%j: %s', (trouble, text) => expect(troubleText(trouble)).toBe(text));
});

describe('messages that decide nothing any more', () => {
  test('are kept up to a bound, then counted: what is kept of a run has to fit into one payload', () => {
    state.decide({ by: 'erin', what: 'approve', gate: 'production' });
    for (let count = 0; count < 10_000; count += 1) state.note({ by: 'b'.repeat(1000), what: `abort ${count}` });
    state.decide({ by: 'erin', what: 'recover: retry', gate: 'recovery' });
    state.note({ by: 'frank', what: 'abort again' });
    expect(JSON.stringify(state.status()).length).toBeLessThan(40_000);
    const { decisions } = state.status();
    expect(decisions[0]?.what).toBe('approve');
    expect(decisions.at(-2)?.what).toBe('recover: retry');
    expect(decisions.at(-1)).toMatchObject({ by: 'frank', what: 'abort again, the last of 9981 more like it' });
  });
});

describe('the verdict of a run that succeeded', () => {
  const step = (id: string, status: 'done' | 'failed'): void => {
    state.beginStep(id, '');
    state.endStep(id, { status });
  };

  test('names what failed and was overruled, unless it was done again and passed', () => {
    step('apply.smoke', 'failed');
    step('validation.schema', 'failed');
    state.overrule('apply.smoke');
    state.overrule('validation.schema');
    step('apply.smoke#2', 'done');
    expect(verdictOf('succeeded', state)).toContain(
      'but for what failed and was overruled by a person: validation.schema.',
    );
    step('validation.schema#2', 'done');
    expect(verdictOf('succeeded', state)).toContain('smoke tests and validation passed.');
  });

  test('says of a rollback only what the run has seen: of what the rehearsal lost or left, nothing may be there', () => {
    expect(verdictOf('rolled-back', state)).toMatch(/by the planned downgrade, objects equal to before\.$/);
    state.rehearsal = {
      trial: { verdict: { kind: 'leftovers', objects: ['added type public.mood'] } },
    } as unknown as NonNullable<RunState['rehearsal']>;
    expect(verdictOf('rolled-back', state)).toMatch(
      /objects differ from before by no more than what the rehearsal .* lose or leave: added type public\.mood\.$/,
    );
  });
});

describe('what must fit into the window after the upgrade', () => {
  const rehearsed = (verdict: Rehearsal['trial']['verdict']) =>
    ({
      restore: { restored: { milliseconds: 30_000, timings: { data: 20_000, indexes: 2000, compare: 8000 } } },
      trial: { upgrade: { milliseconds: 4000 }, downgrade: { milliseconds: 2000 }, verdict },
      swap: { milliseconds: 1000 },
    }) as Rehearsal;

  beforeEach(() => {
    state.look = 300;
    state.looks = { upgrade: 3, rollback: 3 };
  });

  test('is stopping it, looking at production, and the longest way back', () => {
    state.rehearsal = rehearsed({ kind: 'lossless' });
    expect(state.predictions).toMatchObject({ upgrade: 4900, rollback: 2900, restore: 31_000 });
    expect(state.predictions.recovery).toBe(5000 + 600 + 31_000);
  });

  test('is the rollback alone where a snapshot stands behind it, behind a fence with the comparison of rows', () => {
    state.rehearsal = rehearsed({ kind: 'lossless' });
    state.hasSnapshot = true;
    expect(state.predictions.recovery).toBe(5000 + 600 + 2900);
    state.isToBeFenced = true;
    expect(state.predictions.recovery).toBe(5000 + 600 + 2900 + 8000);
    state.rehearsal = rehearsed({ kind: 'fails', where: 'downgrade', why: 'raises' });
    expect(state.predictions.recovery).toBe(5000 + 600 + 31_000);
  });
});
