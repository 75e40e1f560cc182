import { describe, expect, test } from 'vitest';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { downgradePlan } from '../../src/alembic/downgrade-plan.ts';
import { readGraph } from '../../src/alembic/read-graph.ts';
import { serviceEnvironment } from '../../src/alembic/service-url.ts';
import { rowsAlongPath, upgradePath } from '../../src/alembic/upgrade-path.ts';
import { upgrade } from '../../src/alembic/upgrade.ts';
import type { RehearsalProfile } from '../../src/contract/profile.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { readContents } from '../../src/postgres/contents/contents.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { rehearse } from '../../src/rehearsal/trial.ts';
import type { Rehearsed, TrialRequest, TrialResult } from '../../src/rehearsal/trial-request.ts';
import { createService, type Revision } from '../fixtures/alembic/service.ts';
import { execute as executeOn } from '../postgres-service.ts';
import { createDatabase, databaseUrl, randomName, useStack } from '../stack.ts';

const stack = useStack();
const primary = stack.postgres.primary;
const signal = new AbortController().signal;

/** What is deployed: five users and their notes, which have no key. */
const START: Revision = {
  id: 'r1',
  upgrade: [
    'op.execute("CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, phone text)")',
    'op.execute("CREATE TABLE notes (author int, body text)")',
    "op.execute(\"INSERT INTO users (name, phone) SELECT 'user ' || n, CASE WHEN n < 4 THEN '555-' || n END FROM generate_series(1, 5) n\")",
    'op.execute("INSERT INTO notes SELECT n % 5, \'note \' || n FROM generate_series(1, 20) n")',
    'op.execute("SELECT lo_from_bytea(4711, \'content\')")',
  ].join('\n'),
};

const execute = (...statements: readonly string[]): string =>
  statements.map((statement) => `op.execute(${JSON.stringify(statement)})`).join('\n');

const step = (up: readonly string[], down: readonly string[] | null): Revision => ({
  id: 'r2',
  down: '"r1"',
  upgrade: execute(...up),
  downgrade: down === null ? null : down.length === 0 ? 'pass' : execute(...down),
});

interface Options {
  readonly smoke?: RehearsalProfile['smoke'];
  readonly environment?: Readonly<Record<string, string>>;
  /** On the database that stands at the first. */
  readonly prepare?: readonly string[];
  readonly change?: (request: TrialRequest) => TrialRequest | Promise<TrialRequest>;
}

/** A trial of the last of these revisions, on a database that stands at the first. */
async function trialOf(revisions: readonly Revision[], options: Options = {}): Promise<TrialResult> {
  const [{ root }, pristine] = await Promise.all([createService([START, ...revisions]), createDatabase(primary)]);
  const alembic = { python: stack.venv.python, directory: root, config: 'alembic.ini' };
  const redactor = createRedactor([]);
  const scheme = { urlVariable: 'DATABASE_URL', urlScheme: 'postgresql+psycopg' };
  const environmentOf = (url: string) => ({
    ...serviceEnvironment(parseConnectionUrl(url), scheme),
    ...options.environment,
  });
  await upgrade({ ...alembic, environment: environmentOf(pristine.url), target: 'r1', signal, redactor });
  await executeOn(pristine.url, ...(options.prepare ?? []));
  const copy = `${pristine.name}_copy`;
  await withClient(primary.superuserUrl, (client) =>
    client.query(`CREATE DATABASE ${client.escapeIdentifier(copy)} TEMPLATE ${client.escapeIdentifier(pristine.name)}`),
  );
  const copyUrl = databaseUrl(primary, copy);
  const graph = await readGraph({ ...alembic, root, environment: environmentOf(pristine.url), signal, redactor });
  const path = upgradePath(graph, ['r1'], graph.heads[0]!);
  const request: TrialRequest = {
    alembic: {
      ...alembic,
      environment: environmentOf(copyUrl),
      commands: {},
      versionTable: { schema: 'public', table: 'alembic_version' },
    },
    copy: parseConnectionUrl(copyUrl),
    pristine: parseConnectionUrl(pristine.url),
    plan: {
      startRevisions: ['r1'],
      targetRevisions: graph.heads,
      path,
      downgrade: downgradePlan(graph, rowsAlongPath(['r1'], path).at(-1)!, ['r1']),
    },
    smoke: options.smoke ?? [],
    jobs: 2,
    session: { runId: 'a-run', step: 'trial', signal },
    redactor,
  };
  return rehearse((await options.change?.(request)) ?? request);
}

