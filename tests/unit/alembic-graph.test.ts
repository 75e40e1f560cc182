import { describe, expect, test } from 'vitest';
import { downgradePlan } from '../../src/alembic/downgrade-plan.ts';
import { overlappingRows, resolveTarget, unknownRevisions } from '../../src/alembic/graph.ts';
import { hiddenGraph, hiddenUnknowns, isHiddenGraph, printedHeads } from '../../src/alembic/hidden-graph.ts';
import { rowsAlongPath, upgradePath, upgradePaths } from '../../src/alembic/upgrade-path.ts';
import type { AlembicGraph, AlembicRevision } from '../../src/contract/graph.ts';

type Sketch = Partial<Omit<AlembicRevision, 'revision'>>;

function graphOf(sketch: Readonly<Record<string, Sketch>>): AlembicGraph {
  const revisions = Object.entries(sketch).map(([revision, given]) => ({
    revision,
    downRevisions: [],
    dependsOn: [],
    branchLabels: [],
    file: `versions/${revision}.py`,
    sha256: '',
    doc: '',
    transactional: 'yes' as const,
    outsideTransaction: 'nothing' as const,
    downgradeTransactional: 'yes' as const,
    downgrade: 'present' as const,
    operations: [],
    ...given,
  }));
  const built = new Set(revisions.flatMap(({ downRevisions }) => downRevisions));
  return {
    alembic: '1.20.1',
    sqlalchemy: '2.1.9',
    python: '3.11.7',
    heads: revisions.map(({ revision }) => revision).filter((id) => !built.has(id)),
    bases: revisions.filter(({ downRevisions }) => downRevisions.length === 0).map(({ revision }) => revision),
    revisions,
  };
}

const linear = graphOf({
  ae1027a6acf: {},
  ae2b4c1d000: { downRevisions: ['ae1027a6acf'] },
  '3d5f.user-table': { downRevisions: ['ae2b4c1d000'] },
});
const branches = graphOf({
  r0: {},
  a1: { downRevisions: ['r0'], branchLabels: ['app'] },
  b1: { downRevisions: ['r0'], branchLabels: ['audit'] },
});
const merged = graphOf({
  r0: {},
  a1: { downRevisions: ['r0'] },
  b1: { downRevisions: ['r0'] },
  m1: { downRevisions: ['a1', 'b1'] },
});
const commandsOf = (graph: AlembicGraph, from: readonly string[], to: readonly string[]) => {
  const plan = downgradePlan(graph, from, to);
  return plan.kind === 'planned' ? plan.commands.map(({ argument }) => argument) : plan;
};

describe('a target', () => {
  test.each([
    ['head', '3d5f.user-table'],
    ['heads', '3d5f.user-table'],
    ['ae2b4c1d000', 'ae2b4c1d000'],
    ['ae2b4', 'ae2b4c1d000'],
    ['3d5f.user-table', '3d5f.user-table'],
  ])('%s of a line is revision %s', (target, revision) => {
    expect(resolveTarget(linear, target)).toEqual({ kind: 'resolved', revisions: [revision] });
  });

  test('head of several is refused, naming each and what to do', () => {
    const refusal = resolveTarget(branches, 'head');
    expect(refusal).toMatchObject({ kind: 'refused', reason: 'several-heads' });
    expect(refusal).toMatchObject({
      message: expect.stringMatching(/2 heads: a1 \(app\), b1 \(audit\).*label@head.*merge/),
    });
  });

  test('a branch is named by its label', () => {
    expect(resolveTarget(branches, 'audit@head')).toEqual({ kind: 'resolved', revisions: ['b1'] });
    expect(resolveTarget(branches, 'audit@b1')).toEqual({ kind: 'resolved', revisions: ['b1'] });
    expect(resolveTarget(branches, 'audit@a1')).toMatchObject({ kind: 'refused', reason: 'unknown' });
    expect(resolveTarget(branches, 'nothing@head')).toMatchObject({ kind: 'refused', reason: 'unknown' });
  });

  test.each([
    ['heads', ['a1', 'b1']],
    ['a1,b1', ['a1', 'b1']],
    ['b1, app@head', ['b1', 'a1']],
    ['r0,b1', ['b1']],
    ['audit@heads', ['b1']],
    ['a1,a1', ['a1']],
  ])('%s names one revision a branch', (target, revisions) => {
    expect(resolveTarget(branches, target)).toEqual({ kind: 'resolved', revisions });
  });

  test('of several is refused where one of them is, saying which', () => {
    expect(resolveTarget(branches, 'a1,gone')).toMatchObject({
      kind: 'refused',
      reason: 'unknown',
      message: expect.stringContaining('"gone"'),
    });
    expect(resolveTarget(branches, 'a1,head')).toMatchObject({ kind: 'refused', reason: 'several-heads' });
  });

  test('heads leaves out a head that another depends on: it comes with that one', () => {
    const graph = graphOf({ q1: {}, r1: {}, r2: { downRevisions: ['r1'], dependsOn: ['q1'] } });
    expect(graph.heads).toEqual(['q1', 'r2']);
    expect(resolveTarget(graph, 'heads')).toEqual({ kind: 'resolved', revisions: ['r2'] });
  });

  test('by the label of a branch with several heads is refused, or all of them', () => {
    const graph = graphOf({
      r0: { branchLabels: ['app'] },
      a1: { downRevisions: ['r0'], branchLabels: ['app'] },
      b1: { downRevisions: ['r0'], branchLabels: ['app'] },
    });
    expect(resolveTarget(graph, 'app@head')).toMatchObject({ reason: 'several-heads' });
    expect(resolveTarget(graph, 'app@heads')).toEqual({ kind: 'resolved', revisions: ['a1', 'b1'] });
  });

  test.each([
    ['no-such-revision', 'unknown'],
    ['', 'unknown'],
    ['ae', 'unknown'],
    ['ae10+1', 'relative'],
    ['+1', 'relative'],
    ['-1', 'relative'],
  ])('"%s" is refused as %s', (target, reason) => {
    expect(resolveTarget(linear, target)).toMatchObject({ kind: 'refused', reason });
  });

  test('an abbreviation of several revisions is refused', () => {
    const graph = graphOf({ abcd1: {}, abcd2: { downRevisions: ['abcd1'] } });
    expect(resolveTarget(graph, 'abcd')).toMatchObject({ kind: 'refused', reason: 'ambiguous' });
  });

  test('in a graph without revisions is refused', () => {
    expect(resolveTarget(graphOf({}), 'head')).toMatchObject({ kind: 'refused', reason: 'no-revisions' });
  });
});

