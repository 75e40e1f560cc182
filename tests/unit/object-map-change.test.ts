import { describe, expect, it } from 'vitest';
import { normalizedDefinition, sameForm } from '../../src/postgres/catalog/definition-text.ts';
import {
  type DatabaseObject,
  digestOf,
  type ObjectMap,
  parseObjectMap,
  serializeObjectMap,
} from '../../src/postgres/catalog/object-map.ts';
import { compareChanges, compareMaps, isUnchanged, namesOf } from '../../src/postgres/catalog/object-map-change.ts';
import type { ObjectKind } from '../../src/postgres/catalog/object-map-queries.ts';
import { expectationsFor, unmetExpectations } from '../../src/postgres/catalog/schema-expectations.ts';

const mapOf = (...objects: readonly (readonly [ObjectKind, string, string])[]): ObjectMap => ({
  format: 'migration-runbook/object-map/2',
  objects: objects.map(([kind, name, definition]): DatabaseObject => ({ kind, name, definition })),
  cosmetic: [],
});

describe('the normal form of a definition', () => {
  // Each pair as PostgreSQL 18 wrote it before and after one dump and restore.
  it.each([
    [
      `CHECK (((st)::text = ANY ((ARRAY['new'::character varying, 'old'::character varying])::text[])))`,
      `CHECK (((st)::text = ANY (ARRAY[('new'::character varying)::text, ('old'::character varying)::text])))`,
    ],
    [
      `CREATE INDEX i ON app.users USING btree (lower(note)) WHERE ((((st)::text = ANY ((ARRAY['new'::character varying])::text[])) AND (id > 3)) OR (note IS NULL))`,
      `CREATE INDEX i ON app.users USING btree (lower(note)) WHERE ((((st)::text = ANY (ARRAY[('new'::character varying)::text])) AND (id > 3)) OR (note IS NULL))`,
    ],
    [
      `CHECK ((((VALUE)::text ~~ '%@%'::text) AND ((VALUE)::text = ANY ((ARRAY['x@y'::character varying])::text[]))))`,
      `CHECK ((((VALUE)::text ~~ '%@%'::text) AND ((VALUE)::text = ANY (ARRAY[('x@y'::character varying)::text]))))`,
    ],
  ])('is the same for %s', (before, after) => {
    expect(before).not.toBe(after);
    expect(normalizedDefinition(after)).toBe(normalizedDefinition(before));
    expect(sameForm(after)).toBe(sameForm(before));
  });

  it.each([
    ['another literal', `CHECK ((st)::text = 'new'::text)`, `CHECK ((st)::text = 'old'::text)`],
    ['another operator', 'CHECK ((price > (0)::numeric))', 'CHECK ((price >= (0)::numeric))'],
    ['another grouping', 'CHECK (((a AND b) OR c))', 'CHECK ((a AND (b OR c)))'],
    ['another column', 'CHECK ((a = 1))', 'CHECK ((b = 1))'],
    ['a negation', 'CHECK ((NOT a))', 'CHECK ((a))'],
    ['a call in place of a comparison', 'CHECK (lower(a))', 'CHECK (a)'],
    ['white space inside a literal', `DEFAULT 'a b'::text`, `DEFAULT 'a  b'::text`],
    ['a cast inside a literal', `DEFAULT 'a::b'::text`, `DEFAULT 'a'::text`],
    ['parentheses inside a literal', `DEFAULT '(a)'::text`, `DEFAULT 'a'::text`],
    ['another list', `CHECK (a = ANY (ARRAY[1, 2]))`, `CHECK (a = ANY (ARRAY[1, 2, 3]))`],
    ['another order of subtraction', 'CHECK ((a - (b - c)) > 0)', 'CHECK (((a - b) - c) > 0)'],
    ['the body of a function', 'AS $$ begin return (1); end $$', 'AS $$ begin return 1; end $$'],
    ['a quoted name', 'CHECK (("A" = 1))', 'CHECK ((a = 1))'],
  ])('tells %s', (_, one, other) => {
    expect(normalizedDefinition(one)).not.toBe(normalizedDefinition(other));
    expect(sameForm(one)).not.toBe(sameForm(other));
  });

  // What differs in casts only has other values: none of these may be taken for the same after a downgrade.
  it.each([
    ['a number cut to an integer', 'SELECT (price)::integer AS price', 'SELECT price AS price'],
    ['another type of an indexed value', 'USING btree (((j)::bigint))', 'USING btree (((j)::numeric))'],
    ['a shorter text', `CHECK (((v)::character varying(2))::text = 'ab'::text)`, `CHECK ((v)::text = 'ab'::text)`],
    ['another precision', 'DEFAULT (now())::timestamp(0) without time zone', 'DEFAULT now()'],
    ['elements of another type', `ANY (ARRAY[('a'::text)::name])`, `ANY (ARRAY['a'::text])`],
    ['the cast of another operand', 'CHECK ((a)::text = b)', 'CHECK (a = (b)::text)'],
  ])('with its casts tells %s', (_, one, other) => {
    expect(sameForm(one)).not.toBe(sameForm(other));
  });
});