async function rehearsed(revisions: readonly Revision[], options?: Options): Promise<Rehearsed> {
  const result = await trialOf(revisions, options);
  expect(result.kind === 'upgrade-failed' ? result.why : '').toBe('');
  return result as Extract<TrialResult, { kind: 'rehearsed' }>;
}

/** What a downgrade does not bring back as it was, and the beginning of the line that tells it; without one, its table. */
interface Undone {
  readonly before: string;
  readonly up?: string;
  readonly down: string;
  readonly told?: string;
}

describe('the verdict on a downgrade', () => {
  test('is lossless when objects and data are as before, and tells what it drops', async () => {
    const trial = await rehearsed([
      step(
        [
          'CREATE TABLE teams (id serial PRIMARY KEY, name text)',
          "INSERT INTO teams (name) VALUES ('one'), ('two')",
          'ALTER TABLE users ADD COLUMN email text',
          "UPDATE users SET email = name || '@example.com' WHERE id < 3",
        ],
        ['ALTER TABLE users DROP COLUMN email', 'DROP TABLE teams'],
      ),
    ]);
    expect(trial.verdict).toEqual({ kind: 'lossless' });
    expect(trial.downgrade?.commands).toEqual(['downgrade r1']);
    expect(trial.again?.milliseconds).toBeGreaterThan(0);
    expect(trial.dropped).toEqual([
      { table: 'public.teams', column: null, rows: 2 },
      { table: 'public.users', column: 'email', rows: 2 },
    ]);
    expect(trial.unknown).toEqual([]);
  });

  test('does not take what was renamed for dropped', async () => {
    const trial = await rehearsed([
      step(
        ['ALTER TABLE users RENAME COLUMN phone TO telephone', 'ALTER TABLE notes RENAME TO remarks'],
        ['ALTER TABLE remarks RENAME TO notes', 'ALTER TABLE users RENAME COLUMN telephone TO phone'],
      ),
    ]);
    expect(trial).toMatchObject({ verdict: { kind: 'lossless' }, dropped: [] });
  });

  test('counts values by column, and rows', async () => {
    const { verdict } = await rehearsed([
      step(
        ['ALTER TABLE users DROP COLUMN phone', 'DELETE FROM users WHERE id = 5'],
        ['ALTER TABLE users ADD COLUMN phone text'],
      ),
    ]);
    expect(verdict).toEqual({
      kind: 'lossy',
      lost: [
        { table: 'public.users', column: 'phone', values: 3 },
        { table: 'public.users', column: null, values: 1 },
      ],
      objects: [],
    });
  });

  test('counts the values of a column that does not come back', async () => {
    const { verdict } = await rehearsed([step(['ALTER TABLE users DROP COLUMN IF EXISTS phone'], [])]);
    expect(verdict).toEqual({
      kind: 'lossy',
      lost: [{ table: 'public.users', column: 'phone', values: 3 }],
      objects: ['removed column public.users.phone'],
    });
  });

  test('tells the column in tables without a key too', async () => {
    const { verdict } = await rehearsed([step(['UPDATE notes SET body = upper(body) WHERE author = 1'], [])]);
    expect(verdict).toEqual({
      kind: 'lossy',
      lost: [{ table: 'public.notes', column: 'body', values: 4 }],
      objects: [],
    });
  });

  test('counts whole rows where values of a table without a key are exchanged', async () => {
    const { verdict } = await rehearsed([
      step(["UPDATE notes SET author = CASE author WHEN 0 THEN 1 ELSE 0 END WHERE body IN ('note 5', 'note 6')"], []),
    ]);
    expect(verdict).toMatchObject({ kind: 'lossy', lost: [{ table: 'public.notes', column: null, values: 2 }] });
  });

  test('counts large objects', async () => {
    const { verdict } = await rehearsed([step(["SELECT lo_put(4711, 0, 'C')"], [])]);
    expect(verdict).toMatchObject({ kind: 'lossy', lost: [{ table: 'large objects', column: null, values: 1 }] });
  });

  test('is never taken from a sample, although the backup’s ledger has samples only', async () => {
    const sampled = async (request: TrialRequest): Promise<TrialRequest> => {
      const recorded = await withConnection(request.pristine, request.session, (client) =>
        readContents([client], { sampleAbove: 1 }),
      );
      // Else the test says nothing: no row that is changed below is in the sample.
      expect(recorded.tables.map(({ checksum }) => checksum)).toEqual(['0', '0', '0']);
      expect(recorded.largeObjects.checksum).toBe('0');
      return { ...request, recorded };
    };
    const { verdict, unknown } = await rehearsed(
      [step(["UPDATE users SET phone = 'lost' WHERE id = 2", "SELECT lo_put(4711, 0, 'CONTENT')"], ['SELECT 1'])],
      { change: sampled },
    );
    expect(verdict).toMatchObject({
      kind: 'lossy',
      lost: [
        { table: 'public.users', column: 'phone', values: 1 },
        { table: 'large objects', column: null, values: 1 },
      ],
    });
    expect(unknown).toEqual([]);
    const undone = await rehearsed(
      [step(['ALTER TABLE users ADD COLUMN email text'], ['ALTER TABLE users DROP COLUMN email'])],
      { change: sampled },
    );
    expect(undone).toMatchObject({ verdict: { kind: 'lossless' }, unknown: [] });
  });

  test('counts rows that users put into an extension’s configuration table, and no others of an extension', async () => {
    const member = (table: string): readonly string[] => [
      `CREATE TABLE ${table} (id int PRIMARY KEY, keep text)`,
      `INSERT INTO ${table} VALUES (1, 'a year'), (2, 'a month')`,
      `ALTER EXTENSION pg_trgm ADD TABLE ${table}`,
    ];
    // As pg_extension_config_dump does in an extension's own script.
    const prepare = [
      'CREATE EXTENSION pg_trgm',
      ...member('part_config'),
      ...member('part_builtin'),
      `UPDATE pg_extension SET extconfig = ARRAY['part_config'::regclass::oid], extcondition = ARRAY[''] WHERE extname = 'pg_trgm'`,
    ];
    const forth = ['DELETE FROM part_config WHERE id = 2', 'DELETE FROM part_builtin WHERE id = 2'];
    for (const change of [
      (request: TrialRequest) => request,
      async (request: TrialRequest) => ({
        ...request,
        recorded: await withConnection(request.pristine, request.session, (client) =>
          readContents([client], { sampleAbove: Infinity }),
        ),
      }),
    ]) {
      const { verdict } = await rehearsed([step(forth, [])], { prepare, change });
      expect(verdict).toEqual({
        kind: 'lossy',
        lost: [{ table: 'public.part_config', column: null, values: 1 }],
        objects: [],
      });
    }
  });

  test.each<readonly [string, readonly Undone[]]>([
    [
      'objects, by all that tells one from another',
      [
        {
          before: 'CREATE INDEX i ON notes ((author::bigint))',
          up: 'DROP INDEX i',
          down: 'CREATE INDEX i ON notes ((author::numeric))',
          told: 'changed index public.i: ',
        },
        {
          before: "ALTER TABLE notes ADD CONSTRAINT short CHECK (body::varchar(2) <> 'xx')",
          up: 'ALTER TABLE notes DROP CONSTRAINT short',
          down: "ALTER TABLE notes ADD CONSTRAINT short CHECK (body::varchar <> 'xx')",
          told: 'changed constraint public.notes.short: ',
        },
        {
          before: 'CREATE TABLE stamps (at timestamp DEFAULT now()::timestamp(0))',
          down: 'ALTER TABLE stamps ALTER at SET DEFAULT now()',
          told: 'changed column public.stamps.at: ',
        },
        {
          before: 'CREATE TABLE made (a numeric, b numeric GENERATED ALWAYS AS (a::int::numeric) STORED)',
          up: 'ALTER TABLE made DROP COLUMN b',
          down: 'ALTER TABLE made ADD COLUMN b numeric GENERATED ALWAYS AS (a) STORED',
          told: 'changed column public.made.b: ',
        },
        {
          before: 'CREATE FUNCTION f(a numeric) RETURNS text BEGIN ATOMIC SELECT (a::int)::text; END',
          up: 'DROP FUNCTION f',
          down: 'CREATE FUNCTION f(a numeric) RETURNS text BEGIN ATOMIC SELECT a::text; END',
          told: 'changed function public.f(a numeric): ',
        },
        {
          before: 'CREATE TABLE mine (a text); CREATE POLICY own ON mine USING (a::varchar(1) = current_user::text)',
          up: 'DROP POLICY own ON mine',
          down: 'CREATE POLICY own ON mine USING (a = current_user::text)',
          told: 'changed policy public.mine.own: ',
        },
        {
          before: 'CREATE STATISTICS stx ON author, body FROM notes; ALTER STATISTICS stx SET STATISTICS 500',
          up: 'DROP STATISTICS stx',
          down: 'CREATE STATISTICS stx ON author, body FROM notes',
          told: 'changed statistics public.stx: ',
        },
        {
          before: 'CREATE PUBLICATION published FOR TABLE users (id, name) WHERE (id > 3)',
          up: 'DROP PUBLICATION published',
          down: 'CREATE PUBLICATION published FOR TABLE users (id, name) WHERE (id > 4)',
          told: 'changed publication published: ',
        },
        {
          before: "CREATE TYPE mood AS ENUM ('good', 'bad')",
          up: 'DROP TYPE mood',
          down: "CREATE TYPE mood AS ENUM ('bad', 'good')",
          told: 'changed type public.mood: ',
        },
        {
          before: 'CREATE MATERIALIZED VIEW held AS SELECT 1 AS a',
          up: 'DROP MATERIALIZED VIEW held',
          down: 'CREATE MATERIALIZED VIEW held AS SELECT 1 AS a WITH NO DATA',
          told: 'changed materialized-view public.held: ',
        },
        {
          before: 'CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent)',
          up: 'ALTER TABLE child NO INHERIT parent',
          down: 'ALTER TABLE child INHERIT parent',
          told: 'changed column public.child.a: ',
        },
        {
          before: 'CREATE TABLE kept (author int REFERENCES users)',
          down: 'ALTER TABLE kept DISABLE TRIGGER ALL',
          told: 'constraint public.kept.kept_author_fkey: its triggers are disabled',
        },
        {
          before: 'CREATE TABLE wide (a int, b text, c int)',
          up: 'ALTER TABLE wide DROP COLUMN b',
          down: 'ALTER TABLE wide ADD COLUMN b text',
          told: 'column order of public.wide: a, b, c -> a, c, b',
        },
        {
          before: "CREATE TABLE fresh (id serial); SELECT setval('fresh_id_seq', 1000, false)",
          up: 'DROP TABLE fresh',
          down: 'CREATE TABLE fresh (id serial)',
          told: 'sequence public.fresh_id_seq: at 1, which it has not given out yet, was at 1000, which it has not given out yet',
        },
      ],
    ],
    [
      'values, by all that tells one from another',
      [
        {
          before: "CREATE TABLE scale (v numeric); INSERT INTO scale VALUES ('1.0')",
          down: 'UPDATE scale SET v = 1.00',
        },
        { before: "CREATE TABLE sign (v float8); INSERT INTO sign VALUES ('-0')", down: 'UPDATE sign SET v = 0' },
        { before: "CREATE TABLE nan (v float8); INSERT INTO nan VALUES ('NaN')", down: 'UPDATE nan SET v = NULL' },
        {
          before: "CREATE TABLE spaces (v json); INSERT INTO spaces VALUES ('[1, 2]')",
          down: "UPDATE spaces SET v = '[1,2]'",
        },
        {
          before: "CREATE TABLE bounds (v int[]); INSERT INTO bounds VALUES ('[0:1]={1,2}')",
          down: "UPDATE bounds SET v = '{1,2}'",
        },
        { before: "CREATE TABLE empty (v text); INSERT INTO empty VALUES ('')", down: 'UPDATE empty SET v = NULL' },
        {
          before: "CREATE TABLE days (v interval); INSERT INTO days VALUES ('1 day')",
          down: "UPDATE days SET v = '24 hours'",
        },
        {
          before: 'CREATE UNLOGGED TABLE unlogged (v int); INSERT INTO unlogged VALUES (1)',
          down: 'DELETE FROM unlogged',
        },
        {
          before:
            'CREATE TABLE parts (v int) PARTITION BY LIST (v); CREATE TABLE part PARTITION OF parts FOR VALUES IN (1); INSERT INTO parts VALUES (1)',
          down: 'DELETE FROM parts',
          told: 'public.part',
        },
      ],
    ],
  ])('tells %s', async (_, list) => {
    const { verdict } = await rehearsed(
      [
        step(
          list.map(({ up }) => up ?? 'SELECT 1'),
          list.map(({ down }) => down),
        ),
      ],
      { prepare: list.map(({ before }) => before) },
    );
    const [lost, objects] = 'objects' in verdict ? ['lost' in verdict ? verdict.lost : [], verdict.objects] : [[], []];
    const told = [...lost.map(({ table }) => table), ...objects.map((line) => line)];
    const missing = list.filter(({ before, told: wanted = `public.${/TABLE (\w+)/.exec(before)?.[1]}` }) =>
      told.every((line) => !line.startsWith(wanted)),
    );
    expect(missing).toEqual([]);
  });

  test('is not that a table is as before whose checksum is another one, although no row is found that differs', async () => {
    const { verdict } = await rehearsed(
      [step(['ALTER TABLE users ADD COLUMN email text'], ['ALTER TABLE users DROP COLUMN email'])],
      {
        change: async (request) => {
          const recorded = await withConnection(request.pristine, request.session, (client) =>
            readContents([client], { sampleAbove: Infinity }),
          );
          const tables = recorded.tables.map((entry) =>
            entry.table === 'public.users' ? { ...entry, checksum: '1' } : entry,
          );
          return { ...request, recorded: { ...recorded, tables } };
        },
      },
    );
    expect(verdict).toEqual({
      kind: 'leftovers',
      objects: ['table public.users: not proven equal, its checksum is another one and no row was found that differs'],
    });
  });

  test('says what was not compared because it is of the server, and what the upgrade leaves unenforced', async () => {
    const role = randomName('reader');
    const { verdict, unknown } = await rehearsed(
      [
        step(
          [
            `CREATE ROLE ${role}`,
            `GRANT ${role} TO CURRENT_USER`,
            `GRANT SELECT ON users TO ${role}`,
            'ALTER TABLE kept DISABLE TRIGGER ALL',
          ],
          ['ALTER TABLE kept ENABLE TRIGGER ALL', `DROP OWNED BY ${role}`, `DROP ROLE ${role}`],
        ),
      ],
      { prepare: ['CREATE TABLE kept (author int REFERENCES users)'] },
    );
    await executeOn(primary.superuserUrl, `DROP ROLE IF EXISTS ${role}`).catch(() => undefined);
    expect(verdict).toEqual({ kind: 'lossless' });
    expect(unknown).toEqual([
      'what its rows come to: the upgrade leaves constraint public.kept.kept_author_fkey: its triggers are disabled',
      `what becomes of roles, databases and tablespaces: they are of the server, in no backup, and were not compared (CREATE ROLE ${role}; GRANT ${role} TO CURRENT_USER; DROP ROLE ${role})`,
    ]);
  });

  test('says which ways to other hosts the upgrade has made', async () => {
    const { unknown } = await rehearsed(
      [
        step(
          [
            'CREATE EXTENSION dblink',
            'CREATE SERVER later FOREIGN DATA WRAPPER postgres_fdw',
            "ALTER SERVER changed OPTIONS (SET host '192.0.2.1')",
          ],
          ["ALTER SERVER changed OPTIONS (SET host 'nowhere.invalid')", 'DROP SERVER later', 'DROP EXTENSION dblink'],
        ),
      ],
      {
        prepare: [
          'CREATE EXTENSION postgres_fdw',
          "CREATE SERVER changed FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere.invalid')",
          'CREATE SERVER untouched FOREIGN DATA WRAPPER postgres_fdw',
        ],
      },
    );
    expect(unknown).toEqual([
      expect.stringMatching(/^extension dblink, which the upgrade makes or changes, may reach other hosts/),
      expect.stringMatching(/^foreign server changed, /),
      expect.stringMatching(/^foreign server later, /),
    ]);
    expect(unknown.join()).not.toContain('192.0.2.1');
  });

  test('names what is left: objects, rows, a sequence that fell back', async () => {
    const { verdict } = await rehearsed([
      step(
        [
          "DO $$ BEGIN CREATE TYPE mood AS ENUM ('good'); EXCEPTION WHEN duplicate_object THEN NULL; END $$",
          "INSERT INTO notes VALUES (0, 'written by the migration')",
          "SELECT setval('users_id_seq', 1)",
        ],
        [],
      ),
    ]);
    expect(verdict).toEqual({
      kind: 'leftovers',
      objects: [
        'added type public.mood',
        'table public.notes: 1 row(s) more',
        'sequence public.users_id_seq: at 1, was at 5',
      ],
    });
  });

  test('is that it fails when the next upgrade does, with what was left', async () => {
    const trial = await rehearsed([
      step(
        ["CREATE TYPE mood AS ENUM ('good')", 'ALTER TABLE users ADD COLUMN mood mood'],
        ['ALTER TABLE users DROP COLUMN mood'],
      ),
    ]);
    expect(trial.verdict).toMatchObject({ kind: 'fails', where: 'upgrade after the downgrade, revision r2' });
    expect(trial.verdict).toMatchObject({
      why: expect.stringContaining('the downgrade had left: added type public.mood'),
    });
    expect(trial.again).toBeNull();
  });

  test('is that it fails when the downgrade does, with revision and cause', async () => {
    const { verdict, downgrade } = await rehearsed([step(['SELECT 1'], ['SELECT 1 / 0'])]);
    expect(verdict).toMatchObject({
      kind: 'fails',
      where: 'downgrade r1, revision r2',
      why: expect.stringContaining('division by zero'),
    });
    expect(downgrade?.commands).toEqual(['downgrade r1']);
  });

  test('is that it is impossible where there is none', async () => {
    const trial = await rehearsed([step(['SELECT 1'], null)]);
    expect(trial).toMatchObject({
      verdict: { kind: 'impossible', why: expect.stringContaining('r2') },
      downgrade: null,
    });
  });
});

