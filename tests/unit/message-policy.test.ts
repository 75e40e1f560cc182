import { describe, expect, test } from 'vitest';
import type { Message, MessageName } from '../../src/contract/messages.ts';
import type { Stage } from '../../src/contract/status.ts';
import { type OpenGate, rule, type Ruling } from '../../src/workflows/message-policy.ts';

const digest = `${'0123456789ab'.repeat(5)}cdef`;
const otherDigest = 'f'.repeat(64);

const production: Extract<OpenGate, { gate: 'production' }> = {
  gate: 'production',
  planDigest: digest,
  requestedBy: 'dana@example.com',
  required: 2,
  approvers: [],
  signatures: 'optional',
  approvedBy: [],
};
const qa: OpenGate = { gate: 'qa', planDigest: digest };
const recovery: OpenGate = { gate: 'recovery', actions: ['retry', 'restore', 'accept'] };

const messages: Readonly<Record<MessageName, Message>> = {
  approve: { name: 'approve', by: 'erin@example.com', planDigest: digest },
  reject: { name: 'reject', by: 'erin@example.com', reason: 'not tonight' },
  abort: { name: 'abort', by: 'erin@example.com', reason: 'disk alarm' },
  recover: { name: 'recover', by: 'erin@example.com', action: 'restore', reason: 'data is damaged' },
};

/** Every place a run can be in: its stage, and the gate that is open there if one is. */
const places = {
  'before the upgrade, no gate': ['before-upgrade', undefined],
  'before the upgrade, gate production': ['before-upgrade', production],
  'the upgrade': ['upgrade', undefined],
  'smoke and validation': ['validation', undefined],
  'gate qa': ['validation', qa],
  'gate recovery': ['gate-recovery', recovery],
  'gate recovery, already decided': ['gate-recovery', undefined],
  'recovery running': ['recovery', undefined],
  'closeout running': ['closeout', undefined],
  'after the end': ['ended', undefined],
} as const satisfies Record<string, readonly [Stage, OpenGate | undefined]>;

describe('the table of messages', () => {
  const table: Readonly<Record<keyof typeof places, Readonly<Record<MessageName, Ruling['kind']>>>> = {
    'before the upgrade, no gate': { approve: 'refused', reject: 'refused', abort: 'abort', recover: 'refused' },
    'before the upgrade, gate production': {
      approve: 'approved',
      reject: 'rejected',
      abort: 'abort',
      recover: 'refused',
    },
    'the upgrade': { approve: 'refused', reject: 'refused', abort: 'abort', recover: 'refused' },
    'smoke and validation': { approve: 'refused', reject: 'refused', abort: 'abort', recover: 'refused' },
    'gate qa': { approve: 'approved', reject: 'rejected', abort: 'abort', recover: 'refused' },
    'gate recovery': { approve: 'refused', reject: 'refused', abort: 'noted', recover: 'recover' },
    'gate recovery, already decided': { approve: 'refused', reject: 'refused', abort: 'noted', recover: 'refused' },
    'recovery running': { approve: 'refused', reject: 'refused', abort: 'noted', recover: 'refused' },
    'closeout running': { approve: 'refused', reject: 'refused', abort: 'noted', recover: 'refused' },
    'after the end': { approve: 'refused', reject: 'refused', abort: 'noted', recover: 'refused' },
  };
  const cells = Object.entries(table).flatMap(([place, rulings]) =>
    Object.entries(rulings).map(([name, ruling]) => [place, name, ruling] as const),
  );

  test.each(cells)('%s: %s is %s', (place, name, kind) => {
    const [stage, open] = places[place as keyof typeof places];
    const ruling = rule(stage, open, messages[name as MessageName]);
    expect(ruling.kind).toBe(kind);
    expect(ruling.by).toBe('erin@example.com');
    // What is not acted on says why.
    expect('why' in ruling).toBe(kind === 'refused' || kind === 'noted');
  });
});

