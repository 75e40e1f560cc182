import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';

/** Lower-case hexadecimal SHA-256 of text (as UTF-8) or bytes. */
export const sha256 = (content: string | Uint8Array): string => createHash('sha256').update(content).digest('hex');

/**
 * Canonical JSON (RFC 8785): one text for one value, whatever the order of its keys, so that its digest can be approved.
 * @throws TypeError for what JSON cannot hold: undefined, functions, NaN, infinities
 */
export function canonicalJson(value: unknown): string {
  const text = canonicalize(value);
  if (text === undefined) throw new TypeError('only JSON values have a canonical form');
  return text;
}

/** SHA-256 of the canonical JSON of a value. */
export const canonicalDigest = (value: unknown): string => sha256(canonicalJson(value));
