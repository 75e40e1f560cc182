import type { SchemaChange } from '../../contract/evidence/dry-run.ts';
import { sameForm } from './definition-text.ts';
import { type DatabaseObject, keyOf, type ObjectMap } from './object-map.ts';
import { qualifiedName } from '../identifier.ts';
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

/** Names are evidence in the history and must stay small. */
const NAMES_SHOWN = 200;

/** `kind name` of each object, for evidence. */
export const namesOf = (change: ObjectMapChange): SchemaChange => ({
  added: change.added.slice(0, NAMES_SHOWN).map(keyOf),
  removed: change.removed.slice(0, NAMES_SHOWN).map(keyOf),
  changed: change.changed.slice(0, NAMES_SHOWN).map(keyOf),
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

/** Kinds whose definitions hold expressions; the text of others, such as a comment, counts as it stands. */
const WITH_EXPRESSIONS: ReadonlySet<ObjectKind> = new Set<ObjectKind>([
  'type',
  'table',
  'column',
  'index',
  'constraint',
  'view',
  'materialized-view',
  'rule',
  'function',
  'trigger',
  'policy',
  'statistics',
  'publication',
]);

export const holdsExpressions = (kind: ObjectKind): boolean => WITH_EXPRESSIONS.has(kind);

const formOf = (kind: ObjectKind, definition: string): string =>
  holdsExpressions(kind) ? sameForm(definition) : definition;

/** Definitions of one object that PostgreSQL writes in two ways, or that give the same rights. */
export const meansTheSame = (object: ObjectMapChange['changed'][number]): boolean =>
  formOf(object.kind, object.before) === formOf(object.kind, object.after) || givesTheSame(object);

/**
 * Before PostgreSQL 15 everybody may create in schema `public`, and only its owner, a superuser as a rule, can grant the same
 * to somebody by name: a restore by anybody else leaves that out. Rights to grant on are no part of it.
 */
export const givesTheSame = ({ kind, name, before, after }: ObjectMapChange['changed'][number]): boolean =>
  kind === 'grants' && name === 'schema public' && givesEverybodyAll(before) && givesEverybodyAll(after);

const givesEverybodyAll = (grants: string): boolean =>
  grants.split('; ').includes('PUBLIC=CREATE, USAGE') && !grants.includes('*');

/** Who owns what and who may do what: to be compared where the copy's roles are those of production, by name. */
const RIGHTS: ReadonlySet<ObjectKind> = new Set<ObjectKind>(['ownership', 'grants', 'default-privileges']);

/** Of the server, or cut off in a copy: never the same there. */
const NEVER_COMPARED: ReadonlySet<ObjectKind> = new Set<ObjectKind>([
  'subscription',
  'user-mapping',
  'tablespace',
  'setting',
]);

/** Names that stand for one another: that of a role in the copy, and that of the role in production. */
export interface RoleNames {
  readonly copy: string;
  readonly production: string;
}

export interface ComparedChanges {
  /** One line for each difference of definitions; empty when the changes are the same. */
  readonly objects: readonly string[];
  /** The same for owners, grants and default privileges. */
  readonly rights: readonly string[];
  /** `kind name: what`, for what changed in either and cannot be compared. */
  readonly notCompared: readonly string[];
}

/**
 * Did the release change production as it changed the copy in the rehearsal? Compared by name and by the definition after,
 * in its normal form, for the copy has been dumped and restored.
 *
 * @param roles how the login of the copy and the role it imitates are called
 */
export function compareChanges(
  production: ObjectMapChange,
  rehearsed: ObjectMapChange,
  roles?: RoleNames,
): ComparedChanges {
  const first = effectsOf(production);
  const second = roles === undefined ? effectsOf(rehearsed) : effectsOf(inProductionsNames(rehearsed, roles));
  const [objects, rights, notCompared]: [string[], string[], string[]] = [[], [], []];
  for (const key of [...new Set([...first.keys(), ...second.keys()])].sort()) {
    const [here, there] = [first.get(key), second.get(key)];
    const kind = (here ?? there)!.kind;
    if (NEVER_COMPARED.has(kind)) {
      notCompared.push(
        `${key}: ${here === undefined ? `${there!.what} in the rehearsal` : `${here.what} in production`}`,
      );
      continue;
    }
    const why = differenceOf(here, there);
    if (why !== undefined) (RIGHTS.has(kind) ? rights : objects).push(`${key}: ${why}`);
  }
  return { objects, rights, notCompared };
}

/** The copy's login has a name of its own that stands for nothing else. */
export function inProductionsNames(change: ObjectMapChange, { copy, production }: RoleNames): ObjectMapChange {
  const renamed = (text: string): string =>
    text.replaceAll(qualifiedName(copy), qualifiedName(production)).replaceAll(copy, production);
  const object = ({ kind, name, definition }: DatabaseObject): DatabaseObject => ({
    kind,
    name: renamed(name),
    definition: renamed(definition),
  });
  return {
    added: change.added.map(object),
    removed: change.removed.map(object),
    changed: change.changed.map(({ kind, name, before, after }) => ({
      kind,
      name: renamed(name),
      before: renamed(before),
      after: renamed(after),
    })),
  };
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
  readonly kind: ObjectKind;
  readonly what: 'added' | 'removed' | 'changed';
  readonly text: string;
  readonly form: string;
}

function effectsOf(change: ObjectMapChange): Map<string, Effect> {
  const effect = (kind: ObjectKind, what: Effect['what'], text: string): Effect => ({
    kind,
    what,
    text,
    form: formOf(kind, text),
  });
  return new Map([
    ...change.added.map((object) => [keyOf(object), effect(object.kind, 'added', object.definition)] as const),
    ...change.removed.map((object) => [keyOf(object), effect(object.kind, 'removed', '')] as const),
    ...change.changed.map((object) => [keyOf(object), effect(object.kind, 'changed', object.after)] as const),
  ]);
}

/** How many objects the release changed, by the count `compareChanges` uses. */
export const countEffects = (change: ObjectMapChange): number =>
  [...effectsOf(change).values()].filter(({ kind }) => !NEVER_COMPARED.has(kind)).length;
