import { describe, expect, it } from 'vitest';
import { pairTables } from '../../src/postgres/contents/table-pairs.ts';
import type { ComparableTable } from '../../src/postgres/contents/comparable-tables.ts';
import { wayBackCost } from '../../src/postgres/contents/way-back-cost.ts';

const sources = {
  basis: 'statistics',
  backup: { capturedAt: '2026-03-01T10:00:00.000Z' },
  tables: [],
  unknown: [],
  predictedMilliseconds: 1000,
  now: Date.parse('2026-03-01T10:05:00.000Z'),
} as const;

describe('the cost of a way back', () => {
  it('lists the most written tables first, counts the others, and sums up all of them', () => {
    const tables = Array.from({ length: 60 }, (_, n) => ({ table: `t${n}`, inserted: n, updated: 1, deleted: 0 }));
    const cost = wayBackCost({ ...sources, tables });
    expect(cost.tables).toHaveLength(50);
    expect(cost.tables[0]?.table).toBe('t59');
    expect(cost.furtherTables).toBe(10);
    expect(cost.total).toEqual({ inserted: (59 * 60) / 2, updated: 60, deleted: 0 });
    expect(cost.backupAge).toBe(5 * 60_000);
  });

  it('keeps a long list of unknown tables short, and says that it did', () => {
    const unknown = Array.from({ length: 1000 }, (_, n) => `t${n}`);
    expect(wayBackCost({ ...sources, unknown }).unknown.slice(-2)).toEqual(['t49', 'and 950 more']);
  });

  it.each([
    { fencedSince: undefined, by: 'anybody' },
    { fencedSince: '2026-03-01T09:59:59.999Z', by: 'migration' },
    { fencedSince: '2026-03-01T10:00:00.000Z', by: 'migration' },
    { fencedSince: '2026-03-01T10:00:00.001Z', by: 'anybody' },
    { fencedSince: 'never', by: 'anybody' },
  ])('with a fence since $fencedSince is the doing of $by', ({ fencedSince, by }) => {
    expect(wayBackCost({ ...sources, fencedSince }).by).toBe(by);
  });
});

describe('tables of two databases', () => {
  const table = (name: string, change: Partial<ComparableTable> = {}): ComparableTable => ({
    schema: 'public',
    name,
    estimatedRows: 0,
    columns: ['a', 'b'].map((column) => ({
      name: column,
      type: 'integer',
      builtIn: true,
      generated: false,
      storedAs: 'int4',
    })),
    keys: [],
    ...change,
  });

  it.each([
    { production: [['a']], copy: [['b'], ['a']], key: ['a'] },
    { production: [['b', 'a']], copy: [['a', 'b']], key: ['a', 'b'] },
    { production: [['a']], copy: [['a', 'b']], key: null },
    { production: [], copy: [['a']], key: null },
    { production: [['a'], ['b']], copy: [['b'], ['a']], key: ['b'] },
  ])('match rows by $key where production has the keys $production and the copy $copy', ({ production, copy, key }) => {
    expect(pairTables([table('t', { keys: production })], [table('t', { keys: copy })])).toMatchObject([
      { presence: 'both', table: 'public.t', key },
    ]);
  });

  it('are paired by schema and name, what is left out on neither side', () => {
    const pairs = pairTables(
      [table('both'), table('new'), table('version')],
      [table('gone'), table('both'), table('version'), table('both', { schema: 'other' })],
      ({ name }) => name === 'version',
    );
    expect(pairs.map(({ table: name, presence }) => [name, presence])).toEqual([
      ['other.both', 'copy'],
      ['public.both', 'both'],
      ['public.gone', 'copy'],
      ['public.new', 'production'],
    ]);
  });
});
