import { describe, expect, it } from 'vitest';
import { historyTrouble } from '../../src/workflows/bounds.ts';
import { RunState } from '../../src/workflows/run-state.ts';

describe('the history of a run', () => {
  it('has room for thousands of events', () => {
    expect(historyTrouble({ historyLength: 20_000, historySize: 20 * 1024 * 1024 })).toBeUndefined();
  });

  it.each([
    { historyLength: 20_001, historySize: 1 },
    { historyLength: 1, historySize: 20 * 1024 * 1024 + 1 },
  ])('is nearly full at $historyLength events and $historySize bytes, and the reason names both', (size) => {
    const why = historyTrouble(size);
    expect(why).toContain(`${size.historyLength} events`);
    expect(why).toContain(`${size.historySize} bytes`);
  });
});

describe('the evidence of a step that is repeated', () => {
  it('is kept of the last ten, and it is said where it was left out; each time stays on the timeline', () => {
    const state = new RunState(
      { service: 's', releaseTag: 'v1', changeTicket: 'C-1', requestedBy: 'dana@example.com' },
      () => new Date(0),
    );
    for (let times = 0; times < 25; times += 1) {
      const id = state.nextStepId('recovery.evaluate');
      state.beginStep(id, 'What production really is now');
      state.endStep(id, { status: 'done', evidence: { times } });
    }
    expect(state.timeline).toHaveLength(25);
    expect(state.timeline.map(({ id }) => id).slice(-1)).toEqual(['recovery.evaluate#25']);
    const kept = state.timeline.filter(({ evidence }) => typeof (evidence as { times?: number }).times === 'number');
    expect(kept.map(({ evidence }) => evidence)).toEqual(
      Array.from({ length: 10 }, (_, index) => ({ times: index + 15 })),
    );
    expect(state.timeline[0]?.evidence).toEqual({ leftOut: expect.stringContaining('history') });
  });
});
