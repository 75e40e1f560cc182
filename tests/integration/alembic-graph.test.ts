import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { downgradePlan } from '../../src/alembic/downgrade-plan.ts';
import { GraphUnreadable, readGraph } from '../../src/alembic/read-graph.ts';
import { rowsAlongPath, upgradePath } from '../../src/alembic/upgrade-path.ts';
import type { AlembicGraph, AlembicRevision } from '../../src/contract/graph.ts';
import { ProcessNotStarted } from '../../src/process/errors.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { requireSuccess, runProcess, streamProcess } from '../../src/process/run.ts';
import { createService, type Revision } from '../fixtures/alembic/service.ts';
import { useStack } from '../stack.ts';

const { python } = useStack().venv;

async function graphOf(
  revisions: readonly Revision[],
  prepare?: (root: string) => Promise<void>,
): Promise<AlembicGraph> {
  const { root } = await createService(revisions);
  await prepare?.(root);
  return read(root);
}

const read = (root: string, options: Partial<Parameters<typeof readGraph>[0]> = {}) =>
  readGraph({
    python,
    root,
    directory: root,
    config: 'alembic.ini',
    environment: {},
    signal: new AbortController().signal,
    redactor: createRedactor(['planted-secret']),
    ...options,
  });

describe('the migration graph', () => {
  test('tells versions, heads, bases and each revision', async () => {
    const graph = await graphOf([
      { id: 'r1' },
      { id: 'a1', down: '"r1"', head: 'branch_labels = ("app",)' },
      { id: 'b1', down: '"r1"', head: 'branch_labels = "audit"' },
      { id: 'b2', down: '"b1"', head: 'depends_on = "app"' },
      { id: 'q1' },
    ]);
    expect(graph).toMatchObject({ heads: ['a1', 'b2', 'q1'], bases: ['q1', 'r1'] });
    expect(graph.alembic).toMatch(/^1\.\d+/);
    expect(graph.python).toMatch(/^3\.\d+/);
    const byId = new Map(graph.revisions.map((revision) => [revision.revision, revision]));
    expect(byId.get('b2')).toMatchObject({
      downRevisions: ['b1'],
      dependsOn: ['a1'],
      branchLabels: ['audit'],
      file: 'migrations/versions/b2.py',
      doc: 'Revision b2',
      sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    expect(byId.get('a1')).toMatchObject({ downRevisions: ['r1'], dependsOn: [], branchLabels: ['app'] });
  });

  test('is read without running env.py, and whatever the revision files print', async () => {
    const graph = await graphOf(
      [{ id: 'r1', head: 'import sys\nprint("{}")\nsys.stdout.flush()\nprint("noise", file=sys.stderr)' }],
      (root) => writeFile(join(root, 'migrations', 'env.py'), 'raise RuntimeError("needs a secret")\n'),
    );
    expect(graph.heads).toEqual(['r1']);
  });

  test("does not hide the service's own modules", async () => {
    const graph = await graphOf([{ id: 'r1', head: 'import graph, launch, scan\nassert graph.own' }], async (root) => {
      await writeFile(join(root, 'graph.py'), 'own = True\n');
      await writeFile(join(root, 'launch.py'), '');
      await writeFile(join(root, 'scan.py'), '');
    });
    expect(graph.heads).toEqual(['r1']);
  });

  test('is read whole when it is large', async () => {
    const revisions = Array.from({ length: 400 }, (_, index) => ({
      id: `revision_${index}`,
      ...(index === 0 ? {} : { down: `"revision_${index - 1}"` }),
    }));
    expect((await graphOf(revisions)).revisions).toHaveLength(400);
  });

  test.each([
    [
      'revision that cannot be imported',
      [{ id: 'r1', head: 'import no_such_module_here' }],
      /ModuleNotFoundError.*no_such_module_here/,
    ],
    [
      'revision that exits',
      [{ id: 'r1', head: 'raise SystemExit("no planted-secret")' }],
      /SystemExit: no \[redacted\]/,
    ],
    ['revision that comes after an unknown one', [{ id: 'r1', down: '"gone"' }], /gone/],
  ])('is refused for a %s', async (_case, revisions, message) => {
    const failure = await graphOf(revisions).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(GraphUnreadable);
    expect(String(failure)).toMatch(message);
  });

  test('is refused for a missing configuration, a Python without Alembic, and no Python', async () => {
    const { root } = await createService([{ id: 'r1' }]);
    await expect(read(root, { config: 'other.ini' })).rejects.toThrow('no Alembic configuration at other.ini');
    await expect(read(root, { environment: { PYTHONNOUSERSITE: '1' }, python: await pythonAlone() })).rejects.toThrow(
      /ModuleNotFoundError.*alembic/,
    );
    await expect(read(root, { python: join(root, 'no-python') })).rejects.toBeInstanceOf(ProcessNotStarted);
  });
});

describe('the source of a revision', () => {
  const upgrades: readonly (readonly [name: string, body: string, transactional: string])[] = [
    ['plain operations', 'op.add_column("t", sa.Column("c", sa.Integer()))', 'yes'],
    ['an autocommit block', 'with op.get_context().autocommit_block():\n    op.execute("SELECT 1")', 'no'],
    ['a commit of its session', 'session = sa.orm.Session(op.get_bind())\nsession.commit()', 'no'],
    ['a COMMIT in SQL', 'op.execute("COMMIT")', 'no'],
    ['a concurrent index', 'op.create_index("i", "t", ["c"], postgresql_concurrently=True)', 'no'],
    ['a concurrent index in SQL', 'op.execute("create index concurrently i on t (c)")', 'no'],
    ['a connection of its own', 'sa.create_engine("postgresql://").connect()', 'no'],
    ['an index that is not concurrent', 'op.create_index("i", "t", ["c"], postgresql_concurrently=False)', 'yes'],
    [
      'a function body with BEGIN and END',
      'op.execute("CREATE FUNCTION f() RETURNS int AS $$ BEGIN RETURN 1; END; $$ LANGUAGE plpgsql")',
      'yes',
    ],
    ['a commit in a function it calls', 'helper()', 'no'],
    ['SQL from a file', 'op.execute(open("x.sql").read())', 'unknown'],
    ['code of the service', 'from app.data import backfill\nbackfill(op.get_bind())', 'unknown'],
    ['a column type of the service', 'from app.types import Json\nop.add_column("t", sa.Column("c", Json()))', 'yes'],
  ];
  const outside: Readonly<Record<string, string>> = {
    'a concurrent index': 'indexes',
    'a concurrent index in SQL': 'indexes',
    'an autocommit block': 'anything',
    'SQL from a file': 'anything',
    'plain operations': 'nothing',
  };
  const downgrades: readonly (readonly [name: string, body: string | null, kind: string])[] = [
    ['missing', null, 'absent'],
    ['that does nothing', '"""Nothing."""\npass', 'empty'],
    ['that only returns', 'return None', 'empty'],
    ['that raises', 'raise NotImplementedError("one way")', 'raises'],
    ['that cleans up and raises', 'op.drop_table("t")\nraise RuntimeError()', 'raises'],
    [
      'that raises on a condition',
      'if op.get_bind() is None:\n    raise RuntimeError()\nop.drop_table("t")',
      'present',
    ],
    [
      'that hands on an exception',
      'try:\n    op.drop_table("t")\nexcept Exception:\n    op.execute("SELECT 1")\n    raise',
      'present',
    ],
    ['that works', 'op.drop_table("t")', 'present'],
  ];
  let revisions: ReadonlyMap<string, AlembicRevision>;

  // All of them in one graph: starting Python takes the time.
  beforeAll(async () => {
    const graph = await graphOf([
      ...upgrades.map(([, upgrade], index) => ({
        id: `up${index}`,
        upgrade,
        head: 'def helper():\n    op.get_bind().commit()',
      })),
      ...downgrades.map(([, downgrade], index) => ({ id: `down${index}`, downgrade })),
      { id: 'other', downgrade: 'op.get_bind().commit()' },
    ]);
    revisions = new Map(graph.revisions.map((revision) => [revision.revision, revision]));
  });

  test.each(Object.entries(outside))('%s leaves outside its transaction: %s', (name, left) => {
    const id = `up${upgrades.findIndex(([known]) => known === name)}`;
    expect(revisions.get(id)?.outsideTransaction).toBe(left);
  });

  test.each(upgrades.map(([name, , transactional], index) => [name, transactional, `up${index}`]))(
    'tells whether an upgrade stays in its transaction: %s: %s',
    (_name, transactional, id) => {
      expect(revisions.get(id)?.transactional).toBe(transactional);
    },
  );

  test.each(downgrades.map(([name, , kind], index) => [name, kind, `down${index}`]))(
    'classifies a downgrade %s as %s',
    (_name, kind, id) => {
      expect(revisions.get(id)?.downgrade).toBe(kind);
    },
  );

  test('is judged by its upgrade apart from its downgrade', () => {
    expect(revisions.get('other')).toMatchObject({ transactional: 'yes' });
  });
});

/** The interpreter that the stack's environment was made from. */
async function pythonAlone(): Promise<string> {
  const result = await runProcess({
    file: python,
    args: ['-c', 'import os, sys; print(os.path.realpath(sys.executable))'],
    signal: new AbortController().signal,
    redactor: createRedactor([]),
  });
  requireSuccess(result, 'python');
  return result.stdoutTail.trim();
}

describe('compared with Alembic on random graphs', () => {
  interface Example {
    readonly graph: AlembicGraph;
    readonly upgrades: readonly {
      readonly rows: readonly string[];
      readonly target: string;
      readonly path: readonly string[];
      readonly rowsAfter: readonly (readonly string[])[];
    }[];
  }
  const script = new URL('../fixtures/alembic/random_graphs.py', import.meta.url).pathname;
  const ask = async <T>(args: readonly string[], input?: string): Promise<T> => {
    const { stdout } = await streamProcess({
      file: python,
      args: [script, ...args],
      ...(input === undefined ? {} : { input }),
      signal: new AbortController().signal,
      redactor: createRedactor([]),
    });
    return JSON.parse(Buffer.concat(await stdout.toArray()).toString()) as T;
  };

  test('upgrade paths are in its order, and downgrade plans leave exactly the rows they name', async () => {
    const examples = await ask<readonly Example[]>(['7', '100']);
    const plans: {
      readonly graph: AlembicGraph;
      readonly rows: readonly string[];
      readonly arguments: readonly string[];
    }[] = [];
    const predicted: (readonly (readonly string[])[])[] = [];
    for (const { graph, upgrades } of examples) {
      for (const { rows, target, path, rowsAfter } of upgrades) {
        const found = upgradePath(graph, rows, target);
        expect(found.map(({ revision }) => revision)).toEqual(path);
        expect(rowsAlongPath(rows, found)).toEqual(rowsAfter);
        const reached = rowsAfter.at(-1);
        const plan = reached === undefined ? undefined : downgradePlan(graph, reached, rows);
        if (plan?.kind !== 'planned') continue;
        plans.push({ graph, rows: reached ?? [], arguments: plan.commands.map(({ argument }) => argument) });
        predicted.push(plan.commands.map((command) => command.rowsAfter));
        expect(plan.commands.at(-1)?.rowsAfter).toEqual([...rows].sort());
      }
    }
    expect(plans.length).toBeGreaterThan(300);
    expect(await ask(['follow'], JSON.stringify(plans))).toEqual(predicted);
  });
});
