import { describe, expect, test } from 'vitest';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import type { AlembicEvent, RevisionStart } from '../../src/alembic/barrier.ts';
import { downgrade } from '../../src/alembic/downgrade.ts';
import { downgradePlan } from '../../src/alembic/downgrade-plan.ts';
import { readGraph } from '../../src/alembic/read-graph.ts';
import { serviceEnvironment } from '../../src/alembic/service-url.ts';
import { type UpgradeOptions, upgrade } from '../../src/alembic/upgrade.ts';
import { type DatabaseVersion, readVersion } from '../../src/alembic/version-table.ts';
import { parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { createService, type Revision } from '../fixtures/alembic/service.ts';
import { createDatabase, useStack } from '../stack.ts';

const stack = useStack();
const primary = stack.postgres.primary;
const urlVariable = { urlVariable: 'DATABASE_URL', urlScheme: 'postgresql+psycopg' };
const eachItsOwn = { TRANSACTION_PER_MIGRATION: 'yes' };

const tables: readonly Revision[] = [
  { id: 'r1', upgrade: 'op.create_table("one", sa.Column("id", sa.Integer()))', downgrade: 'op.drop_table("one")' },
  {
    id: 'r2',
    down: '"r1"',
    upgrade: 'op.create_table("two", sa.Column("id", sa.Integer()))',
    downgrade: 'op.drop_table("two")',
  },
  {
    id: 'r3',
    down: '"r2"',
    upgrade: 'op.create_table("three", sa.Column("id", sa.Integer()))',
    downgrade: 'op.drop_table("three")',
  },
];

interface Service {
  readonly url: string;
  readonly options: Omit<UpgradeOptions, 'target'>;
  readonly version: () => Promise<DatabaseVersion>;
}

async function service(
  revisions: readonly Revision[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Service> {
  const [{ root }, { url }] = await Promise.all([createService(revisions), createDatabase(primary)]);
  return {
    url,
    options: {
      python: stack.venv.python,
      directory: root,
      config: 'alembic.ini',
      environment: { ...serviceEnvironment(parseConnectionUrl(url), urlVariable), ...environment },
      signal: new AbortController().signal,
      redactor: createRedactor([url]),
    },
    version: () => withClient(url, (client) => readVersion(client)),
  };
}

describe('an upgrade', () => {
  test('runs to the revision named, not to the head', async () => {
    const { options, version } = await service(tables);
    expect(await version()).toEqual({ kind: 'unversioned-empty' });
    const facts = await upgrade({ ...options, target: 'r2' });
    expect(facts).toMatchObject({ command: 'upgrade r2', barrier: 'held', result: { kind: 'exited', code: 0 } });
    expect(await version()).toEqual({ kind: 'versioned', rows: ['r2'] });
  });

  test('tells what it does, revision by revision', async () => {
    const { options } = await service(tables, eachItsOwn);
    const events: AlembicEvent[] = [];
    await upgrade({ ...options, target: 'r2', onEvent: (event) => events.push(event) });
    expect(events).toEqual([
      { event: 'revision-start', revision: 'r1', direction: 'upgrade', committed: true },
      { event: 'revision-applied', revision: 'r1', direction: 'upgrade', rows: ['r1'] },
      { event: 'revision-start', revision: 'r2', direction: 'upgrade', committed: true },
      { event: 'revision-applied', revision: 'r2', direction: 'upgrade', rows: ['r2'] },
      { event: 'finished' },
    ]);
  });

  test('waits before each revision, with the one before it committed', async () => {
    const { options, version } = await service(tables, eachItsOwn);
    const seen: unknown[] = [];
    const atBoundary = async ({ revision }: RevisionStart): Promise<void> => {
      seen.push(revision, await version());
    };
    await upgrade({ ...options, target: 'r3', atBoundary });
    expect(seen).toEqual([
      'r1',
      // Alembic makes its table together with the first revision.
      { kind: 'unversioned-empty' },
      'r2',
      { kind: 'versioned', rows: ['r1'] },
      'r3',
      { kind: 'versioned', rows: ['r2'] },
    ]);
  });

  test('says that nothing is committed between revisions of one transaction', async () => {
    const { options, version } = await service(tables);
    const seen: unknown[] = [];
    const atBoundary = async ({ committed }: RevisionStart): Promise<void> => {
      seen.push(committed, (await version()).kind);
    };
    await upgrade({ ...options, target: 'r3', atBoundary });
    expect(seen.filter((_, index) => index % 2 === 0)).toEqual([true, false, false]);
    expect(seen.slice(2)).not.toContain('versioned');
  });

  test('stops before the revision whose boundary could not be recorded', async () => {
    const { options, version } = await service(tables, eachItsOwn);
    const atBoundary = async ({ revision }: RevisionStart): Promise<void> => {
      if (revision === 'r3') throw new Error('the store is not reachable');
    };
    await expect(upgrade({ ...options, target: 'r3', atBoundary })).rejects.toThrow('the store is not reachable');
    expect(await version()).toEqual({ kind: 'versioned', rows: ['r2'] });
  });

  test('that fails in its last revision keeps those with transactions of their own', async () => {
    const failing = { id: 'r4', down: '"r3"', upgrade: 'op.create_table("four")\nop.execute("SELECT 1/0")' };
    const { options, version } = await service([...tables, failing], eachItsOwn);
    const facts = await upgrade({ ...options, target: 'r4' });
    expect(facts.result).toMatchObject({
      kind: 'exited',
      code: 1,
      stderrTail: expect.stringContaining('division by zero'),
    });
    expect(await version()).toEqual({ kind: 'versioned', rows: ['r3'] });
  });

  test('is stopped inside a revision, and its transaction is taken back', async () => {
    const slow = { id: 'r4', down: '"r3"', upgrade: 'op.create_table("four")\nop.execute("SELECT pg_sleep(600)")' };
    const { options, version, url } = await service([...tables, slow], eachItsOwn);
    const abort = new AbortController();
    const reason = new Error('the window is over');
    const started = Promise.withResolvers<void>();
    const atBoundary = async ({ revision }: RevisionStart): Promise<void> => {
      if (revision === 'r4') started.resolve();
    };
    const running = upgrade({ ...options, target: 'r4', signal: abort.signal, atBoundary });
    await started.promise;
    await expect.poll(() => sleeping(url), { timeout: 20_000 }).toBe(1);
    abort.abort(reason);
    await expect(running).rejects.toBe(reason);
    // The server's own session outlives its client; ending it is the caller's. Other tests sleep in other databases.
    await withClient(url, (client) =>
      client.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()`,
      ),
    );
    expect(await version()).toEqual({ kind: 'versioned', rows: ['r3'] });
  });

  test('shows its log line by line, without the password', async () => {
    const { options, url } = await service([
      { id: 'r1', upgrade: 'import os\nprint("url is", os.environ["DATABASE_URL"])\nprint("second line")' },
    ]);
    const lines: string[] = [];
    const facts = await upgrade({ ...options, target: 'r1', onLine: (_stream, line) => lines.push(line) });
    expect(lines.at(-1)).toBe('second line');
    expect(lines.at(-2)).toMatch(/^url is .*\[redacted\]/);
    expect(JSON.stringify([lines, facts])).not.toContain(new URL(url).password);
  });

  test('reaches a database whose password needs escaping everywhere', async () => {
    const { options, version, url } = await service(tables);
    const password = `p%40@ss w'o"rd/?#:&=+\\`;
    const role = `odd_${Date.now()}`;
    const database = new URL(url).pathname.slice(1);
    await withClient(url, async (client) => {
      await client.query(`CREATE ROLE ${role} LOGIN PASSWORD ${client.escapeLiteral(password)}`);
      await client.query(`ALTER DATABASE ${client.escapeIdentifier(database)} OWNER TO ${role}`);
    });
    const target = { ...parseConnectionUrl(url), user: role, password };
    const environment = serviceEnvironment(target, urlVariable);
    const facts = await upgrade({ ...options, environment, redactor: createRedactor([password]), target: 'r1' });
    expect(facts.result).toMatchObject({ kind: 'exited', code: 0 });
    expect(await version()).toEqual({ kind: 'versioned', rows: ['r1'] });
    await withClient(url, async (client) => {
      await client.query(`REASSIGN OWNED BY ${role} TO postgres`);
      await client.query(`DROP ROLE ${role}`);
    });
  });

  test("runs a service's own command, with a barrier where our part comes into its Python", async () => {
    const { options, version } = await service(tables);
    const boundaries: string[] = [];
    const facts = await upgrade({
      ...options,
      target: 'r2',
      command: ['sh', '-c', '"$0" -m alembic upgrade "$1" && echo "upgraded to $1"', stack.venv.python, '{{revision}}'],
      atBoundary: async ({ revision }) => {
        boundaries.push(revision);
      },
    });
    expect(facts).toMatchObject({
      barrier: 'held',
      reporter: { kind: 'loaded' },
      result: { kind: 'exited', code: 0, stdoutTail: 'upgraded to r2\n' },
    });
    expect(boundaries).toEqual(['r1', 'r2']);
    expect(await version()).toEqual({ kind: 'versioned', rows: ['r2'] });
  });
});

async function sleeping(url: string): Promise<number> {
  const { rows } = await withClient(url, (client) =>
    client.query<{ count: number }>(
      `SELECT count(*)::int AS count FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()`,
    ),
  );
  return rows[0]?.count ?? 0;
}

describe('a downgrade', () => {
  const merge: readonly Revision[] = [
    { id: 'r0' },
    { id: 'a1', down: '"r0"' },
    { id: 'b1', down: '"r0"' },
    { id: 'm1', down: '("a1", "b1")' },
    { id: 'q1' },
    { id: 'm2', down: '"m1"' },
  ];

  test.each([
    ['one head below a merge', 'm2', ['a1']],
    ['both heads below a merge', 'm2', ['a1', 'b1']],
    ['the common base of two branches, without a root that the release added', 'heads', ['r0']],
    ['an empty database', 'heads', []],
  ])('brings the version rows back to %s', async (_case, target, start) => {
    const { options, version } = await service(merge);
    await upgrade({ ...options, target });
    const graph = await readGraph({ ...options, root: options.directory });
    const from = await rowsOf(version);
    expect(from).toEqual(target === 'heads' ? ['m2', 'q1'] : ['m2']);
    const plan = downgradePlan(graph, from, start);
    if (plan.kind === 'impossible') throw new Error(plan.why);
    const facts = await downgrade({
      ...options,
      commands: plan.commands,
      afterCommand: async (index) => {
        expect(await rowsOf(version)).toEqual(plan.commands[index]?.rowsAfter);
      },
    });
    expect(facts).toHaveLength(plan.commands.length);
    expect(await rowsOf(version)).toEqual([...start].sort());
  });

  test('runs nothing after a command that failed', async () => {
    const { options, version } = await service(
      [...tables, { id: 'r4', down: '"r3"', downgrade: 'op.execute("SELECT 1/0")' }],
      eachItsOwn,
    );
    await upgrade({ ...options, target: 'r4' });
    const facts = await downgrade({ ...options, commands: [{ argument: 'r3' }, { argument: 'r1' }] });
    expect(facts).toMatchObject([{ command: 'downgrade r3', result: { kind: 'exited', code: 1 } }]);
    expect(await rowsOf(version)).toEqual(['r4']);
  });

  test('tells its direction', async () => {
    const { options } = await service(tables);
    await upgrade({ ...options, target: 'r2' });
    const events: AlembicEvent[] = [];
    await downgrade({ ...options, commands: [{ argument: 'r1' }], onEvent: (event) => events.push(event) });
    expect(events.slice(0, 2)).toEqual([
      { event: 'revision-start', revision: 'r2', direction: 'downgrade', committed: true },
      { event: 'revision-applied', revision: 'r2', direction: 'downgrade', rows: ['r1'] },
    ]);
  });
});

async function rowsOf(version: () => Promise<DatabaseVersion>): Promise<readonly string[]> {
  const found = await version();
  return found.kind === 'versioned' ? found.rows : [found.kind];
}

describe('the version of a database', () => {
  test('is unversioned and full when somebody else made its tables', async () => {
    const { url, version } = await service([]);
    await withClient(url, (client) =>
      client.query('CREATE SCHEMA "My App"; CREATE TABLE "My App".users (id int); CREATE TABLE plain (id int)'),
    );
    expect(await version()).toEqual({ kind: 'unversioned-full', tables: ['"My App".users', 'public.plain'] });
  });

  test('is unversioned and empty when only an extension has tables, views or types', async () => {
    const { url, version } = await service([]);
    await withClient(url, (client) =>
      client.query('CREATE EXTENSION pg_stat_statements; CREATE TYPE color AS ENUM ()'),
    );
    expect(await version()).toEqual({ kind: 'unversioned-empty' });
  });

  test('is read from a table of another name, with all its rows', async () => {
    const { url } = await service([]);
    await withClient(url, async (client) => {
      await client.query('CREATE SCHEMA "Meta"; CREATE TABLE "Meta"."Versions" (version_num text)');
      await client.query(`INSERT INTO "Meta"."Versions" VALUES ('b2'), ('a1')`);
      expect(await readVersion(client, { schema: 'Meta', table: 'Versions' })).toEqual({
        kind: 'versioned',
        rows: ['a1', 'b2'],
      });
      expect(await readVersion(client)).toMatchObject({ kind: 'unversioned-full' });
    });
  });
});

describe('a revision that leaves the one transaction of all', () => {
  const block = (name: string): string =>
    `with op.get_context().autocommit_block():\n    op.create_index("${name}", "one", ["id"], postgresql_concurrently=True)`;
  const boundaries = async (third: string): Promise<readonly string[]> => {
    const { options, version } = await service([...tables.slice(0, 2), { id: 'r3', down: '"r2"', upgrade: third }]);
    const seen: string[] = [];
    await upgrade({
      ...options,
      target: 'r3',
      atBoundary: async ({ revision, committed }) => {
        const { kind, ...rest } = await version();
        const rows = kind === 'versioned' && 'rows' in rest ? rest.rows.join() : 'none';
        seen.push(`${revision} ${committed ? 'committed' : 'open'}: ${rows}`);
      },
    });
    return seen;
  };

  test('is waited for again once what was before it is committed', async () => {
    expect(await boundaries(block('one_id'))).toEqual([
      'r1 committed: none',
      'r2 open: none',
      'r3 open: none',
      'r3 committed: r2',
    ]);
  });

  test('is not, where it has done something before', async () => {
    expect(await boundaries(`op.execute("SELECT 1")\n${block('one_id')}`)).toEqual([
      'r1 committed: none',
      'r2 open: none',
      'r3 open: none',
    ]);
  });
});
