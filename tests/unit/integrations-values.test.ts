import { describe, expect, test } from 'vitest';
import { valueAtPointer, withValueAt } from '../../src/integrations/json-pointer.ts';
import { fillAddress, fillJson, fillTemplate } from '../../src/integrations/template.ts';
import { parseDuration, parseSize } from '../../src/profile/quantities.ts';

describe('a template', () => {
  test('is filled in once: values are not looked at again', () => {
    expect(fillTemplate('{{a}} and {{ b }}', { a: '{{b}}', b: '$&' })).toBe('{{b}} and $&');
  });

  test('with placeholders that have no value is refused, naming each once', () => {
    expect(() => fillTemplate('{{a}} {{b}} {{a}} {{c}}', { c: '' })).toThrow(/\{\{a\}\}.*\{\{b\}\}/);
    expect(() => fillTemplate('{{constructor}}', {})).toThrow('{{constructor}} has no value');
  });

  test('of an address cannot be led elsewhere by a value', () => {
    expect(fillAddress('https://example.com/{{a}}?q={{a}}', { a: '../x?y=1&z#@evil' })).toBe(
      'https://example.com/..%2Fx%3Fy%3D1%26z%23%40evil?q=..%2Fx%3Fy%3D1%26z%23%40evil',
    );
  });

  test('of JSON is filled in in every string and nowhere else', () => {
    expect(fillJson({ '{{a}}': ['{{a}}', 1, null, { deep: 'x{{a}}' }] }, { a: '"' })).toEqual({
      '{{a}}': ['"', 1, null, { deep: 'x"' }],
    });
  });
});

describe('a JSON Pointer', () => {
  const document = { 'a/b': { '~': [10, { c: null }] }, '': 1 };

  test.each([
    ['', document],
    ['/a~1b/~0/0', 10],
    ['/a~1b/~0/1/c', null],
    ['/', 1],
    ['/a~1b/~0/2', undefined],
    ['/a~1b/constructor', undefined],
    ['/nothing/at/all', undefined],
  ])('%j leads to its value', (pointer, expected) => {
    expect(valueAtPointer(document, pointer)).toEqual(expected);
  });

  test('puts a value in without touching the original', () => {
    expect(withValueAt({ a: [{ b: 1 }, 2] }, '/a/0/c', 'x')).toEqual({ a: [{ b: 1, c: 'x' }, 2] });
    expect(withValueAt({}, '/deep/er~1', 'x')).toEqual({ deep: { 'er/': 'x' } });
    expect(withValueAt('anything', '', 'x')).toBe('x');
    const original = { a: { b: 1 } };
    withValueAt(original, '/a/b', 2);
    expect(original).toEqual({ a: { b: 1 } });
  });
});

describe('quantities', () => {
  test.each([
    ['500ms', 500],
    ['30s', 30_000],
    ['1h30m', 5_400_000],
    ['1.5h', 5_400_000],
    ['2d', 172_800_000],
    ['30', undefined],
    ['30 s', undefined],
    ['-5s', undefined],
    ['s', undefined],
    ['', undefined],
  ])('the duration %j is %s milliseconds', (text, expected) => {
    expect(parseDuration(text)).toBe(expected);
  });

  test.each([
    ['16MB', 16 * 1024 ** 2],
    ['512kB', 512 * 1024],
    ['1GB', 1024 ** 3],
    ['16', undefined],
    ['16 MB', undefined],
    ['16mb', undefined],
  ])('the size %j is %s bytes', (text, expected) => {
    expect(parseSize(text)).toBe(expected);
  });
});
