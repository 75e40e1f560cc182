/** Durations and sizes as people write them in a profile. */

const MILLISECONDS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const BYTES: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1024,
  KB: 1024,
  MB: 1024 ** 2,
  GB: 1024 ** 3,
  TB: 1024 ** 4,
};

/**
 * Reads `500ms`, `30s`, `10m`, `2h`, `1d` or a sum of them such as `1h30m`.
 *
 * @returns milliseconds, or undefined for anything else. A bare number is refused: nobody can tell its unit.
 */
export function parseDuration(text: string): number | undefined {
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    total += Number(amount) * (MILLISECONDS[unit ?? ''] ?? Number.NaN);
  }
  return Number.isFinite(total) ? Math.round(total) : undefined;
}

/** Reads `16MB` and the like; as in PostgreSQL's settings a unit is a power of 1024. @returns bytes, or undefined */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(B|kB|KB|MB|GB|TB)$/.exec(text);
  if (!match) return undefined;
  return Math.round(Number(match[1]) * (BYTES[match[2] ?? ''] ?? Number.NaN));
}
