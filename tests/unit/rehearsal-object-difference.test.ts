import { describe, expect, test } from 'vitest';
import type { DatabaseObject, ObjectMap } from '../../src/postgres/catalog/object-map.ts';
import { objectDifferences } from '../../src/rehearsal/object-difference.ts';

const map = (...objects: readonly (readonly [DatabaseObject['kind'], string, string])[]): ObjectMap => ({
  format: 'migration-runbook/object-map/2',
  objects: objects.map(([kind, name, definition]) => ({ kind, name, definition })),
  cosmetic: [],
});

describe('what is not as it was', () => {
  test('is told once an object, without what belongs to it', () => {
    const after = map(
      ['type', 'public.mood', "enum ('good')"],
      ['ownership', 'type public.mood', 'app'],
      ['grants', 'type public.mood', 'PUBLIC=U'],
      ['table', 'public.teams', 'ordinary'],
      ['column', 'public.teams.id', 'integer NOT NULL'],
      ['constraint', 'public.teams.teams_pkey', 'PRIMARY KEY (id)'],
      ['index', 'public.teams_pkey', 'CREATE UNIQUE INDEX teams_pkey ON public.teams USING btree (id)'],
      ['ownership', 'relation public.teams', 'app'],
      ['comment', 'column public.teams.id', 'its number'],
    );
    expect(objectDifferences(map(), after)).toEqual(['added type public.mood', 'added table public.teams']);
    expect(objectDifferences(after, map())).toEqual(['removed type public.mood', 'removed table public.teams']);
  });

  test('is told where only rights, a column or an index of what stays differ', () => {
    const before = map(['table', 'public.users', 'ordinary']);
    const after = map(
      ['table', 'public.users', 'ordinary'],
      ['column', 'public.users.email', 'text'],
      ['index', 'public.users_email', 'CREATE INDEX users_email ON public.users USING btree (email)'],
      ['grants', 'relation public.users', 'PUBLIC=r'],
    );
    expect(objectDifferences(before, after)).toEqual([
      'added column public.users.email',
      'added index public.users_email',
      'added grants relation public.users',
    ]);
  });

  test('is no expression that a dump and restore only writes otherwise', () => {
    const constraint = (text: string) => map(['constraint', 'public.jobs.state_known', text]);
    const dumped = constraint(
      "CHECK (((state)::text = ANY (ARRAY[('new'::character varying)::text, ('done'::character varying)::text])))",
    );
    const written = constraint(
      "CHECK (((state)::text = ANY ((ARRAY['new'::character varying, 'done'::character varying])::text[])))",
    );
    expect(objectDifferences(dumped, written)).toEqual([]);
    const other = constraint("CHECK (((state)::text = ANY ((ARRAY['new'::character varying])::text[])))");
    expect(objectDifferences(dumped, other)).toHaveLength(1);
  });

  test('is a constraint under another name, made up or not', () => {
    const before = map(['constraint', 'public.users.users_email_key', 'UNIQUE (email)']);
    const after = map(['constraint', 'public.users.users_email_key1', 'UNIQUE (email)']);
    expect(objectDifferences(before, after)).toHaveLength(2);
  });
});
