import { describe, expect, test } from 'vitest';
import { type MigrationRequest, parseRequest, workflowIdOf } from '../../src/contract/request.ts';

const now = Date.parse('2026-11-22T21:00:00Z');

const minimal: MigrationRequest = {
  service: 'whisper-transcriber',
  releaseTag: 'v2.1.0',
  changeTicket: 'CHG-1042',
  requestedBy: 'dana@example.com',
};
const window = { windowStart: '2026-11-22T22:00:00Z', windowEnd: '2026-11-22T23:00:00Z' };

const findingsOf = (args: readonly unknown[]): readonly string[] => {
  const parsed = parseRequest(args, now);
  return parsed.kind === 'invalid' ? parsed.findings : [];
};

describe('a request', () => {
  test('of the four required fields is accepted as it is', () => {
    expect(parseRequest([minimal], now)).toEqual({ kind: 'valid', request: minimal });
  });

  test('with everything is accepted as it is', () => {
    const full: MigrationRequest = {
      ...minimal,
      ...window,
      targetRevision: 'head',
      reconciledRun: '0190b5a4-0000-7000-8000-000000000001',
    };
    expect(parseRequest([full], now)).toEqual({ kind: 'valid', request: full });
  });

  test.each([
    ['Z', '2026-11-22T22:00:00Z', '2026-11-22T23:00:00Z'],
    ['an offset', '2026-11-22T23:00:00+01:00', '2026-11-23T00:00:00+01:00'],
    ['fractions of a second', '2026-11-22T22:00:00.5Z', '2026-11-22T23:00:00.25Z'],
    ['a window that has begun', '2026-11-22T20:00:00Z', '2026-11-22T22:00:00Z'],
  ])('is accepted with times with %s', (_name, windowStart, windowEnd) => {
    expect(parseRequest([{ ...minimal, windowStart, windowEnd }], now).kind).toBe('valid');
  });

  test.each(['v2.1.0', 'release/2026-11', '2.1.0+build.7', 'v1@hotfix', 'x'.repeat(128)])(
    'is accepted with the tag %s',
    (releaseTag) => expect(findingsOf([{ ...minimal, releaseTag }])).toEqual([]),
  );

  test.each(['head', 'heads', 'app@head', 'a1b2,c3d4', 'app@a1b2, audit@head', 'y'.repeat(128)])(
    'is accepted with the target revision %s',
    (targetRevision) => expect(findingsOf([{ ...minimal, targetRevision }])).toEqual([]),
  );

  test('treats null in an optional field as absent', () => {
    expect(parseRequest([{ ...minimal, targetRevision: null }], now)).toEqual({ kind: 'valid', request: minimal });
  });

  test('is derived one workflow id by its service', () => {
    expect(workflowIdOf('whisper-transcriber')).toBe('migrate-whisper-transcriber');
  });
});