describe('an upgrade path', () => {
  const path = (graph: AlembicGraph, rows: readonly string[], target: string) =>
    upgradePath(graph, rows, target).map(({ revision }) => revision);

  test('leads from where the database is to the target', () => {
    expect(path(linear, [], '3d5f.user-table')).toEqual(['ae1027a6acf', 'ae2b4c1d000', '3d5f.user-table']);
    expect(path(linear, ['ae1027a6acf'], 'ae2b4c1d000')).toEqual(['ae2b4c1d000']);
    expect(path(linear, ['3d5f.user-table'], '3d5f.user-table')).toEqual([]);
  });

  test('includes what a revision depends on', () => {
    const graph = graphOf({ q1: {}, r0: {}, r1: { downRevisions: ['r0'], dependsOn: ['q1'] } });
    expect(new Set(path(graph, ['r0'], 'r1'))).toEqual(new Set(['q1', 'r1']));
    expect(path(graph, ['r0'], 'r1').at(-1)).toBe('r1');
  });

  test('to several targets is one upgrade after the other', () => {
    const graph = graphOf({
      r0: {},
      a1: { downRevisions: ['r0'] },
      a2: { downRevisions: ['a1'], dependsOn: ['b1'] },
      b1: { downRevisions: ['r0'] },
      b2: { downRevisions: ['b1'] },
    });
    const both = upgradePaths(graph, ['r0'], ['a2', 'b2']);
    expect(both.map(({ revision }) => revision)).toEqual(['b1', 'a1', 'a2', 'b2']);
    expect(rowsAlongPath(['r0'], both).at(-1)).toEqual(['a2', 'b2']);
    expect(upgradePaths(graph, ['a1'], ['a2', 'b2']).map(({ revision }) => revision)).toEqual(['b1', 'a2', 'b2']);
  });

  test('is not begun from rows that build upon each other', () => {
    expect(overlappingRows(linear, ['ae1027a6acf', '3d5f.user-table'])).toEqual(['ae1027a6acf']);
    expect(overlappingRows(branches, ['a1', 'b1'])).toEqual([]);
  });

  test('is not made up for a version row the release does not know', () => {
    expect(unknownRevisions(linear, ['ae1027a6acf', 'gone'])).toEqual(['gone']);
    expect(() => path(linear, ['gone'], 'ae2b4c1d000')).toThrow(RangeError);
  });
});