describe('comparing maps', () => {
  const before = mapOf(
    ['table', 'public.a', 'ordinary'],
    ['column', 'public.a.x', 'integer'],
    ['index', 'public.i', 'one'],
  );
  const after = mapOf(
    ['table', 'public.a', 'ordinary'],
    ['column', 'public.a.x', 'bigint'],
    ['table', 'public.b', 'ordinary'],
  );

  it('names what was added, removed and changed', () => {
    expect(namesOf(compareMaps(before, after))).toEqual({
      added: ['table public.b'],
      removed: ['index public.i'],
      changed: ['column public.a.x'],
    });
    expect(isUnchanged(compareMaps(before, before))).toBe(true);
  });

  it('has one digest for one content, whatever text it was read from', () => {
    const copy = parseObjectMap(JSON.stringify(before, null, 2));
    expect(digestOf(copy)).toBe(digestOf(before));
    expect(digestOf(after)).not.toBe(digestOf(before));
    const reordered = {
      ...before,
      cosmetic: [{ kind: 'column-order', name: 'public.a', definition: 'y, x' }],
    } as const;
    expect(digestOf(reordered)).toBe(digestOf(before));
    expect(serializeObjectMap(before)).not.toContain('\n');
    expect(() => parseObjectMap('{"objects":[]}')).toThrow('not an object map');
  });
});