describe('a request is refused', () => {
  test.each([
    ['no argument', [], 'got 0 arguments'],
    ['two arguments', [minimal, {}], 'got 2 arguments'],
    ['null', [null], 'got null'],
    ['nothing', [undefined], 'got nothing'],
    ['a string', [JSON.stringify(minimal)], 'got a string'],
    ['a number', [7], 'got a number'],
    ['an array', [[minimal]], 'got an array'],
  ])('when the argument is %s', (_name, args, finding) => {
    expect(findingsOf(args)).toEqual([expect.stringContaining(finding)]);
  });

  test('when its payload could not be decoded', () => {
    expect(findingsOf([{ undecodable: 'Unknown encoding' }])).toContain('"undecodable" is not a field of a request');
  });

  test.each(['service', 'releaseTag', 'changeTicket', 'requestedBy'] as const)('without %s', (field) => {
    for (const absent of [undefined, null]) {
      expect(findingsOf([{ ...minimal, [field]: absent }])).toEqual([`"${field}" is missing`]);
    }
  });

  test.each([
    ['service', 'Whisper'],
    ['service', '../etc'],
    ['service', '-x'],
    ['service', 'a b'],
    ['service', 'x'.repeat(64)],
    ['service', ''],
    ['releaseTag', ''],
    ['releaseTag', '--upload-pack=x'],
    ['releaseTag', '/v1'],
    ['releaseTag', 'v 1'],
    ['releaseTag', 'v1;ls'],
    ['releaseTag', 'x'.repeat(129)],
    ['changeTicket', ''],
    ['changeTicket', ' CHG'],
    ['changeTicket', 'CHG\n1'],
    ['changeTicket', 'CHG\u0000'],
    ['changeTicket', 'x'.repeat(129)],
    ['requestedBy', ''],
    ['requestedBy', '\tdana'],
    ['requestedBy', 'dana\r\nerin'],
    ['requestedBy', 'ä'.repeat(129)],
    ['targetRevision', ''],
    ['targetRevision', '-1'],
    ['targetRevision', 'head; x'],
    ['targetRevision', 'a1,-1'],
    ['targetRevision', 'a1,'],
    ['targetRevision', Array.from({ length: 5 }, () => 'x'.repeat(128)).join()],
    ['targetRevision', 'a b'],
    ['targetRevision', 'x'.repeat(129)],
    ['reconciledRun', 'the last one'],
    ['reconciledRun', '0190b5a4'],
  ])('when %s is %j', (field, value) => {
    expect(findingsOf([{ ...minimal, [field]: value }])).toEqual([expect.stringMatching(`^"${field}" must be `)]);
  });

  test.each(['service', 'releaseTag', 'changeTicket', 'requestedBy', 'targetRevision', 'reconciledRun'])(
    'when %s is not a string',
    (field) => {
      for (const value of [7, true, {}, ['x']]) {
        expect(findingsOf([{ ...minimal, [field]: value }])).toEqual([
          expect.stringMatching(`^"${field}" must be a string, got `),
        ]);
      }
    },
  );

  test('with a field nobody knows, quoted no further than 60 characters', () => {
    expect(findingsOf([{ ...minimal, colour: 'red' }])).toEqual(['"colour" is not a field of a request']);
    expect(findingsOf([{ ...minimal, ['x'.repeat(5000)]: 1 }])[0]?.length).toBeLessThan(100);
  });

  test.each([
    ['only a start', { windowStart: window.windowStart }, 'needs both'],
    ['only an end', { windowEnd: window.windowEnd }, 'needs both'],
    [
      'an end before the start',
      { windowStart: window.windowEnd, windowEnd: window.windowStart },
      'before or as it starts',
    ],
    ['an end as it starts', { windowStart: window.windowEnd, windowEnd: window.windowEnd }, 'before or as it starts'],
    ['the past', { windowStart: '2026-11-22T19:00:00Z', windowEnd: '2026-11-22T20:00:00Z' }, 'lies in the past'],
    [
      'an end that is now',
      { windowStart: '2026-11-22T20:00:00Z', windowEnd: '2026-11-22T21:00:00Z' },
      'lies in the past',
    ],
    [
      'an offset that puts it into the past',
      { windowStart: '2026-11-22T21:00:00+02:00', windowEnd: '2026-11-22T22:00:00+02:00' },
      'lies in the past',
    ],
    ['no time zone', { windowStart: '2026-11-22T22:00:00', windowEnd: '2026-11-22T23:00:00' }, 'must be a time like'],
    ['words', { windowStart: 'soon', windowEnd: 'later' }, 'must be times like'],
    [
      'a day that does not exist',
      { windowStart: '2026-13-45T22:00:00Z', windowEnd: window.windowEnd },
      'must be times like',
    ],
    ['numbers', { windowStart: now, windowEnd: now + 1 }, 'must be a string'],
  ])('with a window of %s', (_name, times, finding) => {
    expect(findingsOf([{ ...minimal, ...times }]).join('\n')).toContain(finding);
  });

  test('with every finding at once, not the first', () => {
    const findings = findingsOf([{ releaseTag: '', changeTicket: 7, windowStart: 'soon', colour: 'red' }]);
    for (const field of [
      'service',
      'releaseTag',
      'changeTicket',
      'requestedBy',
      'windowStart',
      'colour',
      'windowEnd',
    ]) {
      expect(findings.join('\n')).toContain(`"${field}"`);
    }
  });
});
