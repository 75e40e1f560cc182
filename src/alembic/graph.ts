import type { AlembicGraph, AlembicRevision } from '../contract/graph.ts';

export type { AlembicGraph, AlembicRevision } from '../contract/graph.ts';

/** The revisions that a target names, one a branch, or why it names none. */
export type TargetResolution =
  | { readonly kind: 'resolved'; readonly revisions: readonly string[] }
  | {
      readonly kind: 'refused';
      readonly reason: 'no-revisions' | 'several-heads' | 'unknown' | 'ambiguous' | 'relative';
      readonly message: string;
    };

const shortestAbbreviation = 4;
const shownNames = 10;

/**
 * Resolves `head`, `heads`, a revision (whole, or an unambiguous beginning of 4 or more characters), `label@head`,
 * `label@heads`, `label@revision`, and several of these with commas between them. Relative targets (`+1`) are refused: what
 * they mean depends on where the database is.
 *
 * Of the result no revision builds upon another, so upgrading to one after the other goes through all; the order is that
 * in which they were named, for `heads` that of the graph.
 */
export function resolveTarget(graph: AlembicGraph, target: string): TargetResolution {
  if (graph.revisions.length === 0) {
    return refuse('no-revisions', 'the migration graph has no revisions: check script_location and version_locations');
  }
  const parts = revisionsById(graph).has(target) ? [target] : target.split(',').map((part) => part.trim());
  const named: string[] = [];
  for (const part of parts) {
    const resolved = resolvePart(graph, part);
    if (resolved.kind === 'refused') return resolved;
    named.push(...resolved.revisions);
  }
  return { kind: 'resolved', revisions: withoutAncestors(graph, [...new Set(named)]) };
}

/** Those of the revisions upon which none of the others builds: the others come with them. */
function withoutAncestors(graph: AlembicGraph, revisions: readonly string[]): readonly string[] {
  return revisions.filter((id) => !revisions.some((other) => other !== id && ancestorsOf(graph, [other]).has(id)));
}

function resolvePart(graph: AlembicGraph, target: string): TargetResolution {
  if (revisionsById(graph).has(target)) return { kind: 'resolved', revisions: [target] };
  const at = target.lastIndexOf('@');
  const label = at < 0 ? undefined : target.slice(0, at);
  const symbol = target.slice(at + 1);
  if (/[+-]\d+$/.test(symbol)) return refuse('relative', `"${target}" is relative: name the revision itself`);
  if (symbol === 'head' || symbol === 'heads') return resolveHead(graph, label, symbol);
  return resolveRevision(graph, label, symbol);
}

function resolveHead(graph: AlembicGraph, label: string | undefined, symbol: 'head' | 'heads'): TargetResolution {
  const heads = label === undefined ? graph.heads : headsOfBranch(graph, label);
  if (heads.length === 0) {
    return refuse('unknown', `no head belongs to a branch "${label}"; the heads are ${describeHeads(graph)}`);
  }
  if (symbol === 'heads' || heads.length === 1) return { kind: 'resolved', revisions: heads };
  if (label !== undefined) {
    return refuse(
      'several-heads',
      `the branch "${label}" has ${heads.length} heads: ${heads.join(', ')}. Name one of them, or all as ${label}@heads`,
    );
  }
  return refuse(
    'several-heads',
    `the migration graph has ${heads.length} heads: ${describeHeads(graph)}. Name one of them as the target revision, by ` +
      'its id or as label@head, several with commas between them, or all as heads; or merge them in the release (alembic merge heads)',
  );
}

/** By its label, or by a revision of it. */
function headsOfBranch(graph: AlembicGraph, label: string): readonly string[] {
  const labelled = graph.heads.filter((head) => revisionsById(graph).get(head)?.branchLabels.includes(label) === true);
  return labelled.length > 0 ? labelled : graph.heads.filter((head) => ancestorsOf(graph, [head]).has(label));
}

