import { access, chmod, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { type DowngradeCommand, downgradePlan } from '../../src/alembic/downgrade-plan.ts';
import { resolveTarget } from '../../src/alembic/graph.ts';
import { hiddenGraph, isHiddenGraph } from '../../src/alembic/hidden-graph.ts';
import { GraphUnreadable, readGraph } from '../../src/alembic/read-graph.ts';
import { rowsAlongPath, upgradePath, upgradePaths } from '../../src/alembic/upgrade-path.ts';
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

describe('the places where revisions are kept', () => {
  const ids = ({ revisions }: AlembicGraph) => revisions.map(({ revision }) => revision).sort();
  const inFolders = [{ id: 'r1' }, { id: 'r2', down: '"r1"' }];

  /** Each file of `migrations/versions` moved to a folder of its own, and an `alembic.ini` of these lines. */
  async function placed(root: string, moves: Readonly<Record<string, string>>, ini: readonly string[]): Promise<void> {
    for (const [name, folder] of Object.entries(moves)) {
      await mkdir(join(root, folder), { recursive: true });
      await rename(join(root, 'migrations', 'versions', `${name}.py`), join(root, folder, `${name}.py`));
    }
    await writeFile(join(root, 'alembic.ini'), ['[alembic]', ...ini, ''].join('\n'));
  }
  const moves = { r1: 'one', r2: 'two' };

  test.each([
    ['several, with the separator of old', ['version_locations = one two']],
    ['several, with a separator that is named', ['version_path_separator = :', 'version_locations = one:two']],
    ['several, with the separator of new', ['path_separator = newline', 'version_locations = one', '  two']],
    [
      'several, from the folder of the configuration',
      ['version_path_separator = space', 'version_locations = %(here)s/one %(here)s/two'],
    ],
  ])('may be %s', async (_case, lines) => {
    const graph = await graphOf(inFolders, (root) =>
      placed(root, moves, ['script_location = migrations', 'prepend_sys_path = .', ...lines]),
    );
    expect(ids(graph)).toEqual(['r1', 'r2']);
    expect(graph.revisions.map(({ file }) => file).sort()).toEqual(['one/r1.py', 'two/r2.py']);
  });

  test('may be one below the other', async () => {
    const graph = await graphOf(inFolders, (root) =>
      placed(root, { r1: 'migrations/versions/2026', r2: 'migrations/versions/2027/01' }, [
        'script_location = migrations',
        'recursive_version_locations = true',
      ]),
    );
    expect(ids(graph)).toEqual(['r1', 'r2']);
  });

  test('may be a package', async () => {
    const graph = await graphOf(inFolders, async (root) => {
      await mkdir(join(root, 'src', 'service'), { recursive: true });
      await rename(join(root, 'migrations'), join(root, 'src', 'service', 'migrations'));
      await writeFile(join(root, 'src', 'service', '__init__.py'), '');
      await writeFile(
        join(root, 'alembic.ini'),
        '[alembic]\nscript_location = service:migrations\nprepend_sys_path = src\n',
      );
    });
    expect(ids(graph)).toEqual(['r1', 'r2']);
    expect(graph.revisions[0]?.file).toMatch(/^src\/service\/migrations\/versions\//);
  });

  test('may be absolute, and the working directory another', async () => {
    const { root } = await createService(inFolders);
    await mkdir(join(root, 'ops', 'db'), { recursive: true });
    const config = join(root, 'ops', 'alembic.ini');
    await writeFile(config, `[alembic]\nscript_location = ${join(root, 'migrations')}\n`);
    expect(ids(await read(root, { directory: join(root, 'ops', 'db'), config }))).toEqual(['r1', 'r2']);
  });

  test('may be named by a pyproject.toml, as the configuration or beside it', async () => {
    const { root } = await createService(inFolders);
    await rm(join(root, 'alembic.ini'));
    await writeFile(join(root, 'pyproject.toml'), '[tool.alembic]\nscript_location = "%(here)s/migrations"\n');
    expect(ids(await read(root, { config: join(root, 'pyproject.toml') }))).toEqual(['r1', 'r2']);
    await writeFile(join(root, 'alembic.ini'), '[alembic]\n');
    expect(ids(await read(root))).toEqual(['r1', 'r2']);
  });
});

describe('a command that wraps Alembic', () => {
  const folders = `
import os
from alembic.config import Config
from alembic.script import ScriptDirectory

here = os.path.dirname(os.path.abspath(__file__))

def directory(*versions):
    config = Config()
    config.set_main_option("script_location", os.path.join(here, "migrations"))
    config.set_main_option("version_locations", " ".join(os.path.join(here, "migrations", name) for name in versions))
    return ScriptDirectory.from_config(config)
`;
  const revisions = [{ id: 'r1' }, { id: 'r2', down: '"r1"', upgrade: 'op.drop_table("t")' }];

  async function wrapped(body: string, given: readonly Revision[] = revisions): Promise<string> {
    const { root } = await createService(given);
    // As for services that set the locations when they run: Alembic's own configuration knows an empty folder only.
    await mkdir(join(root, 'migrations', 'empty'));
    await writeFile(
      join(root, 'alembic.ini'),
      '[alembic]\nscript_location = migrations\nversion_locations = migrations/empty\n',
    );
    await writeFile(join(root, 'manage.py'), `${folders}\n${body}\n`);
    return root;
  }
  const heads = (root: string, ...more: readonly string[]) => ({
    headsCommand: [python, ...more, join(root, 'manage.py')],
  });

  test('is seen through: the graph is what it loads, whatever it prints and wherever its versions are', async () => {
    const root = await wrapped('directory("versions").get_heads()\nprint("all is well")');
    expect((await read(root)).revisions).toEqual([]);
    const graph = await read(root, heads(root));
    expect(graph.heads).toEqual(['r2']);
    expect(graph.alembic).toMatch(/^1\./);
    expect(graph.revisions).toContainEqual(
      expect.objectContaining({
        revision: 'r2',
        downRevisions: ['r1'],
        file: 'migrations/versions/r2.py',
        sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
        operations: ['drop_table'],
      }),
    );
  });

  test('is seen through when it runs another Python, fails after loading, and has a sitecustomize of its own', async () => {
    const root = await wrapped(
      'directory("versions").get_heads()\nimport sitecustomize\nraise SystemExit(sitecustomize.own)',
    );
    await mkdir(join(root, 'own'));
    await writeFile(join(root, 'own', 'sitecustomize.py'), 'own = 3\n');
    await writeFile(
      join(root, 'manage.sh'),
      `#!/bin/sh\n"${python}" manage.py\ncode=$?\n[ $code = 3 ] || { echo "no sitecustomize: $code" >&2; rm -r "$RUNBOOK_GRAPH_FOLDER"/*; }\nexit $code\n`,
    );
    await chmod(join(root, 'manage.sh'), 0o755);
    const graph = await read(root, {
      headsCommand: ['./manage.sh'],
      environment: { PYTHONPATH: join(root, 'own') },
    });
    expect(graph.heads).toEqual(['r2']);
  });

  test('that hides its migrations tells its heads at least', async () => {
    const root = await wrapped('print("INFO [app] ready")\nprint("r2 (app) (head)")');
    const graph = await read(root, heads(root));
    expect(isHiddenGraph(graph)).toBe(true);
    expect(graph.heads).toEqual(['r2']);
    // An environment that is cleared keeps us out.
    const isolated = await wrapped('print(*directory("versions").get_heads())');
    expect(await read(isolated, heads(isolated, '-I'))).toEqual(hiddenGraph(['r2']));
  });

  test('is refused where it loads the migrations of several databases, naming them', async () => {
    const root = await wrapped('directory("versions").get_heads()\ndirectory("other").get_heads()');
    await mkdir(join(root, 'migrations', 'other'));
    await writeFile(
      join(root, 'migrations', 'other', 'q1.py'),
      'revision = "q1"\ndown_revision = None\ndef upgrade(): pass\ndef downgrade(): pass\n',
    );
    await expect(read(root, heads(root))).rejects.toThrow(
      /several places \(migrations\/other, migrations\/versions\).*commands\.heads/,
    );
  });

  test.each([
    ['fails', 'import sys\nsys.exit("no planted-secret")', /code 1\): no \[redacted\]/],
    ['says nothing of use', 'print("all is well")', /prints no revision: all is well/],
    ['cannot load its migrations', 'directory("versions").get_heads()', /Alembic cannot load.*ModuleNotFoundError/],
  ])('is refused where it %s', async (_case, body, message) => {
    const root = await wrapped(body, [{ id: 'r1', head: 'import no_such_module_here' }]);
    const failure = await read(root, heads(root)).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(GraphUnreadable);
    expect(String(failure)).toMatch(message);
  });

  test('leaves nothing behind', async () => {
    const root = await wrapped(
      'directory("versions").get_heads()\nopen("told", "w").write(os.environ["RUNBOOK_GRAPH_FOLDER"])',
    );
    await read(root, heads(root));
    const folder = await readFile(join(root, 'told'), 'utf8');
    expect(folder).toMatch(/runbook-graph-/);
    await expect(access(folder)).rejects.toMatchObject({ code: 'ENOENT' });
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

  test.each([
    ['plain operations', ['add_column']],
    ['an autocommit block', ['autocommit_block', 'execute']],
    ['a commit of its session', ['commit']],
    ['a commit in a function it calls', ['commit']],
    ['code of the service', []],
  ])('tells the operations of %s', (name, operations) => {
    const id = `up${upgrades.findIndex(([known]) => known === name)}`;
    expect(revisions.get(id)?.operations).toEqual(operations);
  });

  test('is judged by its upgrade apart from its downgrade', () => {
    expect(revisions.get('other')).toMatchObject({ transactional: 'yes', downgradeTransactional: 'no' });
    const committing = `up${upgrades.findIndex(([, , transactional]) => transactional === 'no')}`;
    expect(revisions.get(committing)).toMatchObject({ transactional: 'no', downgradeTransactional: 'yes' });
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
    readonly heads: readonly {
      readonly rows: readonly string[];
      readonly revisions: readonly string[];
      readonly rowsAfter: readonly string[];
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

  test('upgrade paths are in its order, and downgrade plans undo what they say and leave the rows they name', async () => {
    const examples = await ask<readonly Example[]>(['7', '100']);
    const plans: {
      readonly graph: AlembicGraph;
      readonly rows: readonly string[];
      readonly arguments: readonly string[];
    }[] = [];
    const predicted: (readonly Omit<DowngradeCommand, 'argument'>[])[] = [];
    for (const { graph, upgrades } of examples) {
      for (const { rows, target, path, rowsAfter } of upgrades) {
        const found = upgradePath(graph, rows, target);
        expect(found.map(({ revision }) => revision)).toEqual(path);
        expect(rowsAlongPath(rows, found)).toEqual(rowsAfter);
        const reached = rowsAfter.at(-1);
        const plan = reached === undefined ? undefined : downgradePlan(graph, reached, rows);
        if (plan?.kind !== 'planned') continue;
        plans.push({ graph, rows: reached ?? [], arguments: plan.commands.map(({ argument }) => argument) });
        predicted.push(plan.commands.map(({ undoes, rowsAfter: left }) => ({ undoes, rowsAfter: left })));
        expect(plan.commands.at(-1)?.rowsAfter).toEqual([...rows].sort());
      }
    }
    expect(plans.length).toBeGreaterThan(300);
    const named = plans.flatMap((plan) => plan.arguments);
    expect(named.filter((argument) => argument.startsWith('label')).length).toBeGreaterThan(5);
    expect(named.filter((argument) => argument.endsWith('@base')).length).toBeGreaterThan(5);
    expect(await ask(['follow'], JSON.stringify(plans))).toEqual(predicted);
  });

  test('one upgrade a head after the other does what its upgrade to heads does', async () => {
    const examples = await ask<readonly Example[]>(['8', '60']);
    let several = 0;
    for (const { graph, heads } of examples) {
      const target = resolveTarget(graph, 'heads');
      if (target.kind === 'refused') throw new Error(target.message);
      if (target.revisions.length > 1) several += 1;
      for (const { rows, revisions, rowsAfter } of heads) {
        const path = upgradePaths(graph, rows, target.revisions);
        expect(path.map(({ revision }) => revision).sort()).toEqual(revisions);
        expect(rowsAlongPath(rows, path).at(-1)).toEqual(rowsAfter);
      }
    }
    expect(several).toBeGreaterThan(20);
  });
});
