import { describe, expect, test } from 'vitest';
import { messageCommands, quoted } from '../../src/contract/commands.ts';
import { MESSAGE_NAMES, parseMessage, samePerson } from '../../src/contract/messages.ts';
import { payloadConverter } from '../../src/contract/payload-converter.ts';

const valid = {
  approve: { by: 'erin@example.com', planDigest: '0123456789ab', gate: 'production', comment: 'fine' },
  reject: { by: 'erin@example.com', reason: 'not tonight', gate: 'qa' },
  abort: { by: 'erin@example.com', reason: 'disk alarm' },
  recover: { by: 'erin@example.com', action: 'restore', reason: 'data is damaged' },
} as const;

describe.each(MESSAGE_NAMES)('%s', (name) => {
  const required = {
    approve: ['by'],
    reject: ['by', 'reason'],
    abort: ['by', 'reason'],
    recover: ['by', 'action', 'reason'],
  }[name];

  test('is read with all of its fields', () => {
    expect(parseMessage(name, [valid[name]])).toEqual({ kind: 'valid', message: { name, ...valid[name] } });
  });

  test('is read with its required fields alone', () => {
    const fields = Object.fromEntries(Object.entries(valid[name]).filter(([field]) => required.includes(field)));
    expect(parseMessage(name, [fields])).toEqual({ kind: 'valid', message: { name, ...fields } });
  });

  test('takes blanks around the name of its sender away', () => {
    expect(parseMessage(name, [{ ...valid[name], by: '  erin@example.com ' }])).toMatchObject({
      message: { by: 'erin@example.com' },
    });
  });

  test.each([
    ['no argument', [], 'got 0 arguments'],
    ['two arguments', [valid[name], valid[name]], 'got 2 arguments'],
    ['a second argument that is nothing', [valid[name], undefined], 'got 2 arguments'],
    ['null', [null], 'one JSON object'],
    ['nothing', [undefined], 'one JSON object'],
    ['a string', [JSON.stringify(valid[name])], 'one JSON object'],
    ['a number', [1], 'one JSON object'],
    ['a truth value', [true], 'one JSON object'],
    ['an array', [[valid[name]]], 'one JSON object'],
    ['an empty object', [{}], '"by" is missing'],
    ['what could not be decoded', [{ undecodable: 'Unknown encoding' }], 'could not be decoded'],
    ['an unknown field', [{ ...valid[name], colour: 'red' }], '"colour" is not a field'],
    [
      'a field of the prototype',
      [JSON.parse('{"by":"erin","__proto__":"x","reason":"x","action":"retry"}')],
      'is not a field',
    ],
    ['a name that is a number', [{ ...valid[name], by: 7 }], '"by" must be a string'],
    ['a name that is an object', [{ ...valid[name], by: { name: 'erin' } }], '"by" must be a string'],
    ['a name of blanks', [{ ...valid[name], by: '   ' }], '"by" is empty'],
    ['a name of 1001 characters', [{ ...valid[name], by: 'x'.repeat(1001) }], '"by" is longer than 1000'],
  ])('is malformed with %s', (_case, args, why) => {
    expect(parseMessage(name, args)).toEqual({ kind: 'malformed', why: expect.stringContaining(why) });
    expect(parseMessage(name, args)).toMatchObject({ why: expect.stringMatching(new RegExp(`^${name}: `)) });
  });

  test.each(required)('is malformed without %s, or with nothing in it', (field) => {
    for (const content of [undefined, null, '']) {
      expect(parseMessage(name, [{ ...valid[name], [field]: content }])).toEqual({
        kind: 'malformed',
        why: `${name}: "${field}" is missing`,
      });
    }
  });

  test('quotes no more than the beginning of a field it does not know', () => {
    const parsed = parseMessage(name, [{ ...valid[name], ['x'.repeat(5000)]: '1' }]);
    expect(parsed.kind === 'malformed' && parsed.why.length).toBeLessThan(120);
  });
});

