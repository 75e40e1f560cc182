import { normalizedDefinition } from './definition-text.ts';
import { type DatabaseObject, keyOf, type ObjectMap } from './object-map.ts';
import type { ObjectKind } from './object-map-queries.ts';

/** What lies between two maps of one database. */
export interface ObjectMapChange {
  readonly added: readonly DatabaseObject[];
  readonly removed: readonly DatabaseObject[];
  readonly changed: readonly {
    readonly kind: ObjectKind;
    readonly name: string;
    readonly before: string;
    readonly after: string;
  }[];
}

/** Exact: for two maps of the same database, between which nothing was dumped and restored. */
export function compareMaps(before: ObjectMap, after: ObjectMap): ObjectMapChange {
  const first = new Map(before.objects.map((object) => [keyOf(object), object]));
  const second = new Map(after.objects.map((object) => [keyOf(object), object]));
  return {
    added: after.objects.filter((object) => !first.has(keyOf(object))),
    removed: before.objects.filter((object) => !second.has(keyOf(object))),
    changed: before.objects.flatMap((object) => {
      const other = second.get(keyOf(object));
      return other === undefined || object.definition === other.definition
        ? []
        : [{ kind: object.kind, name: object.name, before: object.definition, after: other.definition }];
    }),
  };
}

export const isUnchanged = (change: ObjectMapChange): boolean =>
  change.added.length + change.removed.length + change.changed.length === 0;

/** `kind name` of each object, for evidence. */
export const namesOf = (
  change: ObjectMapChange,
): { readonly added: string[]; readonly removed: string[]; readonly changed: string[] } => ({
  added: change.added.map(keyOf),
  removed: change.removed.map(keyOf),
  changed: change.changed.map(keyOf),
});

/** One line for an object that changed: where its definition begins to differ. */
export function describeChanged(object: ObjectMapChange['changed'][number]): string {
  const [before, after] = excerpts(object.before, object.after);
  return `changed ${keyOf(object)}: ${before} -> ${after}`;
}

const EXCERPT = 120;

/** Both texts, of long ones only the part in which they differ, with what stands before it. */
function excerpts(one: string, other: string): [string, string] {
  let same = 0;
  while (same < one.length && one[same] === other[same]) same += 1;
  const from = Math.max(0, same - 30);
  const cut = (text: string): string =>
    text.length <= EXCERPT
      ? text
      : `${from > 0 ? '...' : ''}${text.slice(from, from + EXCERPT)}${text.length > from + EXCERPT ? '...' : ''}`;
  return [cut(one), cut(other)];
}

/** One line an object, for messages. */
export const describeChange = (change: ObjectMapChange): string[] => [
  ...change.added.map((object) => `added ${keyOf(object)}`),
  ...change.removed.map((object) => `removed ${keyOf(object)}`),
  ...change.changed.map(describeChanged),
];

/** Belongs to the server or to its roles, which need not be the same elsewhere: no part of what a release changes. */
export const OF_THE_SERVER: readonly ObjectKind[] = [
  'ownership',
  'grants',
  'default-privileges',
  'publication',
  'publication-schema',
  'subscription',
  'user-mapping',
  'tablespace',
  'setting',
];

/**
 * Did the release change production as it changed the copy in the rehearsal? Compared by name and by the definition after,
 * in its normal form, for the copy has been dumped and restored; owners and grants are left out.
 *
 * @returns one line for each difference; empty when the changes are the same
 */
export function compareChanges(production: ObjectMapChange, rehearsed: ObjectMapChange): string[] {
  const first = effectsOf(production);
  const second = effectsOf(rehearsed);
  return [...new Set([...first.keys(), ...second.keys()])].sort().flatMap((key) => {
    const why = differenceOf(first.get(key), second.get(key));
    return why === undefined ? [] : [`${key}: ${why}`];
  });
}

function differenceOf(here: Effect | undefined, there: Effect | undefined): string | undefined {
  if (here === undefined) return `${there!.what} in the rehearsal, untouched in production`;
  if (there === undefined) return `${here.what} in production, untouched in the rehearsal`;
  if (here.what !== there.what) return `${here.what} in production, ${there.what} in the rehearsal`;
  if (here.form === there.form) return undefined;
  if (here.form === `${there.form} NOT VALID`) return 'not validated in production, validated in the rehearsal';
  const [production, rehearsed] = excerpts(here.text, there.text);
  return `${here.what} in production to ${production}, in the rehearsal to ${rehearsed}`;
}

interface Effect {
  readonly what: 'added' | 'removed' | 'changed';
  readonly text: string;
  readonly form: string;
}

function effectsOf(change: ObjectMapChange): Map<string, Effect> {
  const effect = (what: Effect['what'], text: string): Effect => ({ what, text, form: normalizedDefinition(text) });
  const entries: (readonly [DatabaseObject | ObjectMapChange['changed'][number], Effect])[] = [
    ...change.added.map((object) => [object, effect('added', object.definition)] as const),
    ...change.removed.map((object) => [object, effect('removed', '')] as const),
    ...change.changed.map((object) => [object, effect('changed', object.after)] as const),
  ];
  return new Map(
    entries.filter(([{ kind }]) => !OF_THE_SERVER.includes(kind)).map(([object, value]) => [keyOf(object), value]),
  );
}

/** How many objects the release changed, by the count `compareChanges` uses. */
export const countEffects = (change: ObjectMapChange): number => effectsOf(change).size;