describe('comparing the change of production with that of the rehearsal', () => {
  const change = (definition: string, owner: string) =>
    compareMaps(
      mapOf(['table', 'public.a', 'ordinary']),
      mapOf(
        ['table', 'public.a', 'ordinary'],
        ['column', 'public.a.y', definition],
        ['ownership', 'table public.b', owner],
      ),
    );

  const compareObjects = (...changes: Parameters<typeof compareChanges>) => compareChanges(...changes).objects;

  it('finds them equal where the login of the copy stands for the role of production', () => {
    const roles = { copy: 'Svc_scratch_1', production: 'migrator' };
    const equal = { objects: [], rights: [], notCompared: [] };
    expect(compareChanges(change('integer', 'migrator'), change('integer', '"Svc_scratch_1"'), roles)).toEqual(equal);
    const granted = (grants: string, name: string) =>
      compareMaps(mapOf(), mapOf(['grants', 'table public.b', grants], ['default-privileges', `${name}.* r`, grants]));
    expect(
      compareChanges(
        granted('app=SELECT; migrator=INSERT', 'migrator'),
        granted('app=SELECT; "Svc_scratch_1"=INSERT', '"Svc_scratch_1"'),
        roles,
      ),
    ).toEqual(equal);
  });

  it('tells owners and grants apart from definitions, and what is never compared', () => {
    expect(compareChanges(change('integer', 'owner'), change('integer', 'other_owner'))).toEqual({
      objects: [],
      rights: ['ownership table public.b: added in production to owner, in the rehearsal to other_owner'],
      notCompared: [],
    });
    const subscribed = compareMaps(mapOf(), mapOf(['subscription', 's', 'publications {p} slot s']));
    expect(compareChanges(subscribed, compareMaps(mapOf(), mapOf()))).toEqual({
      objects: [],
      rights: [],
      notCompared: ['subscription s: added in production'],
    });
  });

  it('compares publications: operations, tables, columns, row filters, schemas and owner', () => {
    const published = (definition: string, owner = 'migrator') =>
      compareMaps(
        mapOf(['publication', 'p', 'insert tables public.a']),
        mapOf(
          ['publication', 'p', definition],
          ['publication-schema', 'p.app', 'tables in schema'],
          ['ownership', 'publication p', owner],
        ),
      );
    const whole = 'insert via root tables public.a (x, y) where (x > 3)';
    const nothing = { objects: [], rights: [], notCompared: [] };
    expect(compareChanges(published(whole), published(whole))).toEqual(nothing);
    for (const other of [
      'insert update via root tables public.a (x, y) where (x > 3)',
      'insert tables public.a (x, y) where (x > 3)',
      'insert via root tables public.a (x) where (x > 3)',
      'insert via root tables public.a (x, y) where (x > 4)',
      'insert via root tables public.a (x, y) where (x > 3), public.b',
    ]) {
      expect(compareChanges(published(whole), published(other)).objects).toEqual([
        expect.stringMatching(/^publication p: changed in production to /),
      ]);
    }
    expect(compareChanges(published(whole), published(whole, 'other')).rights).toHaveLength(1);
    expect(compareChanges(published(whole), compareMaps(mapOf(), mapOf())).objects).toEqual([
      'publication p: changed in production, untouched in the rehearsal',
      'publication-schema p.app: added in production, untouched in the rehearsal',
    ]);
  });

  it('takes no text for a cast, and no cast for nothing', () => {
    const of = (kind: ObjectKind, definition: string) => compareMaps(mapOf(), mapOf([kind, 'o', definition]));
    expect(compareObjects(of('comment', 'a::b c'), of('comment', 'a::d c'))).toHaveLength(1);
    expect(compareObjects(of('view', 'SELECT (a)::integer AS a'), of('view', 'SELECT a AS a'))).toHaveLength(1);
  });

  it('names each difference', () => {
    expect(compareObjects(change('integer', 'o'), change('bigint', 'o'))).toEqual([
      'column public.a.y: added in production to integer, in the rehearsal to bigint',
    ]);
    const nothing = compareMaps(mapOf(), mapOf());
    expect(compareObjects(nothing, change('integer', 'o'))).toEqual([
      'column public.a.y: added in the rehearsal, untouched in production',
    ]);
    expect(compareObjects(change('integer', 'o'), nothing)).toEqual([
      'column public.a.y: added in production, untouched in the rehearsal',
    ]);
  });

  it('finds them equal where the copy’s dump and restore has only written a definition otherwise', () => {
    const check = (definition: string) => compareMaps(mapOf(), mapOf(['constraint', 'public.a.c', definition]));
    expect(
      compareObjects(
        check(`CHECK (((st)::text = ANY ((ARRAY['new'::character varying])::text[])))`),
        check(`CHECK (((st)::text = ANY (ARRAY[('new'::character varying)::text])))`),
      ),
    ).toEqual([]);
  });

  it('says that a constraint was not validated', () => {
    const check = (definition: string) => compareMaps(mapOf(), mapOf(['constraint', 'public.a.c', definition]));
    expect(compareObjects(check('CHECK ((y > 0)) NOT VALID'), check('CHECK ((y > 0))'))).toEqual([
      'constraint public.a.c: not validated in production, validated in the rehearsal',
    ]);
  });

  it('shows of long definitions the part that differs', () => {
    const view = (end: string) =>
      compareMaps(mapOf(), mapOf(['view', 'public.v', `SELECT ${'x, '.repeat(200)}${end}`]));
    const [line = ''] = compareObjects(view('one'), view('other'));
    expect(line).toMatch(/one.* in the rehearsal to .*other/);
    expect(line.length).toBeLessThan(400);
  });
});

describe('what the profile expects of the schema', () => {
  const map = mapOf(['table', 'public.a', ''], ['column', 'public.a."position"', ''], ['index', 'public.i', '']);

  it('is looked up by kind and name, with or without quotes', () => {
    expect(
      unmetExpectations(map, [
        { kind: 'table', name: 'public.a' },
        { kind: 'column', name: 'public.a.position' },
        { kind: 'index', name: 'public.a' },
        { kind: 'type', name: 'public.t' },
      ]),
    ).toEqual([
      { kind: 'index', name: 'public.a' },
      { kind: 'type', name: 'public.t' },
    ]);
  });

  it('holds for the releases its pattern names', () => {
    const expectation = (releases?: string) =>
      ({ kind: 'table', name: 'public.b', ...(releases === undefined ? {} : { releases }) }) as const;
    const all = [expectation(), expectation('v1.1.*'), expectation('v?.2.0'), expectation('v1.1.0')];
    expect(expectationsFor(all, 'v1.1.0')).toEqual([all[0], all[1], all[3]]);
    expect(expectationsFor(all, 'v1x1.0')).toEqual([all[0]]);
    expect(expectationsFor(all, 'v3.2.0')).toEqual([all[0], all[2]]);
  });
});
