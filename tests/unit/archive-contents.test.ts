import { describe, expect, it } from 'vitest';
import { ContentsList } from '../../src/archive/contents-list.ts';
import { CopyRowCounter } from '../../src/archive/copy-rows.ts';
import { parseQualifiedName, relationKey } from '../../src/archive/relation-name.ts';

describe('the contents list of an archive', () => {
  const list = new ContentsList();
  for (const line of [
    ';',
    '; Archive created at 2026-11-22 12:00:00 UTC',
    ';     dbname: app',
    '',
    '217; 1259 16390 TABLE public customer app_owner',
    '3400; 0 16390 TABLE DATA public customer app_owner',
    '3401; 0 16391 TABLE DATA Odd Schema user "list" app_owner',
    '3402; 0 16392 TABLE DATA public orders of today role with spaces',
    '3402; 0 0 SEQUENCE SET public customer_id_seq app_owner',
  ]) {
    list.addLine(line);
  }

  it('counts entries and tables with data, not comments', () => {
    expect(list.entries).toBe(5);
    expect(list.tableDataEntries).toBe(3);
  });

  it('knows which tables have data, also those with spaces and quotes in their names', () => {
    expect(list.hasDataOf({ schema: 'public', name: 'customer' })).toBe(true);
    expect(list.hasDataOf({ schema: 'Odd Schema', name: 'user "list"' })).toBe(true);
    expect(list.hasDataOf({ schema: 'public', name: 'orders of today' })).toBe(true);
  });

  it('does not take a definition, a sequence or a part of a name for data', () => {
    expect(list.hasDataOf({ schema: 'public', name: 'customer_id_seq' })).toBe(false);
    expect(list.hasDataOf({ schema: 'public', name: 'custom' })).toBe(false);
    expect(list.hasDataOf({ schema: 'private', name: 'customer' })).toBe(false);
  });
});

describe('names of relations', () => {
  it.each([
    ['public.customer', 'public', 'customer'],
    ['public."user" (id, name) FROM stdin;', 'public', 'user'],
    ['"Odd Schema"."user ""list""" ("Full.Name")', 'Odd Schema', 'user "list"'],
    ['"a.b".c', 'a.b', 'c'],
    ['"x"".""y"."z"', 'x"."y', 'z'],
  ])('%s', (text, schema, name) => {
    expect(parseQualifiedName(text)).toEqual({ schema, name });
  });

  it('refuses a name without a schema', () => {
    expect(() => parseQualifiedName('customer (id)')).toThrow('not a qualified name');
  });
});

describe('rows in the SQL of an archive', () => {
  const sql = [
    '-- PostgreSQL database dump',
    'CREATE FUNCTION public.f() RETURNS text AS $$',
    'COPY public.fake (id) FROM stdin;',
    '1',
    '$$;',
    '--',
    '-- Data for Name: customer; Type: TABLE DATA; Schema: public; Owner: app',
    '--',
    '',
    'COPY public.customer (id, name) FROM stdin;',
    '1\tone\\ntwo',
    '2\t\\\\.',
    '',
    '\\.x',
    '\\.',
    '',
    '--',
    '-- Data for Name: user "list"; Type: TABLE DATA; Schema: Odd Schema; Owner: app',
    '--',
    '',
    'COPY "Odd Schema"."user ""list""" (id) FROM stdin;',
    '\\.',
    '',
    "SELECT pg_catalog.setval('public.customer_id_seq', 2, true);",
    '',
  ].join('\n');
  const expected = new Map([
    [relationKey({ schema: 'public', name: 'customer' }), 4],
    [relationKey({ schema: 'Odd Schema', name: 'user "list"' }), 0],
  ]);

  it('are counted alike however the text is cut into chunks', () => {
    const bytes = Buffer.from(sql);
    for (let size = 1; size <= bytes.length; size += 1) {
      const counter = new CopyRowCounter();
      for (let start = 0; start < bytes.length; start += size) counter.add(bytes.subarray(start, start + size));
      expect(counter.rows, `chunks of ${size}`).toEqual(expected);
      expect(counter.bytes).toBe(bytes.length);
    }
  });

  it('of megabytes each are counted too', () => {
    const counter = new CopyRowCounter();
    const row = Buffer.alloc(3_000_000, 'x');
    counter.add(
      Buffer.from(
        '-- Data for Name: big; Type: TABLE DATA; Schema: public; Owner: app\n--\n\nCOPY public.big (t) FROM stdin;\n',
      ),
    );
    for (let n = 0; n < 3; n += 1) {
      for (let start = 0; start < row.length; start += 65_536) counter.add(row.subarray(start, start + 65_536));
      counter.add(Buffer.from('\n'));
    }
    counter.add(Buffer.from('\\.\n'));
    expect([...counter.rows.values()]).toEqual([3]);
  });
});
