import type { AlembicGraph, AlembicRevision } from '../contract/graph.ts';

/** File of a revision of which nothing is known but its id, because the service's command hides its migrations. */
export const HIDDEN_FILE = "(hidden by the service's command)";

/** Whether nothing is known of a revision but its id. Further revisions may lie below it. */
export const isHidden = ({ file }: Pick<AlembicRevision, 'file'>): boolean => file === HIDDEN_FILE;

/** Whether a graph was made from the heads that a command prints, because nothing more was to be had. */
export const isHiddenGraph = ({ revisions }: AlembicGraph): boolean => revisions.some(isHidden);

/** The graph of which only the heads are known. */
export function hiddenGraph(heads: readonly string[]): AlembicGraph {
  return {
    alembic: 'unknown',
    sqlalchemy: 'unknown',
    python: 'unknown',
    heads: [...heads].sort(),
    bases: [],
    revisions: heads.map((revision) => ({
      revision,
      downRevisions: [],
      dependsOn: [],
      branchLabels: [],
      file: HIDDEN_FILE,
      sha256: '',
      doc: '',
      transactional: 'unknown',
      outsideTransaction: 'anything',
      downgradeTransactional: 'unknown',
      downgrade: 'present',
      operations: [],
    })),
  };
}

const announcedHead = /(?:^|\s)([^\s()@]+)(?:\s+\([^()]*\))*\s+\((?:effective )?head\)/;

/**
 * The heads in what a command prints: ids followed by `(head)`, as `alembic heads` has them, or else every line that is one
 * word.
 */
export function printedHeads(lines: readonly string[]): readonly string[] {
  const announced = lines.flatMap((line) => announcedHead.exec(line)?.[1] ?? []);
  if (announced.length > 0) return [...new Set(announced)];
  return [...new Set(lines.map((line) => line.trim()).filter((line) => /^[\w.]{1,128}$/.test(line)))];
}

/** What cannot be known of a hidden graph, in words for the plan. */
export function hiddenUnknowns(startRevisions: readonly string[], targets: readonly string[]): readonly string[] {
  const from = startRevisions.join(', ') || 'the empty database';
  return [
    `which revisions lie between ${from} and ${targets.join(', ')}, and in what order: the service's command tells its heads only`,
    'whether those revisions have downgrades, and whether they commit in their middle: only the rehearsal shows it',
    'digests of the migration files: the plan is bound to them by the commit alone',
  ];
}
