import { describe, expect, test } from 'vitest';
import {
  type DatabaseState,
  reconcile as reconcileTowards,
  type ReconcileInput,
  rowsAtTarget,
} from '../../src/alembic/reconcile.ts';
import { hiddenGraph } from '../../src/alembic/hidden-graph.ts';
import type { AlembicRevision } from '../../src/contract/graph.ts';

function revision(
  id: string,
  downRevisions: readonly string[],
  transactional: AlembicRevision['transactional'] = 'yes',
): AlembicRevision {
  return {
    revision: id,
    downRevisions,
    dependsOn: [],
    branchLabels: [],
    file: `${id}.py`,
    sha256: '',
    doc: '',
    transactional,
    outsideTransaction: transactional === 'yes' ? 'nothing' : 'indexes',
    downgradeTransactional: 'yes' as const,
    downgrade: 'present',
    operations: [],
  };
}

const reconcile = (input: Omit<ReconcileInput, 'targets'>) =>
  reconcileTowards({ ...input, targets: input.path.slice(-1).map((last) => last.revision) });

const start: DatabaseState = { rows: ['r0'], objectMapDigest: 'd0' };
const path = [
  revision('r1', ['r0']),
  revision('r2', ['r1'], 'no'),
  revision('r3', ['r2']),
  revision('r4', ['r3'], 'unknown'),
];
const judge = (rows: readonly string[], objectMapDigest: string, boundaries: readonly DatabaseState[] = []) =>
  reconcile({ start, path, current: { rows, objectMapDigest }, boundaries, begun: true });

