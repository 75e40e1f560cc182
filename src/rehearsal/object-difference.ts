import { describeChange, compareMaps } from '../postgres/catalog/object-map-change.ts';
import type { ObjectMap } from '../postgres/catalog/object-map.ts';
import { meansTheSame } from '../postgres/catalog/object-map-restore.ts';

/**
 * One line for each object that is not as it was. Expressions that mean the same count as equal: those of the copy came out
 * of a dump, and PostgreSQL writes some of them otherwise once a downgrade has made them anew. Names count, made up or not:
 * later migrations call constraints and indexes by them.
 */
export function objectDifferences(before: ObjectMap, after: ObjectMap): readonly string[] {
  const change = compareMaps(before, after);
  return describeChange({
    ...change,
    changed: change.changed.filter((object) => object.kind === 'extension' || !meansTheSame(object)),
  });
}
