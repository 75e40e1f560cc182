import { describe, expect, it } from 'vitest';
import { canonicalDigest, canonicalJson, sha256 } from '../../src/archive/canonical.ts';

describe('canonical JSON', () => {
  it('is one text whatever the order of keys, at any depth', () => {
    const one = { b: [{ y: 1, x: 2 }], a: 'ü' };
    const other = { a: 'ü', b: [{ x: 2, y: 1 }] };
    expect(canonicalJson(one)).toBe('{"a":"ü","b":[{"x":2,"y":1}]}');
    expect(canonicalDigest(one)).toBe(canonicalDigest(other));
  });

  it('keeps the order of lists, which means something', () => {
    expect(canonicalDigest(['a', 'b'])).not.toBe(canonicalDigest(['b', 'a']));
  });

  it('writes numbers and strings as RFC 8785 has them', () => {
    expect(
      canonicalJson({
        numbers: [Number('333333333.33333329'), 1e30, 4.5, 2e-3, 1e-27, -0],
        text: '€$\u000f\nA\'B"\\\\"/',
      }),
    ).toBe('{"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27,0],"text":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}');
  });

  it('sorts keys by UTF-16 code units', () => {
    expect(canonicalJson({ '€': 1, '\r': 2, '\ufb33': 3, '1': 4, '😀': 5, ö: 6 })).toBe(
      '{"\\r":2,"1":4,"ö":6,"€":1,"😀":5,"\ufb33":3}',
    );
  });

  it('refuses what JSON cannot hold', () => {
    expect(() => canonicalJson(undefined)).toThrow(TypeError);
    expect(() => canonicalJson({ a: Number.NaN })).toThrow('NaN is not allowed');
    expect(() => canonicalJson(Number.POSITIVE_INFINITY)).toThrow('Infinity is not allowed');
  });

  it('is hashed with SHA-256, in lower-case hexadecimal', () => {
    expect(sha256('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    expect(canonicalDigest('abc')).toBe(sha256('"abc"'));
  });
});