describe('an upgrade that fails on the copy', () => {
  test('is told by revision and cause, with what it leaves', async () => {
    const result = await trialOf([
      {
        id: 'r2',
        down: '"r1"',
        upgrade: [
          'with op.get_context().autocommit_block():',
          '    op.execute("ALTER TABLE users ADD COLUMN email text")',
          '    op.execute("CREATE UNIQUE INDEX CONCURRENTLY notes_author ON notes (author)")',
        ].join('\n'),
      },
    ]);
    expect(result).toEqual({
      kind: 'upgrade-failed',
      revision: 'r2',
      why: expect.stringContaining('could not create unique index'),
      leaves: ['added column public.users.email', 'index public.notes_author is invalid'],
    });
  });

  test('is seen although the command ends with code 0, for the copy is where it was', async () => {
    const result = await trialOf([step(['SELECT 1'], [])], {
      change: (request) => ({
        ...request,
        alembic: {
          ...request.alembic,
          environment: {
            ...request.alembic.environment,
            DATABASE_URL: `sqlite:///${request.alembic.directory}/elsewhere.db`,
          },
          commands: { upgrade: [stack.venv.python, '-c', 'print("nothing to do")'] },
        },
      }),
    });
    expect(result).toEqual({
      kind: 'upgrade-failed',
      revision: null,
      why: expect.stringContaining('ended with code 0, but the copy stands at r1 instead of r2'),
      leaves: [],
    });
  });
});

