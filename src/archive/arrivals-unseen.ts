/** What a count of rows does not show: those that were changed or deleted in place, by the server's own counters. */
import type { Client } from 'pg';
import type { DroppedObject } from '../contract/evidence/rehearsal.ts';
import type { TableCost } from '../contract/evidence/restore.ts';
import { counterDelta, readCounters, type TableCounters } from '../postgres/contents/write-counters.ts';

export interface ChangedInPlace {
  /** Tables, by their name in the object map, of which nobody can say that nothing was changed in place. */
  readonly changed: ReadonlySet<string>;
  /** In words. */
  readonly unseen: readonly string[];
}

/** Lines of `unseen`. */
const SHOWN = 50;

/**
 * @param client not in a transaction, in which the server would go on showing what was read first
 * @param since taken when the upgrade had ended; absent: nobody noted them
 */
export async function changedInPlace(
  client: Client,
  dropped: readonly DroppedObject[],
  since: TableCounters | undefined,
): Promise<ChangedInPlace> {
  const tables = [...new Set(dropped.map(({ table }) => table))];
  if (since === undefined) {
    return {
      changed: new Set(),
      unseen: [
        'whether rows were changed or deleted in place: what the server had counted was not noted when the upgrade ended',
      ],
    };
  }
  const { written, unknown } = counterDelta(since, await readCounters(client));
  const known = new Set(since.tables.map(({ table }) => table));
  const words = new Map(
    tables.flatMap((table) => {
      // Counters are those of partitions; a table made after the upgrade, or dropped since, has none to compare with.
      const isKnown = known.has(table) && !unknown.includes(table);
      const why = isKnown
        ? inPlaceText(written.find((cost) => cost.table === table))
        : 'its counters do not tell whether rows were changed or deleted';
      return why === undefined ? [] : [[table, why] as const];
    }),
  );
  return {
    changed: new Set(words.keys()),
    unseen: [...words].slice(0, SHOWN).map(([table, why]) => `${table} (${why})`),
  };
}

/** Inserted rows are what is counted. */
function inPlaceText(cost: TableCost | undefined): string | undefined {
  if (cost === undefined || cost.updated + cost.deleted === 0) return undefined;
  return `since the upgrade ended ${cost.updated} row(s) were changed and ${cost.deleted} deleted, ${cost.inserted} inserted`;
}
