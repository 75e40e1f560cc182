/** Table-level lock modes by what they keep out (PostgreSQL documentation, "Explicit Locking", table "Conflicting Lock Modes"). */
const MODES = [
  'AccessShareLock',
  'RowShareLock',
  'RowExclusiveLock',
  'ShareUpdateExclusiveLock',
  'ShareLock',
  'ShareRowExclusiveLock',
  'ExclusiveLock',
  'AccessExclusiveLock',
] as const;

/** By index in `MODES`: which modes of others it conflicts with. */
const CONFLICTS: readonly (readonly number[])[] = [
  [7],
  [6, 7],
  [4, 5, 6, 7],
  [3, 4, 5, 6, 7],
  [2, 3, 5, 6, 7],
  [2, 3, 4, 5, 6, 7],
  [1, 2, 3, 4, 5, 6, 7],
  [0, 1, 2, 3, 4, 5, 6, 7],
];

/** Does holding `mode` keep out nobody whom one of `others` would not keep out? A mode that is not known is within its equal only. */
export function isWithin(mode: string, others: Iterable<string>): boolean {
  const kept = CONFLICTS[MODES.findIndex((known) => known === mode)];
  return [...others].some((other) => {
    if (other === mode) return true;
    const keptByOther = CONFLICTS[MODES.findIndex((known) => known === other)];
    return kept !== undefined && keptByOther !== undefined && kept.every((index) => keptByOther.includes(index));
  });
}

/** Does one session's lock keep another from having the other? Where a mode is not known: no. */
export function conflicts(mode: string, other: string): boolean {
  const index = MODES.findIndex((known) => known === other);
  return index >= 0 && (CONFLICTS[MODES.findIndex((known) => known === mode)]?.includes(index) ?? false);
}