describe('the footprint', () => {
  const rewriting = (seconds = 0.2) =>
    step(
      [
        'ALTER TABLE users ALTER COLUMN id TYPE bigint',
        'CREATE INDEX notes_author ON notes (author)',
        `SELECT pg_sleep(${seconds})`,
      ],
      ['DROP INDEX notes_author', 'ALTER TABLE users ALTER COLUMN id TYPE int'],
    );

  test('has statements, locks until the end of their transaction, rewrites, log and growth', async () => {
    const { upgrade, footprint } = await rehearsed([rewriting()]);
    expect(upgrade.reporter).toEqual({ kind: 'loaded' });
    // Which one is the slowest is up to the machine.
    const times = upgrade.slowest.map(({ milliseconds }) => milliseconds);
    expect(times).toEqual(times.toSorted((one, other) => other - one));
    expect(upgrade.slowest).toContainEqual(
      expect.objectContaining({ revision: 'r2', statement: expect.stringContaining('pg_sleep'), class: 'rows' }),
    );
    expect(upgrade.revisions).toEqual([
      { revision: 'r2', milliseconds: expect.any(Number), statements: expect.any(Number) },
    ]);
    expect(upgrade.rewrites).toEqual([{ relation: 'public.users', bytes: expect.any(Number) }]);
    const locks = new Map(upgrade.locks.map((lock) => [`${lock.mode} ${lock.relation}`, lock]));
    expect(locks.get('AccessExclusiveLock public.users')).toMatchObject({ revision: 'r2' });
    // Held to the end of the one transaction, so longer than the sleep in it.
    expect(locks.get('AccessExclusiveLock public.users')!.milliseconds).toBeGreaterThanOrEqual(200);
    expect(locks.get('ShareLock public.notes')!.milliseconds).toBeGreaterThanOrEqual(200);
    expect(footprint.locksBy).toBe('statements');
    expect(footprint.writes).toEqual(['public.alembic_version', 'public.users']);
    expect(upgrade.walBytes).toBeGreaterThan(0);
    expect(upgrade.milliseconds).toBeGreaterThanOrEqual(200);
  });

  test('is sampled from outside where nothing of ours can be loaded', async () => {
    const alone = (verb: string): readonly string[] => [
      stack.venv.python,
      '-I',
      '-c',
      `from alembic.config import main; main(argv=["${verb}", "{{revision}}"])`,
    ];
    // Long enough to be looked at by a process that has to wait for its turn on the processor.
    const { upgrade, footprint, unknown, verdict } = await rehearsed([rewriting(2)], {
      change: (request) => ({
        ...request,
        alembic: { ...request.alembic, commands: { upgrade: alone('upgrade'), downgrade: alone('downgrade') } },
      }),
    });
    expect(verdict).toEqual({ kind: 'lossless' });
    expect(upgrade.reporter.kind).toBe('absent');
    expect(footprint.locksBy).toBe('sampled');
    expect(upgrade.locks.map(({ mode, relation }) => `${mode} ${relation}`)).toContain(
      'AccessExclusiveLock public.users',
    );
    expect(unknown).toEqual([expect.stringContaining('locks were looked at from outside')]);
  });
});

