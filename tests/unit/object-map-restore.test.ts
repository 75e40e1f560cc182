import { describe, expect, it } from 'vitest';
import type { CosmeticFact, DatabaseObject, ObjectMap } from '../../src/postgres/catalog/object-map.ts';
import type { ObjectKind } from '../../src/postgres/catalog/object-map-queries.ts';
import { compareForRestore } from '../../src/postgres/catalog/object-map-restore.ts';

type Entry = readonly [ObjectKind, string, string];

const mapOf = (objects: readonly Entry[], cosmetic: readonly CosmeticFact[] = []): ObjectMap => ({
  format: 'migration-runbook/object-map/2',
  objects: objects.map(([kind, name, definition]): DatabaseObject => ({ kind, name, definition })),
  cosmetic,
});

const compare = (original: readonly Entry[], restored: readonly Entry[]) =>
  compareForRestore(mapOf(original), mapOf(restored));

describe('a restored database against its original', () => {
  it('is equal when nothing differs', () => {
    const objects: Entry[] = [['table', 'public.a', 'ordinary']];
    expect(compare(objects, objects)).toEqual({ verdict: 'equal', cosmetic: [], different: [] });
  });

  it('differs cosmetically in casts and in the version of an extension', () => {
    const original: Entry[] = [
      ['extension', 'pg_trgm', 'schema public version 1.5'],
      ['constraint', 'public.a.c', `CHECK (((x)::text = ANY ((ARRAY['a'::character varying])::text[])))`],
    ];
    const restored = (schema: string, literal: string): Entry[] => [
      ['extension', 'pg_trgm', `schema ${schema} version 1.6`],
      ['constraint', 'public.a.c', `CHECK (((x)::text = ANY (ARRAY[('${literal}'::character varying)::text])))`],
    ];
    const same = compare(original, restored('public', 'a'));
    expect(same.verdict).toBe('cosmetic');
    expect(same.cosmetic).toHaveLength(2);
    const other = compare(original, restored('other', 'b'));
    expect(other.verdict).toBe('different');
    expect(other.different).toEqual([
      expect.stringContaining('changed extension pg_trgm'),
      expect.stringContaining('changed constraint public.a.c'),
    ]);
  });

  it('differs cosmetically in rights on schema public that everybody has, and really in all others', () => {
    const everybody = 'PUBLIC=CREATE, USAGE; postgres=CREATE, USAGE';
    const grants = (rights: string, name = 'schema public'): Entry[] => [['grants', name, rights]];
    expect(compare(grants(`${everybody}; app=USAGE`), grants(everybody)).verdict).toBe('cosmetic');
    for (const [before, after, name] of [
      [`${everybody}; app=USAGE*`, everybody],
      ['PUBLIC=USAGE; postgres=CREATE, USAGE; app=USAGE', everybody],
      [`${everybody}; app=USAGE`, 'PUBLIC=USAGE; postgres=CREATE, USAGE'],
      [`${everybody}; app=USAGE`, everybody, 'schema other'],
    ] as const) {
      expect(compare(grants(before, name), grants(after, name)).verdict).toBe('different');
    }
  });

  it('differs in a text that only looks like a cast', () => {
    const comment = (text: string): Entry[] => [['comment', 'table public.a', text]];
    expect(compare(comment('a::b c'), comment('a::d c')).verdict).toBe('different');
  });

  it('differs cosmetically in names that PostgreSQL made up, and really in names that a person gave', () => {
    const named = (constraint: string, index: string): Entry[] => [
      ['constraint', `public.orders.${constraint}`, 'CHECK ((price > 0))'],
      ['index', `public.${index}`, `CREATE INDEX ${index} ON public.orders USING btree (price)`],
    ];
    const derived = compare(
      named('orders_price_check', 'orders_price_idx'),
      named('orders_price_check1', 'orders_price_idx2'),
    );
    expect(derived).toEqual({
      verdict: 'cosmetic',
      cosmetic: [
        'constraint public.orders.orders_price_check is now called public.orders.orders_price_check1',
        'index public.orders_price_idx is now called public.orders_price_idx2',
      ],
      different: [],
    });
    expect(compare(named('positive', 'by_price'), named('above_zero', 'on_price')).different).toHaveLength(4);
    const changed = named('orders_price_check1', 'orders_price_idx').map(
      ([kind, name, definition]): Entry => [kind, name, definition.replace('> 0', '> 1')],
    );
    expect(compare(named('orders_price_check', 'orders_price_idx'), changed).different).toEqual([
      'added constraint public.orders.orders_price_check1',
      'removed constraint public.orders.orders_price_check',
    ]);
  });

  it('pairs made-up names one to one and reads names with quotes and dots', () => {
    const of = (...names: readonly string[]): Entry[] =>
      names.map((name) => ['constraint', `"my schema"."odd.table"."${name}"`, 'CHECK ((a > 0))']);
    expect(compare(of('odd.table_a_check'), of('odd.table_a_check1')).verdict).toBe('cosmetic');
    expect(compare(of('odd.table_a_check'), of('odd.table_a_check1', 'odd.table_a_check2')).different).toEqual([
      'added constraint "my schema"."odd.table"."odd.table_a_check2"',
    ]);
  });

  it('differs cosmetically in the order of columns', () => {
    const order = (definition: string): CosmeticFact => ({ kind: 'column-order', name: 'public.a', definition });
    const table: Entry[] = [['table', 'public.a', 'ordinary']];
    expect(compareForRestore(mapOf(table, [order('x, y')]), mapOf(table, [order('y, x')]))).toEqual({
      verdict: 'cosmetic',
      cosmetic: ['column order of public.a: x, y -> y, x'],
      different: [],
    });
  });

  it('leaves settings to be compared when they are applied, and on request what another server cannot have', () => {
    const original: Entry[] = [
      ['setting', 'search_path', 'app'],
      ['ownership', 'table public.a', 'app_owner'],
    ];
    expect(compare(original, []).different).toEqual(['removed ownership table public.a']);
    expect(compareForRestore(mapOf(original), mapOf([]), { leaveOut: ['ownership'] }).verdict).toBe('equal');
  });

  it('shows of a long definition the place where it differs', () => {
    const view = (column: string): Entry[] => [
      ['view', 'public.v', `SELECT ${'a, '.repeat(200)}${column} FROM public.a WHERE ${'b AND '.repeat(100)}c`],
    ];
    const [line = ''] = compare(view('first'), view('second')).different;
    expect(line).toContain('first FROM');
    expect(line).toContain('second FROM');
    expect(line.length).toBeLessThan(400);
  });
});