describe('an approval of the gate production', () => {
  const approve = (changes: Partial<Extract<Message, { name: 'approve' }>>, open: OpenGate = production): Ruling =>
    rule('before-upgrade', open, { name: 'approve', by: 'erin@example.com', planDigest: digest, ...changes });

  test('carries who gave it and the comment', () => {
    expect(approve({ comment: 'fine' })).toEqual({
      kind: 'approved',
      gate: 'production',
      by: 'erin@example.com',
      comment: 'fine',
    });
  });

  test.each([
    ['the whole digest', digest],
    ['its first 12 digits', digest.slice(0, 12)],
    ['its first 63 digits', digest.slice(0, 63)],
  ])('is counted with %s', (_name, planDigest) => expect(approve({ planDigest }).kind).toBe('approved'));

  test.each([
    ['no digest', undefined, '"planDigest" is missing'],
    ['11 digits', digest.slice(0, 11), 'at least 12 digits'],
    ['an empty digest', '', 'at least 12 digits'],
    ['another plan’s digest', otherDigest, `is ${digest.slice(0, 12)}, not ffffffffffff`],
    ['digits from the middle', digest.slice(1, 20), 'the plan to be approved is'],
    ['more digits than there are', `${digest}0`, 'the plan to be approved is'],
    ['upper-case digits', digest.toUpperCase(), 'the plan to be approved is'],
  ])('is refused with %s', (_name, planDigest, why) => {
    expect(approve({ planDigest })).toMatchObject({ kind: 'refused', why: expect.stringContaining(why) });
  });

  test.each(['dana@example.com', 'DANA@Example.com', ' dana@example.com '])(
    'is refused from the requester, spelled %j',
    (by) => {
      expect(approve({ by })).toMatchObject({ kind: 'refused', why: expect.stringContaining('requested this run') });
    },
  );

  test.each(['erin@example.com', 'Erin@Example.COM'])('is refused from a person who has given one: %s', (by) => {
    const open: OpenGate = { ...production, approvedBy: ['erin@example.com'] };
    expect(approve({ by }, open)).toMatchObject({
      kind: 'refused',
      why: expect.stringContaining('has approved already; 2 different people'),
    });
  });

  test('is refused from somebody who is not among the approvers', () => {
    const open: OpenGate = { ...production, approvers: ['frank@example.com'] };
    expect(approve({}, open)).toMatchObject({
      kind: 'refused',
      why: expect.stringContaining('not among the approvers'),
    });
    expect(approve({ by: 'Frank@example.com' }, open).kind).toBe('approved');
  });

  test('is refused from the requester even if the approvers name them', () => {
    const open: OpenGate = { ...production, approvers: ['dana@example.com'] };
    expect(approve({ by: 'dana@example.com' }, open).kind).toBe('refused');
  });

  test.each(['qa', 'recovery'] as const)('is refused when it names the gate %s', (gate) => {
    expect(approve({ gate })).toMatchObject({ kind: 'refused', why: `the open gate is production, not ${gate}` });
  });

  test('is counted when it names the gate production', () => {
    expect(approve({ gate: 'production' }).kind).toBe('approved');
  });
});

describe('an approval of the gate qa', () => {
  const approve = (changes: Partial<Extract<Message, { name: 'approve' }>>): Ruling =>
    rule('validation', qa, { name: 'approve', by: 'quinn@example.com', ...changes });

  test('needs no digest', () => expect(approve({}).kind).toBe('approved'));
  test('may come from anybody, the requester included', () =>
    expect(approve({ by: 'dana@example.com' }).kind).toBe('approved'));
  test('with another plan’s digest is refused', () =>
    expect(approve({ planDigest: otherDigest }).kind).toBe('refused'));
  test('that names another gate is refused', () => expect(approve({ gate: 'production' }).kind).toBe('refused'));
});

describe('a rejection', () => {
  const reject = (open: OpenGate, changes: Partial<Extract<Message, { name: 'reject' }>> = {}): Ruling =>
    rule('before-upgrade', open, { name: 'reject', by: 'dana@example.com', reason: 'wrong release', ...changes });

  test('may come from anybody, the requester included', () => {
    expect(reject(production)).toEqual({
      kind: 'rejected',
      gate: 'production',
      by: 'dana@example.com',
      reason: 'wrong release',
    });
    expect(reject(qa)).toMatchObject({ kind: 'rejected', gate: 'qa' });
  });

  test('that names another gate is refused', () => {
    expect(reject(production, { gate: 'qa' })).toMatchObject({ why: 'the open gate is production, not qa' });
    expect(reject(qa, { gate: 'production' })).toMatchObject({ why: 'the open gate is qa, not production' });
  });

  test('at the gate recovery is refused with the message that is meant', () => {
    expect(reject(recovery)).toMatchObject({ kind: 'refused', why: expect.stringContaining('"recover"') });
  });
});

describe('a recovery', () => {
  test.each(['retry', 'restore', 'accept'] as const)('by %s acts where the gate offers it', (action) => {
    expect(rule('gate-recovery', recovery, { name: 'recover', by: 'erin', action, reason: 'why' })).toEqual({
      kind: 'recover',
      by: 'erin',
      action,
      reason: 'why',
    });
  });

  test.each(['continue', 'rollback'] as const)(
    'by %s is refused where the gate does not, naming what is possible',
    (action) => {
      expect(rule('gate-recovery', recovery, { name: 'recover', by: 'erin', action, reason: 'why' })).toMatchObject({
        kind: 'refused',
        why: `"${action}" is not possible now; possible: retry, restore, accept`,
      });
    },
  );
});
