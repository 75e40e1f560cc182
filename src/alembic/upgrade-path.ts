import { type AlembicGraph, type AlembicRevision, ancestorsOf, parentsOf, revisionsById } from './graph.ts';

/**
 * The revisions that `alembic upgrade target` runs in a database with these version rows, in Alembic's own order.
 * @throws RangeError for a version row or a target that the graph does not know
 */
export function upgradePath(
  graph: AlembicGraph,
  currentRevisions: readonly string[],
  target: string,
): readonly AlembicRevision[] {
  const byId = revisionsById(graph);
  for (const id of [...currentRevisions, target]) {
    if (!byId.has(id)) throw new RangeError(`the graph has no revision ${id}`);
  }
  const applied = ancestorsOf(graph, currentRevisions);
  const needed = new Set([...ancestorsOf(graph, [target])].filter((id) => !applied.has(id)));
  return newestFirst(graph, needed, target)
    .reverse()
    .flatMap((id) => byId.get(id) ?? []);
}

/** The path of several upgrades, one after the other. @throws RangeError as `upgradePath` */
export function upgradePaths(
  graph: AlembicGraph,
  currentRevisions: readonly string[],
  targets: readonly string[],
): readonly AlembicRevision[] {
  const path: AlembicRevision[] = [];
  for (const target of targets) {
    path.push(...upgradePath(graph, rowsAlongPath(currentRevisions, path).at(-1) ?? currentRevisions, target));
  }
  return path;
}

/** The version rows after each revision of a path, from the rows before it. */
export function rowsAlongPath(
  startRows: readonly string[],
  path: readonly AlembicRevision[],
): readonly (readonly string[])[] {
  const rows = new Set(startRows);
  return path.map((revision) => {
    for (const parent of parentsOf(revision)) rows.delete(parent);
    rows.add(revision.revision);
    return [...rows].sort();
  });
}

/**
 * Alembic's topological sort (`RevisionMap._topological_sort`), whose choice among several possible orders decides at
 * which version rows a failed upgrade can stop: one branch is followed down as long as no other builds upon it.
 */
function newestFirst(graph: AlembicGraph, revisions: ReadonlySet<string>, head: string): string[] {
  const byId = revisionsById(graph);
  const todo = new Set(revisions);
  const heads = todo.has(head) ? [head] : [];
  const ancestors = heads.map((id) => new Set(ancestorsOf(graph, [id])));
  const sorted: string[] = [];
  let current = 0;
  while (heads.length > 0) {
    const candidate = heads[current] as string;
    const dependent = ancestors.findIndex((known, index) => index !== current && known.has(candidate));
    if (dependent >= 0) {
      current = dependent;
      continue;
    }
    if (todo.delete(candidate)) sorted.push(candidate);
    const revision = byId.get(candidate) as AlembicRevision;
    const [next, ...others] = parentsOf(revision).filter((id) => todo.has(id) && !heads.includes(id));
    if (next === undefined) {
      heads.splice(current, 1);
      ancestors.splice(current, 1);
      current = Math.max(current - 1, 0);
      continue;
    }
    heads[current] = next;
    heads.push(...others);
    ancestors[current] = new Set(ancestorsOf(graph, [next]));
    ancestors.push(...others.map((id) => new Set(ancestorsOf(graph, [id]))));
  }
  return sorted;
}
