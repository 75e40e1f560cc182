import { compareMaps, describeChange, meansTheSame } from '../postgres/catalog/object-map-change.ts';
import type { DatabaseObject, ObjectMap } from '../postgres/catalog/object-map.ts';

/**
 * One line for each object that is not as it was. Expressions that mean the same count as equal: those of the copy came out
 * of a dump, and PostgreSQL writes some of them otherwise once a downgrade has made them anew. Names count, made up or not:
 * later migrations call constraints and indexes by them. What belongs to an object that came or went is not told beside it:
 * owner, rights and comment; columns, constraints and indexes of a table.
 */
export function objectDifferences(before: ObjectMap, after: ObjectMap): readonly string[] {
  const { added, removed, changed } = compareMaps(before, after);
  return describeChange({
    added: withoutBelongings(added),
    removed: withoutBelongings(removed),
    changed: changed.filter((object) => !meansTheSame(object)),
  });
}

/** Told of another object: `type public.mood`, the kind of the other in a word before its name. */
const OF_ANOTHER = new Set<DatabaseObject['kind']>(['ownership', 'grants', 'comment', 'security-label']);
const IN_A_TABLE = new Set<DatabaseObject['kind']>(['column', 'constraint', 'trigger', 'policy', 'rule']);
const WITH_COLUMNS = new Set<DatabaseObject['kind']>(['table', 'view', 'materialized-view']);

function withoutBelongings(objects: readonly DatabaseObject[]): readonly DatabaseObject[] {
  const names = new Set(objects.filter(({ kind }) => !OF_ANOTHER.has(kind)).map(({ name }) => name));
  const tables = objects.filter(({ kind }) => WITH_COLUMNS.has(kind)).map(({ name }) => name);
  const isInTable = (name: string): boolean => tables.some((table) => name.startsWith(`${table}.`));
  return objects.filter(({ kind, name, definition }) => {
    if (OF_ANOTHER.has(kind)) {
      const other = name.slice(name.indexOf(' ') + 1);
      return !names.has(other) && !isInTable(other);
    }
    if (IN_A_TABLE.has(kind)) return !isInTable(name);
    return kind !== 'index' || !tables.some((table) => definition.includes(` ON ${table} USING `));
  });
}
