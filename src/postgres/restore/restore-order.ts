/** One item of a dump, as `pg_restore --list` prints it: `2426; 2606 16440 CONSTRAINT public accounts accounts_pkey owner`. */
export interface ArchiveItem {
  readonly id: number;
  /** Kind, schema, name and owner, not quoted. */
  readonly what: string;
}

/** @returns undefined for a comment or an empty line */
export function parseItem(line: string): ArchiveItem | undefined {
  const { id, what } = /^(?<id>\d+); \d+ \d+ (?<what>.*)$/.exec(line)?.groups ?? {};
  return id === undefined || what === undefined ? undefined : { id: Number(id), what };
}

/** What `pg_restore --list` tells of one dump. */
export interface ListedItems {
  readonly all: readonly ArchiveItem[];
  /** With the options of the call that reads the stream. */
  readonly streamed: readonly ArchiveItem[];
  /** With `--section=post-data --no-privileges`. */
  readonly afterData: readonly ArchiveItem[];
}

/** Which items the calls after the stream restore. Together with the streamed ones: every item of the list, each once. */
export interface RestoreOrder {
  /** Indexes, constraints, triggers, rules, policies, publications ...: by several sessions. */
  readonly concurrent: readonly ArchiveItem[];
  /** What pg_restore keeps for last whatever the order of the list: rights, then materialized views' rows and event triggers. */
  readonly last: readonly ArchiveItem[];
}

/**
 * Rights come after all else, as in a restore by one call: an owner who has revoked a right of his own could not build
 * what is his any more. Materialized views are filled after them, for their owners must be able to read; event triggers
 * come last, or they would fire (PostgreSQL source, `RestorePass` in pg_backup_archiver.h).
 *
 * @throws Error when an item would be restored twice
 */
export function orderRestore({ all, streamed, afterData }: ListedItems): RestoreOrder {
  const first = new Set(streamed.map(({ id }) => id));
  const twice = afterData.find(({ id }) => first.has(id));
  if (twice !== undefined) throw new Error(`item ${twice.id} ${twice.what} belongs to two sections`);
  const concurrent = afterData.filter(({ what }) => !isKeptForLast(what));
  const second = new Set(concurrent.map(({ id }) => id));
  return { concurrent, last: all.filter(({ id }) => !first.has(id) && !second.has(id)) };
}

const KEPT_FOR_LAST = /^(?:EVENT TRIGGER|MATERIALIZED VIEW DATA|(?:COMMENT|SECURITY LABEL) - EVENT TRIGGER) /;

const isKeptForLast = (what: string): boolean => KEPT_FOR_LAST.test(what);

/** For `pg_restore --use-list`: it reads the numbers and nothing else. */
export const useList = (items: readonly ArchiveItem[]): string => items.map(({ id }) => `${id};\n`).join('');
