import { isHiddenGraph } from './hidden-graph.ts';
import {
  type AlembicGraph,
  ancestorsOf,
  descendantsOf,
  parentsOf,
  revisionsById,
  unknownRevisions,
  versionRowsOf,
} from './graph.ts';

export interface DowngradeCommand {
  /** What `alembic downgrade` is given: a revision or `base`, with a branch before it where one is meant (`audit@r0`). */
  readonly argument: string;
  /** The revisions it undoes. */
  readonly undoes: readonly string[];
  /** The version rows after it, sorted: compare with the database. Null: they cannot be known, the graph is hidden. */
  readonly rowsAfter: readonly string[] | null;
}

export type DowngradePlan =
  | { readonly kind: 'planned'; readonly commands: readonly DowngradeCommand[] }
  | {
      readonly kind: 'impossible';
      readonly reason: 'unknown-revision' | 'not-below' | 'no-downgrade' | 'ambiguous';
      readonly why: string;
    };

/**
 * The commands that bring version rows `from` back to the rows `to` that were recorded before the upgrade, and undo
 * nothing else. Each is predicted by the rules of `alembic downgrade` (a target undoes what comes after it and all that
 * builds upon that; `branch@target` only the part on that branch) and taken only if every revision it undoes is one
 * that the upgrade added.
 */
export function downgradePlan(graph: AlembicGraph, from: readonly string[], to: readonly string[]): DowngradePlan {
  if (isHiddenGraph(graph)) return hiddenPlan(from, to);
  const unknown = unknownRevisions(graph, [...from, ...to]);
  if (unknown.length > 0)
    return impossible('unknown-revision', `the release does not know revision ${unknown.join(', ')}`);
  const wanted = ancestorsOf(graph, to);
  let applied = ancestorsOf(graph, from);
  const missing = [...wanted].filter((id) => !applied.has(id));
  if (missing.length > 0) {
    return impossible(
      'not-below',
      `${to.join(', ')} is not below ${from.join(', ') || 'base'}: ${missing.join(', ')} is not applied`,
    );
  }
  const broken = irreversible(graph, applied, wanted);
  if (broken !== undefined) return impossible('no-downgrade', broken);

  const twice = redundant(graph, applied, wanted);
  if (twice !== undefined) return impossible('ambiguous', twice);

  const commands: DowngradeCommand[] = [];
  while (applied.size > wanted.size) {
    const command = bestCommand(graph, applied, wanted);
    if (command === undefined) {
      const left = [...applied].filter((id) => !wanted.has(id));
      return impossible('ambiguous', `no downgrade argument undoes ${left.join(', ')} without undoing others`);
    }
    commands.push(command);
    applied = new Set([...applied].filter((id) => !command.undoes.includes(id)));
  }
  return { kind: 'planned', commands };
}

/** Nothing is known of what lies between: every row of the start is named, and the rows are known at the end only. */
function hiddenPlan(from: readonly string[], to: readonly string[]): DowngradePlan {
  if ([...from].sort().join() === [...to].sort().join()) return { kind: 'planned', commands: [] };
  const targets = to.length === 0 ? ['base'] : [...to].sort();
  return {
    kind: 'planned',
    commands: targets.map((argument, index) => ({
      argument,
      undoes: index === 0 ? from.filter((id) => !to.includes(id)) : [],
      rowsAfter: index === targets.length - 1 ? [...to].sort() : null,
    })),
  };
}

function impossible(reason: (DowngradePlan & { kind: 'impossible' })['reason'], why: string): DowngradePlan {
  return { kind: 'impossible', reason, why };
}

function irreversible(
  graph: AlembicGraph,
  applied: ReadonlySet<string>,
  wanted: ReadonlySet<string>,
): string | undefined {
  const byId = revisionsById(graph);
  const reasons = [...applied].flatMap((id) => {
    const revision = byId.get(id);
    if (revision === undefined || wanted.has(id)) return [];
    if (revision.downgrade === 'absent') return [`${id} (${revision.file}) has no downgrade`];
    if (revision.downgrade === 'raises') return [`the downgrade of ${id} (${revision.file}) always raises`];
    return [];
  });
  return reasons.length === 0 ? undefined : reasons.join('; ');
}