describe('fields with few values', () => {
  test.each(['', 'staging', 'PRODUCTION', 'qa '])('refuse the gate %j', (gate) => {
    expect(parseMessage('approve', [{ by: 'erin', gate }])).toMatchObject({ kind: 'malformed' });
  });

  test.each(['undo', 'RESTORE', 'restore '])('refuse the action %j, naming those there are', (action) => {
    expect(parseMessage('recover', [{ by: 'erin', action, reason: 'why' }])).toEqual({
      kind: 'malformed',
      why: 'recover: "action" must be one of retry, continue, rollback, restore, accept',
    });
  });

  test('refuse a field of another message', () => {
    expect(parseMessage('abort', [{ ...valid.abort, gate: 'qa' }])).toMatchObject({ kind: 'malformed' });
    expect(parseMessage('recover', [{ ...valid.recover, planDigest: 'x' }])).toMatchObject({ kind: 'malformed' });
  });
});

describe('payloads of any kind', () => {
  const bytes = (text: string): Uint8Array => Buffer.from(text);
  const hostile = [
    ['an unknown encoding', { metadata: { encoding: bytes('json/zstd') }, data: bytes('{}') }],
    ['no encoding', { metadata: {}, data: bytes('{}') }],
    ['no metadata', { data: bytes('{}') }],
    ['broken JSON', { metadata: { encoding: bytes('json/plain') }, data: bytes('{"by":') }],
    ['JSON that is not UTF-8', { metadata: { encoding: bytes('json/plain') }, data: Uint8Array.from([0xff, 0xfe]) }],
    ['no data', { metadata: { encoding: bytes('json/plain') } }],
    ['protobuf', { metadata: { encoding: bytes('json/protobuf'), messageType: bytes('x.Y') }, data: bytes('{}') }],
    ['bytes', { metadata: { encoding: bytes('binary/plain') }, data: bytes('approve') }],
    ['null', { metadata: { encoding: bytes('binary/null') } }],
  ] as const;

  test.each(hostile)('are decoded without throwing and refused: %s', (_name, payload) => {
    const decoded = payloadConverter.fromPayload(payload);
    for (const name of MESSAGE_NAMES) expect(parseMessage(name, [decoded]).kind).toBe('malformed');
  });

  test('of the usual kind come through as they were sent', () => {
    const payload = payloadConverter.toPayload(valid.recover);
    expect(payloadConverter.fromPayload(payload)).toEqual(valid.recover);
  });
});

describe('persons', () => {
  test.each([
    ['dana@example.com', 'Dana@Example.com', true],
    ['dana@example.com', ' dana@example.com\t', true],
    ['dana@example.com', 'dana@example.org', false],
    ['dana', 'dan', false],
  ])('%j and %j: the same person %s', (one, other, same) => expect(samePerson(one, other)).toBe(same));
});

describe('paste-ready commands', () => {
  test('carry the same message for each tool', () => {
    const commands = messageCommands('whisper-transcriber', 'approve', {
      by: 'you@example.com',
      planDigest: '0123456789ab',
    });
    expect(commands).toEqual({
      runbook: 'runbook approve whisper-transcriber --by you@example.com --plan 0123456789ab',
      temporal: `temporal workflow signal --workflow-id migrate-whisper-transcriber --name approve --input '{"by":"you@example.com","planDigest":"0123456789ab"}'`,
      tctl: `tctl workflow signal --workflow_id migrate-whisper-transcriber --name approve --input '{"by":"you@example.com","planDigest":"0123456789ab"}'`,
    });
  });

  test.each([
    ['plain-word', 'plain-word'],
    ['two words', "'two words'"],
    ["it's", String.raw`'it'\''s'`],
    ['$(rm)', "'$(rm)'"],
    ['', "''"],
  ])('quote %j for a shell', (text, word) => expect(quoted(text)).toBe(word));
});