function resolveRevision(graph: AlembicGraph, label: string | undefined, symbol: string): TargetResolution {
  const byId = revisionsById(graph);
  const found = byId.has(symbol)
    ? [symbol]
    : symbol.length < shortestAbbreviation
      ? []
      : graph.revisions.map(({ revision }) => revision).filter((revision) => revision.startsWith(symbol));
  const [revision, ...others] = found;
  if (revision === undefined) {
    return refuse('unknown', `the release has no revision "${symbol}"; its heads are ${describeHeads(graph)}`);
  }
  if (others.length > 0) {
    return refuse('ambiguous', `"${symbol}" is the beginning of several revisions: ${some(found)}`);
  }
  if (label !== undefined && byId.get(revision)?.branchLabels.includes(label) !== true) {
    return refuse('unknown', `revision ${revision} does not belong to a branch "${label}"`);
  }
  return { kind: 'resolved', revisions: [revision] };
}

function refuse(
  reason: (TargetResolution & { kind: 'refused' })['reason'],
  message: string,
): TargetResolution & { kind: 'refused' } {
  return { kind: 'refused', reason, message };
}

function describeHeads(graph: AlembicGraph): string {
  const byId = revisionsById(graph);
  return some(
    graph.heads.map((head) => {
      const labels = byId.get(head)?.branchLabels ?? [];
      return labels.length === 0 ? head : `${head} (${labels.join(', ')})`;
    }),
  );
}

function some(names: readonly string[]): string {
  const shown = names.slice(0, shownNames).join(', ');
  return names.length > shownNames ? `${shown} and ${names.length - shownNames} more` : shown;
}

/** The version rows that name no revision of the graph: the database was migrated by something else than this release. */
export function unknownRevisions(graph: AlembicGraph, rows: readonly string[]): readonly string[] {
  const byId = revisionsById(graph);
  return rows.filter((row) => !byId.has(row));
}

/**
 * Version rows that others of them build upon. Alembic keeps no such rows and refuses to work with them ("overlaps"):
 * somebody has put them there by hand.
 */
export function overlappingRows(graph: AlembicGraph, rows: readonly string[]): readonly string[] {
  return rows.filter((row) => rows.some((other) => other !== row && ancestorsOf(graph, [other]).has(row)));
}

const indexes = new WeakMap<AlembicGraph, ReadonlyMap<string, AlembicRevision>>();

/** The graph's revisions by their id. */
export function revisionsById(graph: AlembicGraph): ReadonlyMap<string, AlembicRevision> {
  let index = indexes.get(graph);
  if (index === undefined) {
    index = new Map(graph.revisions.map((revision) => [revision.revision, revision]));
    indexes.set(graph, index);
  }
  return index;
}

/** The revisions a revision builds upon directly: what it comes after, and what it depends on. */
export function parentsOf(revision: AlembicRevision): readonly string[] {
  return [...new Set([...revision.downRevisions, ...revision.dependsOn])];
}

/** The given revisions with all they build upon, dependencies included. Unknown ids are left out. */
export function ancestorsOf(graph: AlembicGraph, revisions: Iterable<string>): ReadonlySet<string> {
  const byId = revisionsById(graph);
  const found = new Set<string>();
  const waiting = [...revisions];
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    const revision = byId.get(id);
    if (revision === undefined || found.has(id)) continue;
    found.add(id);
    waiting.push(...parentsOf(revision));
  }
  return found;
}

/** The given revisions with all that builds upon them, dependents included. */
export function descendantsOf(graph: AlembicGraph, revisions: Iterable<string>): ReadonlySet<string> {
  const children = new Map<string, string[]>();
  for (const revision of graph.revisions) {
    for (const parent of parentsOf(revision)) {
      const siblings = children.get(parent);
      if (siblings === undefined) children.set(parent, [revision.revision]);
      else siblings.push(revision.revision);
    }
  }
  const found = new Set<string>();
  const waiting = [...revisions];
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    if (found.has(id)) continue;
    found.add(id);
    waiting.push(...(children.get(id) ?? []));
  }
  return found;
}

/** The version rows of a database in which exactly these revisions are applied: those nothing else builds upon. */
export function versionRowsOf(graph: AlembicGraph, applied: ReadonlySet<string>): readonly string[] {
  const builtUpon = new Set<string>();
  for (const revision of graph.revisions) {
    if (!applied.has(revision.revision)) continue;
    for (const parent of parentsOf(revision)) builtUpon.add(parent);
  }
  return [...applied].filter((id) => !builtUpon.has(id)).sort();
}
