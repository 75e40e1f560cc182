/** JSON Pointer, RFC 6901. */
import type { JsonValue } from '../contract/profile.ts';

const tokensOf = (pointer: string): string[] =>
  pointer === ''
    ? []
    : pointer
        .slice(1)
        .split('/')
        .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'));

/** The value at a pointer, undefined where there is none. */
export function valueAtPointer(document: unknown, pointer: string): JsonValue | undefined {
  let value: unknown = document;
  for (const token of tokensOf(pointer)) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, token)) return undefined;
    value = (value as Record<string, unknown>)[token];
  }
  return value as JsonValue | undefined;
}

/** A copy of the document with a value put in; objects on the way are made where they are missing. */
export function withValueAt(document: JsonValue, pointer: string, value: JsonValue): JsonValue {
  const [token, ...rest] = tokensOf(pointer);
  if (token === undefined) return value;
  const below = `${rest.map((key) => `/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')}`;
  if (Array.isArray(document)) {
    return (document as readonly JsonValue[]).map((item, index) =>
      String(index) === token ? withValueAt(item, below, value) : item,
    );
  }
  const object = typeof document === 'object' && document !== null ? (document as Record<string, JsonValue>) : {};
  return { ...object, [token]: withValueAt(object[token] ?? {}, below, value) };
}