describe('what an upgrade has left', () => {
  test('rows and objects of the start: unchanged', () => {
    expect(judge(['r0'], 'd0')).toEqual({ kind: 'unchanged' });
  });

  test('rows and objects of the start, but the first revision may have changed rows by itself: unknown once begun', () => {
    const careless = [{ ...revision('r1', ['r0'], 'no'), outsideTransaction: 'anything' } as const];
    const input = { start, path: careless, current: start, boundaries: [] };
    expect(reconcile({ ...input, begun: false })).toEqual({ kind: 'unchanged' });
    expect(reconcile({ ...input, begun: true })).toMatchObject({ kind: 'partly-applied', clean: 'unknown' });
  });

  test('as recorded between two revisions, but the next may have changed rows by itself: unknown', () => {
    const careless = [
      revision('r1', ['r0']),
      { ...revision('r2', ['r1'], 'no'), outsideTransaction: 'anything' } as const,
    ];
    const current = { rows: ['r1'], objectMapDigest: 'd1' };
    expect(reconcile({ start, path: careless, current, boundaries: [current], begun: true })).toMatchObject({
      kind: 'partly-applied',
      clean: 'unknown',
    });
  });

  test('rows of the start but other objects: partly applied, not clean', () => {
    expect(judge(['r0'], 'dx')).toMatchObject({
      kind: 'partly-applied',
      revisions: [],
      remaining: ['r1', 'r2', 'r3', 'r4'],
      clean: 'no',
    });
  });

  test('rows of the target: fully applied', () => {
    expect(judge(['r4'], 'any')).toEqual({ kind: 'fully-applied' });
  });

  test('between two revisions with the objects recorded there: clean', () => {
    expect(judge(['r1'], 'd1', [{ rows: ['r1'], objectMapDigest: 'd1' }])).toMatchObject({
      kind: 'partly-applied',
      revisions: ['r1'],
      remaining: ['r2', 'r3', 'r4'],
      clean: 'yes',
    });
  });

  test('between two revisions with other objects than recorded there: not clean', () => {
    expect(judge(['r1'], 'd1 and half of r2', [{ rows: ['r1'], objectMapDigest: 'd1' }])).toMatchObject({
      clean: 'no',
    });
  });

  test('a later record of the same boundary replaces an earlier one', () => {
    const boundaries = [
      { rows: ['r1'], objectMapDigest: 'of a first attempt' },
      { rows: ['r1'], objectMapDigest: 'd1' },
    ];
    expect(judge(['r1'], 'd1', boundaries)).toMatchObject({ clean: 'yes' });
  });

  test('a record of another boundary says nothing', () => {
    expect(judge(['r1'], 'dx', [{ rows: ['r2'], objectMapDigest: 'd2' }])).toMatchObject({ clean: 'unknown' });
  });

  test.each([
    ['runs in its transaction', ['r2'], 'yes'],
    ['commits in its middle', ['r1'], 'no'],
    ['may commit in its middle', ['r3'], 'unknown'],
  ] as const)('between two revisions without a record, the next of which %s', (_case, rows, transactional) => {
    expect(judge(rows, 'dx')).toMatchObject({
      kind: 'partly-applied',
      clean: transactional === 'yes' ? 'yes' : 'unknown',
    });
  });

  test.each([
    ['a revision nobody knows', ['zz']],
    ['no version row at all', []],
    ['a row beside the path', ['r1', 'zz']],
  ])('%s: foreign', (_case, rows) => {
    expect(judge(rows, 'd0')).toMatchObject({ kind: 'foreign' });
  });

  test('nothing to run and objects changed: foreign', () => {
    expect(
      reconcile({ start, path: [], current: { rows: ['r0'], objectMapDigest: 'dx' }, boundaries: [], begun: true }),
    ).toMatchObject({
      kind: 'foreign',
    });
  });

  test('an empty database is at its start without version rows', () => {
    const fromNothing = {
      start: { rows: [], objectMapDigest: 'empty' },
      path: [revision('r0', [])],
      boundaries: [],
      begun: true,
    };
    expect(reconcile({ ...fromNothing, current: { rows: [], objectMapDigest: 'empty' } })).toEqual({
      kind: 'unchanged',
    });
    expect(reconcile({ ...fromNothing, current: { rows: ['r0'], objectMapDigest: 'x' } })).toEqual({
      kind: 'fully-applied',
    });
  });

  test('several rows are followed through a merge, in whatever order they are read', () => {
    const merge = {
      start: { rows: ['a1', 'b1'], objectMapDigest: 'd0' },
      path: [revision('b2', ['b1']), revision('m1', ['a1', 'b2'])],
      boundaries: [],
      begun: true,
    };
    expect(reconcile({ ...merge, current: { rows: ['b1', 'a1'], objectMapDigest: 'd0' } })).toEqual({
      kind: 'unchanged',
    });
    expect(reconcile({ ...merge, current: { rows: ['b2', 'a1'], objectMapDigest: 'd1' } })).toMatchObject({
      kind: 'partly-applied',
      revisions: ['b2'],
    });
    expect(reconcile({ ...merge, current: { rows: ['m1'], objectMapDigest: 'd2' } })).toEqual({
      kind: 'fully-applied',
    });
    expect(reconcile({ ...merge, current: { rows: ['a1'], objectMapDigest: 'd2' } })).toMatchObject({
      kind: 'foreign',
    });
  });
});

describe('an upgrade whose revisions the service’s command hides', () => {
  const hidden: readonly AlembicRevision[] = [...hiddenGraph(['r9']).revisions];
  const at = (rows: readonly string[], targets: readonly string[] = ['r9']) =>
    reconcileTowards({
      start,
      path: hidden,
      targets,
      current: { rows, objectMapDigest: 'dx' },
      boundaries: [],
      begun: true,
    });

  test('is complete at the version rows that were asked for', () => {
    expect(at(['r9'])).toEqual({ kind: 'fully-applied' });
    expect(at(['b9', 'r9'], ['r9', 'b9'])).toEqual({ kind: 'fully-applied' });
    expect(rowsAtTarget(['r0'], { path: hidden, targetRevisions: ['r9', 'b9'] })).toEqual(['b9', 'r9']);
  });

  test('is partly applied, and nobody knows how, at any other rows', () => {
    expect(at(['r4'])).toMatchObject({ kind: 'partly-applied', revisions: [], remaining: ['r9'], clean: 'unknown' });
    expect(at(['r9'], ['r9', 'b9'])).toMatchObject({ kind: 'partly-applied', clean: 'unknown' });
  });
});