test.each([
  ['commits each statement', { COMMIT_EACH: 'yes' }, ['r2', 'r3']],
  ['has one transaction for all', {}, []],
  ['has one for each revision', { TRANSACTION_PER_MIGRATION: 'yes' }, []],
])(
  'a revision that keeps to its transaction is seen to commit in its middle only where env.py %s',
  async (_, environment, commits) => {
    const trial = await rehearsed(
      [
        step(
          ["UPDATE users SET phone = 'known'", 'ALTER TABLE users ADD COLUMN email text'],
          ['ALTER TABLE users DROP COLUMN email'],
        ),
        {
          id: 'r3',
          down: '"r2"',
          upgrade: execute('UPDATE notes SET author = 1', "UPDATE notes SET body = 'x' WHERE author = 2"),
          downgrade: 'pass',
        },
      ],
      { environment },
    );
    expect(trial.commits).toEqual(commits);
  },
);

test('a revision that sets a time limit itself is named: there the guard’s are kept from outside only', async () => {
  const { unknown } = await rehearsed([
    step(
      ["SET LOCAL lock_timeout = '0'", "DO $$ BEGIN SET LOCAL statement_timeout = '0'; END $$", 'SHOW lock_timeout'],
      [],
    ),
  ]);
  expect(unknown).toEqual([
    expect.stringContaining('revision r2 sets lock_timeout itself, and is left alone'),
    expect.stringContaining('revision r2 sets statement_timeout itself, and is left alone'),
  ]);
});

test('smoke SQL on the upgraded copy can refuse the upgrade', async () => {
  const smoke = [
    { name: 'users are there', kind: 'sql', query: 'SELECT count(*) FROM users', expect: 5, timeout: 5000 },
    { name: 'notes are there', kind: 'sql', query: 'SELECT count(*) FROM notes', expect: 20, timeout: 5000 },
  ] as const;
  const passed = await rehearsed([step(['SELECT 1'], [])], { smoke });
  expect(passed.smoke.map(({ name }) => name)).toEqual(['users are there', 'notes are there']);
  await expect(rehearsed([step(['DELETE FROM notes WHERE author = 0'], [])], { smoke })).rejects.toMatchObject({
    type: 'CheckFailed',
    message: 'smoke SQL "notes are there" on the upgraded copy: the query gave "16" instead of 20',
  });
});
