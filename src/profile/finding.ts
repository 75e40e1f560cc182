/** What is wrong in a profile, and where. */
export interface Finding {
  /** Keys and list positions from the top of the document. */
  readonly path: readonly PropertyKey[];
  /** What is wrong or what to do; never quotes a value, which may be a misplaced secret. */
  readonly message: string;
}

/** `switches[0].celery.queues`; the document itself is "". */
export function formatPath(path: readonly PropertyKey[]): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else if (/^[\w-]+$/.test(String(key))) text += text === '' ? String(key) : `.${String(key)}`;
    else text += `[${JSON.stringify(String(key))}]`;
  }
  return text;
}

/** Calls `visit` for every string, number and boolean below `value`. */
export function visitScalars(
  value: unknown,
  visit: (scalar: string | number | boolean, path: readonly PropertyKey[]) => void,
  path: readonly PropertyKey[] = [],
): void {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') visit(value, path);
  else if (Array.isArray(value))
    for (const [index, item] of value.entries()) visitScalars(item, visit, [...path, index]);
  else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) visitScalars(item, visit, [...path, key]);
  }
}
