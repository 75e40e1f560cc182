import type { AlembicRevision } from '../contract/graph.ts';
import { isHidden } from './hidden-graph.ts';
import { rowsAlongPath } from './upgrade-path.ts';

/** What a database is, as far as an upgrade is concerned. */
export interface DatabaseState {
  /** Version rows. Their order does not matter. */
  readonly rows: readonly string[];
  /** Digest of the object map: valid indexes only, without the version table. */
  readonly objectMapDigest: string;
}

export interface ReconcileInput {
  readonly start: DatabaseState;
  /** What the upgrade was to run, in order. */
  readonly path: readonly AlembicRevision[];
  /** The revisions it was to lead to: one a branch. */
  readonly targets: readonly string[];
  readonly current: DatabaseState;
  /** The states seen between two revisions, when everything before was committed and nothing after had begun. */
  readonly boundaries: readonly DatabaseState[];
  /** Has the first revision perhaps been begun? */
  readonly begun: boolean;
}

export type Reconciliation =
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'fully-applied' }
  | {
      readonly kind: 'partly-applied';
      /** Revisions of the path that are applied, in order. */
      readonly revisions: readonly string[];
      /** Revisions of the path that are still to run. */
      readonly remaining: readonly string[];
      /** `yes`: nothing but these revisions; the upgrade can be resumed or undone from here. `no`: leftovers beside them. */
      readonly clean: 'yes' | 'no' | 'unknown';
      readonly why: string;
    }
  | { readonly kind: 'foreign'; readonly why: string };

/**
 * What an upgrade that did not end well has left, judged from the database alone: no exit code, no log line.
 *
 * | version rows | objects | verdict |
 * |---|---|---|
 * | those of the start | as at the start | `unchanged`; once begun, unknown if the first revision may change rows outside its transaction |
 * | those of the start | changed | `partly-applied`, not clean; `foreign` when nothing was to run |
 * | those of the target | any | `fully-applied` |
 * | between two revisions | as recorded at this boundary | `partly-applied`, clean; unknown if the next revision may change rows outside its transaction |
 * | between two revisions | other than recorded | `partly-applied`, not clean |
 * | between two revisions, no record | any | clean if the next revision runs in its transaction, otherwise unknown |
 * | none of the path | any | `foreign`; where the service's command hides its revisions, `partly-applied`, unknown |
 */
export function reconcile({ start, path, targets, current, boundaries, begun }: ReconcileInput): Reconciliation {
  if (sameRows(current.rows, start.rows)) return atStart(start, path, current, begun);
  if (path.some(isHidden)) return alongHidden(path, targets, current);
  const along = rowsAlongPath(start.rows, path);
  const applied = along.findIndex((rows) => sameRows(rows, current.rows)) + 1;
  if (applied === 0) {
    return {
      kind: 'foreign',
      why: `the version rows are ${describe(current.rows)}, which no part of this upgrade from ${describe(start.rows)} leads to`,
    };
  }
  if (applied === path.length) return { kind: 'fully-applied' };
  return {
    kind: 'partly-applied',
    revisions: path.slice(0, applied).map(({ revision }) => revision),
    remaining: path.slice(applied).map(({ revision }) => revision),
    ...judgeBetween(current, boundaries, path[applied] as AlembicRevision),
  };
}

/** The version rows that the whole path leads to. */
export const rowsAtTarget = (
  startRows: readonly string[],
  { path, targetRevisions }: { readonly path: readonly AlembicRevision[]; readonly targetRevisions: readonly string[] },
): readonly string[] =>
  path.some(isHidden) ? [...targetRevisions].sort() : (rowsAlongPath(startRows, path).at(-1) ?? startRows);

function alongHidden(
  path: readonly AlembicRevision[],
  targets: readonly string[],
  current: DatabaseState,
): Reconciliation {
  if (sameRows(current.rows, targets)) return { kind: 'fully-applied' };
  return {
    kind: 'partly-applied',
    revisions: [],
    remaining: path.map(({ revision }) => revision),
    clean: 'unknown',
    why: `the version rows are ${describe(current.rows)}, and the service's command hides which revisions lead to ${describe(targets)}`,
  };
}

function atStart(
  start: DatabaseState,
  path: readonly AlembicRevision[],
  current: DatabaseState,
  begun: boolean,
): Reconciliation {
  if (current.objectMapDigest === start.objectMapDigest) {
    const [first] = path;
    if (!begun || first?.outsideTransaction !== 'anything') return { kind: 'unchanged' };
    return {
      kind: 'partly-applied',
      revisions: [],
      remaining: path.map(({ revision }) => revision),
      clean: 'unknown',
      why: rowsUnknown(first),
    };
  }
  if (path.length === 0) {
    return { kind: 'foreign', why: 'objects changed although there was no revision to run' };
  }
  return {
    kind: 'partly-applied',
    revisions: [],
    remaining: path.map(({ revision }) => revision),
    clean: 'no',
    why: `the version rows are those of the start, but objects changed: revision ${path[0]?.revision ?? ''} has committed a part of itself, or somebody else changed them`,
  };
}

function judgeBetween(
  current: DatabaseState,
  boundaries: readonly DatabaseState[],
  next: AlembicRevision,
): { readonly clean: 'yes' | 'no' | 'unknown'; readonly why: string } {
  const recorded = boundaries.findLast((boundary) => sameRows(boundary.rows, current.rows));
  if (recorded !== undefined) {
    if (recorded.objectMapDigest === current.objectMapDigest && next.outsideTransaction === 'anything') {
      return { clean: 'unknown', why: rowsUnknown(next) };
    }
    return recorded.objectMapDigest === current.objectMapDigest
      ? { clean: 'yes', why: `the objects are those recorded before revision ${next.revision}` }
      : { clean: 'no', why: `the objects differ from those recorded before revision ${next.revision}` };
  }
  return next.transactional === 'yes'
    ? { clean: 'yes', why: `revision ${next.revision} runs in one transaction, so a failure took all of it back` }
    : {
        clean: 'unknown',
        why: `nothing was recorded before revision ${next.revision}, which ${next.transactional === 'no' ? 'commits in its middle' : 'may commit in its middle'}`,
      };
}

const rowsUnknown = ({ revision }: AlembicRevision): string =>
  `the objects are as before revision ${revision}, but it may have changed rows outside its transaction`;

function sameRows(a: readonly string[], b: readonly string[]): boolean {
  const rows = new Set(a);
  return rows.size === new Set(b).size && b.every((row) => rows.has(row));
}

function describe(rows: readonly string[]): string {
  return rows.length === 0 ? 'none' : rows.join(', ');
}
