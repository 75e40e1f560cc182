import { normalizedDefinition } from './definition-text.ts';
import { type DatabaseObject, keyOf, type ObjectMap } from './object-map.ts';
import {
  compareMaps,
  describeChange,
  describeChanged,
  givesTheSame,
  holdsExpressions,
  type ObjectMapChange,
} from './object-map-change.ts';
import type { ObjectKind } from './object-map-queries.ts';

/** How a restored database relates to its original. Differences in words; `cosmetic` ones mean the same thing. */
export interface RestoreComparison {
  readonly verdict: 'equal' | 'cosmetic' | 'different';
  readonly cosmetic: readonly string[];
  readonly different: readonly string[];
}

/**
 * Not in a dump, or not restored from it. Settings belong to the database as a whole and are compared once they are applied
 * (`compareProperties`); subscriptions are left out of every restore, for a second one would subscribe a second time.
 */
const NOT_RESTORED: readonly ObjectKind[] = ['setting', 'subscription'];

/**
 * A restored database against its original, definitions only. Cosmetic: the order of columns, names that PostgreSQL made up,
 * expressions that it writes differently after a dump and restore (see `normalizedDefinition`), the version of an extension,
 * which no dump carries.
 *
 * @param options.leaveOut kinds that cannot be the same where the copy is, such as the owners on another server
 */
export function compareForRestore(
  original: ObjectMap,
  restored: ObjectMap,
  options: { readonly leaveOut?: readonly ObjectKind[] } = {},
): RestoreComparison {
  const leftOut = [...NOT_RESTORED, ...(options.leaveOut ?? [])];
  const compared = (map: ObjectMap): ObjectMap => ({
    ...map,
    objects: map.objects.filter(({ kind }) => !leftOut.includes(kind)),
  });
  const exact = compareMaps(compared(original), compared(restored));
  const renamed = pairsOfDerivedNames(exact);
  const rewritten = exact.changed.filter(meansTheSame);
  const different = describeChange({
    added: exact.added.filter((object) => !renamed.some(({ now }) => now === object)),
    removed: exact.removed.filter((object) => !renamed.some(({ was }) => was === object)),
    changed: exact.changed.filter((object) => !meansTheSame(object)),
  });
  const cosmetic = [
    ...renamed.map(({ was, now }) => `${keyOf(was)} is now called ${now.name}`),
    ...rewritten.map(describeChanged),
    ...cosmeticFacts(original, restored),
  ];
  const verdict = different.length > 0 ? 'different' : cosmetic.length > 0 ? 'cosmetic' : 'equal';
  return { verdict, cosmetic, different };
}

const restoredForm = (kind: ObjectKind, definition: string): string =>
  kind === 'extension'
    ? definition.replace(/ version .*$/, '')
    : holdsExpressions(kind)
      ? normalizedDefinition(definition)
      : definition;

/** Definitions of one object that differ at most in what a restore may change without meaning anything. */
const meansTheSame = (object: ObjectMapChange['changed'][number]): boolean =>
  restoredForm(object.kind, object.before) === restoredForm(object.kind, object.after) || givesTheSame(object);

/** Tables that have their columns in another order than before, one line each: what names no columns in its INSERTs notices. */
export const reorderedColumns = (before: ObjectMap, after: ObjectMap): readonly string[] =>
  cosmeticFacts(
    { ...before, cosmetic: before.cosmetic.filter(({ kind }) => kind === 'column-order') },
    after,
    (one, other) => one.split(', ').toSorted().join() === other.split(', ').toSorted().join(),
  );

/** Of objects that both have: what only one has is told already. */
function cosmeticFacts(
  original: ObjectMap,
  restored: ObjectMap,
  isTold: (one: string, other: string) => boolean = () => true,
): string[] {
  const found = new Map(restored.cosmetic.map((fact) => [keyOf(fact), fact.definition]));
  return original.cosmetic.flatMap((fact) => {
    const now = found.get(keyOf(fact));
    return now === undefined || now === fact.definition || !isTold(fact.definition, now)
      ? []
      : [`${fact.kind.replaceAll('-', ' ')} of ${fact.name}: ${fact.definition} -> ${now}`];
  });
}

interface Renamed {
  readonly was: DatabaseObject;
  readonly now: DatabaseObject;
}

/** Constraints and indexes of the same table and definition, where PostgreSQL made up both names. */
function pairsOfDerivedNames({ added, removed }: ObjectMapChange): Renamed[] {
  const candidates = new Map<string, DatabaseObject[]>();
  for (const now of added) {
    const key = anonymousForm(now);
    if (key !== undefined) candidates.set(key, [...(candidates.get(key) ?? []), now]);
  }
  return removed.flatMap((was) => {
    const now = candidates.get(anonymousForm(was) ?? '')?.shift();
    return now === undefined ? [] : [{ was, now }];
  });
}

/** Ending of the names that ChooseConstraintName and ChooseIndexName make (PostgreSQL source, `indexcmds.c`). */
const DERIVED = /_(?:pkey|key|excl|idx|check|fkey|not_null)\d*$/;

/** Table and definition without the object's own name; undefined for what a person named. */
function anonymousForm({ kind, name, definition }: DatabaseObject): string | undefined {
  const parts = partsOfName(name);
  const own = parts.at(-1) ?? '';
  if (kind === 'constraint') {
    const [schema = '', table = ''] = parts;
    return isDerived(own, table) ? JSON.stringify([kind, schema, table, normalizedDefinition(definition)]) : undefined;
  }
  if (kind !== 'index') return undefined;
  const on = /^CREATE (?:UNIQUE )?INDEX (?:"(?:[^"]|"")*"|\S+) ON (?:ONLY )?(?<rest>.*)$/s.exec(definition)?.groups?.[
    'rest'
  ];
  if (on === undefined) return undefined;
  const table = partsOfName(/^(?:"(?:[^"]|"")*"|[^\s"])+/.exec(on)?.[0] ?? '').at(-1) ?? '';
  return isDerived(own, table) ? JSON.stringify([kind, normalizedDefinition(on)]) : undefined;
}

/** A derived name begins with its table's, of which at least these many characters are left when it is cut to 63 bytes. */
const KEPT = 20;

const isDerived = (name: string, table: string): boolean =>
  table !== '' && DERIVED.test(name) && name.startsWith(table.slice(0, KEPT));

/** `schema.table.column` with quotes where needed, in its parts. */
const partsOfName = (name: string): string[] =>
  [...name.matchAll(/"(?<quoted>(?:[^"]|"")*)"|(?<plain>[^."]+)/g)].map(
    ({ groups }) => groups?.['plain'] ?? (groups?.['quoted'] ?? '').replaceAll('""', '"'),
  );