describe('a downgrade plan', () => {
  test('of a line is one revision, however many steps it is', () => {
    expect(commandsOf(linear, ['3d5f.user-table'], ['ae1027a6acf'])).toEqual(['ae1027a6acf']);
  });

  test('to an empty database is base', () => {
    expect(commandsOf(linear, ['3d5f.user-table'], [])).toEqual(['base']);
  });

  test('is empty when there is nothing to undo', () => {
    expect(commandsOf(linear, ['ae1027a6acf'], ['ae1027a6acf'])).toEqual([]);
  });

  test('through a merge names the rows that were there before it', () => {
    expect(commandsOf(merged, ['m1'], ['a1', 'b1'])).toEqual(['a1']);
    expect(commandsOf(merged, ['m1'], ['r0'])).toEqual(['r0']);
  });

  test('undoes one branch below a merge and leaves the other', () => {
    const plan = downgradePlan(merged, ['m1'], ['a1']);
    expect(plan).toMatchObject({ kind: 'planned' });
    expect(commandsOf(merged, ['m1'], ['a1'])).toEqual(['b1@r0']);
  });

  test('undoes one of two branches', () => {
    expect(commandsOf(merged, ['a1', 'b1'], ['a1'])).toEqual(['b1@r0']);
  });

  test('calls a branch by its label where that means this branch only', () => {
    expect(commandsOf(branches, ['a1', 'b1'], ['a1'])).toEqual(['audit@r0']);
    const labelled = (b1: string, c1: string) =>
      graphOf({
        r0: { branchLabels: [c1] },
        b1: { downRevisions: ['r0'], branchLabels: [b1] },
        c1: { downRevisions: ['r0'], branchLabels: [c1] },
      });
    // Declared below the branch point, where it means every branch; and one that reads as a relative revision.
    expect(commandsOf(labelled('all', 'all'), ['b1', 'c1'], ['c1'])).toEqual(['b1@r0']);
    expect(commandsOf(labelled('release-2', 'x'), ['b1', 'c1'], ['c1'])).toEqual(['b1@r0']);
  });

  test('undoes a root that the release added', () => {
    const graph = graphOf({ a1: {}, q1: {}, q2: { downRevisions: ['q1'] } });
    expect(commandsOf(graph, ['a1', 'q2'], ['a1'])).toEqual(['q1@base']);
  });

  test('says what the version rows are after each command', () => {
    const graph = graphOf({
      a0: {},
      a1: { downRevisions: ['a0'] },
      b0: {},
      b1: { downRevisions: ['b0'] },
    });
    expect(downgradePlan(graph, ['b1', 'a1'], ['a0', 'b0'])).toEqual({
      kind: 'planned',
      commands: [
        { argument: 'a0', undoes: ['a1'], rowsAfter: ['a0', 'b1'] },
        { argument: 'b0', undoes: ['b1'], rowsAfter: ['a0', 'b0'] },
      ],
    });
  });

  test.each([
    ['absent', 'has no downgrade'],
    ['raises', 'always raises'],
  ] as const)('is refused where a downgrade is known to fail: %s', (downgrade, why) => {
    const graph = graphOf({ r0: {}, r1: { downRevisions: ['r0'], downgrade } });
    expect(downgradePlan(graph, ['r1'], ['r0'])).toMatchObject({
      kind: 'impossible',
      reason: 'no-downgrade',
      why: expect.stringContaining(`r1 (versions/r1.py)`),
    });
    expect(downgradePlan(graph, ['r1'], ['r0'])).toMatchObject({ why: expect.stringContaining(why) });
  });

  test('is refused where the start is not below', () => {
    expect(commandsOf(branches, ['a1'], ['b1'])).toMatchObject({ kind: 'impossible', reason: 'not-below' });
    expect(commandsOf(linear, ['gone'], ['ae1027a6acf'])).toMatchObject({
      kind: 'impossible',
      reason: 'unknown-revision',
    });
  });
});

describe('a graph hidden by a command', () => {
  test.each([
    [['ae1027a6acf (head)'], ['ae1027a6acf']],
    [
      ['INFO  [app] ready', 'a1 (app) (head)', 'b.1 (effective head)'],
      ['a1', 'b.1'],
    ],
    [['Rev: ae1027a6acf (head)', 'Parent: 12ab', 'Path: /x/y.py'], ['ae1027a6acf']],
    [['Loading the application ...', 'ae1027a6acf', ''], ['ae1027a6acf']],
    [['nothing to see here'], []],
  ])('has the heads that are printed: %j', (lines, heads) => {
    expect(printedHeads(lines)).toEqual(heads);
  });

  test('is one revision of which only the id is known, and says what that means', () => {
    const graph = hiddenGraph(['r9']);
    expect(isHiddenGraph(graph)).toBe(true);
    expect(isHiddenGraph(linear)).toBe(false);
    expect(resolveTarget(graph, 'head')).toEqual({ kind: 'resolved', revisions: ['r9'] });
    expect(graph.revisions).toMatchObject([
      { revision: 'r9', sha256: '', transactional: 'unknown', outsideTransaction: 'anything', operations: [] },
    ]);
    expect(hiddenUnknowns(['r1'], ['r9']).join(' ')).toMatch(/between r1 and r9.*downgrade.*digest/);
  });

  test('is undone by naming every revision of the start; the rows between are not known', () => {
    const graph = hiddenGraph(['r9']);
    const plan = (to: readonly string[]) => downgradePlan(graph, ['r9'], to);
    expect(plan(['r1'])).toEqual({
      kind: 'planned',
      commands: [{ argument: 'r1', undoes: ['r9'], rowsAfter: ['r1'] }],
    });
    expect(plan([])).toMatchObject({ commands: [{ argument: 'base', rowsAfter: [] }] });
    expect(plan(['b1', 'a1'])).toMatchObject({
      commands: [
        { argument: 'a1', rowsAfter: null },
        { argument: 'b1', rowsAfter: ['a1', 'b1'] },
      ],
    });
    expect(plan(['r9'])).toEqual({ kind: 'planned', commands: [] });
  });
});