/**
 * A revision that comes after, or depends on, another both directly and through a third: undoing it, Alembic may leave a
 * version row too many (seen with 1.8 and 1.20), and then the rows are not those of the start.
 */
function redundant(graph: AlembicGraph, applied: ReadonlySet<string>, wanted: ReadonlySet<string>): string | undefined {
  const byId = revisionsById(graph);
  for (const id of applied) {
    const revision = byId.get(id);
    if (revision === undefined || wanted.has(id)) continue;
    const parents = parentsOf(revision);
    for (const parent of parents) {
      const others = parents.filter((other) => other !== parent);
      if (ancestorsOf(graph, others).has(parent)) {
        return `${id} builds upon ${parent} both directly and through ${others.join(', ')}: which version rows its downgrade leaves differs between versions of Alembic`;
      }
    }
  }
  return undefined;
}

/** The command that undoes the most and nothing wanted; of equals the one that is simplest to read. */
function bestCommand(
  graph: AlembicGraph,
  applied: ReadonlySet<string>,
  wanted: ReadonlySet<string>,
): DowngradeCommand | undefined {
  let best: DowngradeCommand | undefined;
  for (const { argument, undoes } of candidates(graph, applied, wanted)) {
    if (undoes.length === 0 || undoes.some((id) => wanted.has(id))) continue;
    if (best !== undefined && best.undoes.length >= undoes.length) continue;
    const left = new Set([...applied].filter((id) => !undoes.includes(id)));
    best = { argument, undoes: [...undoes].sort(), rowsAfter: versionRowsOf(graph, left) };
  }
  return best;
}

/** From the simplest to the most particular: `base`, a revision, a branch by its first revision. */
function* candidates(
  graph: AlembicGraph,
  applied: ReadonlySet<string>,
  wanted: ReadonlySet<string>,
): Generator<{ readonly argument: string; readonly undoes: readonly string[] }> {
  const targets: readonly (string | undefined)[] = [undefined, ...versionRowsOf(graph, wanted), ...wanted];
  for (const target of targets) {
    yield { argument: target ?? 'base', undoes: undoneBy(graph, applied, target, undefined) };
  }
  for (const branch of applied) {
    if (wanted.has(branch)) continue;
    const downRevisions = revisionsById(graph).get(branch)?.downRevisions ?? [];
    for (const target of downRevisions.length === 0 ? [undefined] : downRevisions) {
      yield {
        argument: `${branchName(graph, branch)}@${target ?? 'base'}`,
        undoes: undoneBy(graph, applied, target, branch),
      };
    }
  }
}

/**
 * How the branch that begins with a revision is called: by a label where one means this branch and no other, as people know
 * it, else by the revision. Alembic passes a label on to what comes after the revision that declares it, and down to the
 * branch point before it; so one that the revision has, and none of those before it, is declared there or further up.
 */
function branchName(graph: AlembicGraph, id: string): string {
  const byId = revisionsById(graph);
  const revision = byId.get(id);
  const before = new Set(revision?.downRevisions.flatMap((parent) => byId.get(parent)?.branchLabels ?? []));
  // Others ("release-2") could be taken for a relative revision.
  return revision?.branchLabels.find((label) => !before.has(label) && /^\w+$/.test(label)) ?? id;
}

/** Alembic's `RevisionMap._collect_downgrade_revisions`, for a target that is a revision or (undefined) `base`. */
function undoneBy(
  graph: AlembicGraph,
  applied: ReadonlySet<string>,
  target: string | undefined,
  branch: string | undefined,
): readonly string[] {
  let roots = graph.revisions
    .filter(({ downRevisions }) => (target === undefined ? downRevisions.length === 0 : downRevisions.includes(target)))
    .map(({ revision }) => revision);
  if (branch !== undefined && roots.length > 1) {
    const line = lineOf(graph, branch);
    roots = roots.filter((root) => line.has(root));
  }
  return [...descendantsOf(graph, roots)].filter((id) => applied.has(id));
}

/** A revision with all it comes after, dependencies left aside. */
function lineOf(graph: AlembicGraph, revision: string): ReadonlySet<string> {
  const byId = revisionsById(graph);
  const line = new Set<string>();
  const waiting = [revision];
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    if (line.has(id)) continue;
    line.add(id);
    waiting.push(...(byId.get(id)?.downRevisions ?? []));
  }
  return line;
}
