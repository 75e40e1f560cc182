import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { upgrade } from '../../src/alembic/upgrade.ts';
import { type LintOptions, lintProfileFindings, lintStatements } from '../../src/lint/squawk.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { useStack } from '../stack.ts';
import { drivers, eachItsOwn, reportedService, succeeded } from './alembic-service.ts';

const common = {
  program: join(useStack().venv.bin, 'squawk'),
  serverMajor: 18,
  refuse: [],
  exclude: [],
  signal: new AbortController().signal,
  redactor: createRedactor([]),
} as const;

async function lint(statements: readonly string[], options: Partial<LintOptions> = {}) {
  const result = await lintStatements({
    ...common,
    statements: statements.map((statement) => ({ revision: 'r1', statement })),
    ...options,
  });
  if (result.kind !== 'linted') throw new Error(result.why);
  return result;
}
const brief = (findings: Awaited<ReturnType<typeof lint>>['findings']) =>
  findings.map(({ rule, level }) => `${rule} ${level}`);

describe('findings on the SQL of an upgrade', () => {
  test('name rule, revision, statement and what to do', async () => {
    const { findings, version } = await lint(['ALTER TABLE jobs ADD COLUMN tries bigint NOT NULL']);
    expect(version).toMatch(/^squawk \d/);
    expect(findings).toEqual([
      {
        rule: 'adding-required-field',
        revision: 'r1',
        statement: 'ALTER TABLE jobs ADD COLUMN tries bigint NOT NULL',
        message: expect.stringMatching(/NOT NULL.*DEFAULT/),
        level: 'advice',
      },
    ]);
  });

  test('belong to the statement they are about', async () => {
    const statements = [
      { revision: 'r1', statement: 'CREATE TABLE\n a (id bigint)' },
      { revision: 'r2', statement: 'DROP TABLE IF EXISTS b;' },
      { revision: 'r3', statement: '-- a remark\nALTER TABLE c\n DROP COLUMN d -- and another' },
    ];
    const { findings } = await lint([], { statements });
    expect(findings.map(({ rule, revision }) => [rule, revision])).toEqual([
      ['ban-drop-table', 'r2'],
      ['ban-drop-column', 'r3'],
    ]);
  });

  test('take into account that the table was made in the same transaction', async () => {
    const index = 'CREATE INDEX i ON a (id)';
    expect((await lint(['CREATE TABLE a (id bigint)', index])).findings).toEqual([]);
    expect(brief((await lint([index])).findings)).toEqual(['require-concurrent-index-creation advice']);
  });

  test('refuse what the profile names, under whatever name the rule has, and only that', async () => {
    const { findings } = await lint(['DROP TABLE a'], { refuse: ['require-timeout-settings'] });
    expect(brief(findings)).toEqual([
      'require-lock-timeout refused',
      'require-statement-timeout refused',
      'ban-drop-table advice',
    ]);
    expect(brief((await lint(['DROP TABLE a'], { refuse: ['require-lock-timeout'] })).findings)).toContain(
      'require-lock-timeout refused',
    );
  });

  test('refuse a rule that is off unless it is asked for', async () => {
    const { findings } = await lint(['DROP TABLE public.a', 'ALTER TABLE b ADD COLUMN c bigint'], {
      refuse: ['require-table-schema'],
    });
    expect(brief(findings)).toContain('require-table-schema refused');
  });

  test('leave out what the profile excludes, and time-outs, which are set for the migration', async () => {
    expect(brief((await lint(['DROP TABLE a'])).findings)).toEqual(['ban-drop-table advice']);
    expect((await lint(['DROP TABLE a'], { exclude: ['ban-drop-table'] })).findings).toEqual([]);
  });

  test('are not silenced by a comment of the release', async () => {
    const { findings } = await lint(['-- squawk-ignore-file\nDROP TABLE a -- squawk-ignore ban-drop-table']);
    expect(brief(findings)).toContain('ban-drop-table advice');
  });

  test('say which statements could not be read, and look at the others', async () => {
    const { findings } = await lint(['DROP TABLE a', 'DROP TABEL b', 'CREATE VIEW v AS SELECT 1, 2, (SELECT …']);
    expect(brief(findings)).toEqual(['ban-drop-table advice', 'not-linted advice', 'not-linted advice']);
    expect(findings[1]).toMatchObject({
      statement: 'DROP TABEL b',
      message: expect.stringContaining('squawk cannot read it'),
    });
  });

  test('are given for statements as drivers take them, with values struck out', async () => {
    const { findings } = await lint([
      "UPDATE a SET b = %(b)s WHERE c = '?'",
      'INSERT INTO a VALUES (?, $2::INTEGER)',
      "CREATE TYPE e AS ENUM ('?', '?')",
      "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS '?'",
    ]);
    expect(brief(findings).filter((text) => text.startsWith('not-linted'))).toEqual([]);
  });

  test("leave Alembic's own table alone", async () => {
    const { findings } = await lint([
      'CREATE TABLE alembic_version (\n\tversion_num VARCHAR(32) NOT NULL, \n\tCONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)\n)',
      "INSERT INTO alembic_version (version_num) VALUES ('?')",
    ]);
    expect(findings).toEqual([]);
  });

  test('of many statements are bounded, and what is refused is never left out', async () => {
    const statements = [
      ...Array.from({ length: 450 }, (_, index) => `ALTER TABLE t${index} DROP COLUMN c`),
      'DROP TABLE a',
    ];
    const { findings } = await lint(statements, { refuse: ['ban-drop-table'] });
    expect(findings[0]).toMatchObject({ rule: 'ban-drop-table', level: 'refused' });
    expect(findings).toHaveLength(201);
    expect(findings.at(-1)?.message).toMatch(/251 more findings/);
  });
});

test.each(drivers)('the SQL of a real upgrade can be read, as it is reported with %s', async (driver) => {
  const { options, statements } = await reportedService(
    [
      {
        id: 'r1',
        upgrade: `t = op.create_table("items",
    sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True), sa.Column("name", sa.Text(), server_default="it's 5 %"),
    sa.Column("state", sa.Enum("new", "done", name="state")), sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now()))
op.bulk_insert(t, [{"name": "a", "state": "new"}, {"name": "b", "state": "done"}])
op.execute(t.update().where(t.c.name.in_(["a", "b"])).values(state="done"))
op.execute("SELECT * FROM items WHERE name LIKE 'a%' LIMIT 3")
op.execute("""CREATE FUNCTION twice(n bigint) RETURNS bigint LANGUAGE plpgsql AS $body$
  BEGIN -- of the function
    RETURN n * 2;
  END $body$""")
op.execute("DO $$ BEGIN PERFORM twice(2); END $$")
op.execute("COMMENT ON TABLE items IS 'what is to be done; soon'")
from sqlalchemy.orm import Session
Session(op.get_bind()).execute(sa.text("DELETE FROM items WHERE name = :name"), {"name": "b"})`,
      },
      {
        id: 'r2',
        down: '"r1"',
        upgrade: `op.create_index("ix_name", "items", ["name"])
op.drop_column("items", "at")
with op.get_context().autocommit_block():
    op.create_index("ix_state", "items", ["state"], postgresql_concurrently=True, if_not_exists=True)`,
      },
    ],
    driver,
  );
  const environment = { ...options.environment, ...eachItsOwn };
  expect(await upgrade({ ...options, environment, target: 'r2' })).toMatchObject(succeeded);
  const { findings } = await lint([], { statements: statements() });
  expect(findings.map(({ rule, revision }) => [rule, revision])).toEqual([
    ['require-concurrent-index-creation', 'r2'],
    ['ban-drop-column', 'r2'],
  ]);
});

describe('the linter of a profile', () => {
  test('is refused for rules that squawk does not know, naming each', async () => {
    const options = { ...common, refuse: ['ban-drop-column', 'ban-everything', 'ban-more'], exclude: ['no-rule'] };
    expect(await lintProfileFindings(options)).toEqual([
      expect.stringMatching(/^lint\.refuse: squawk \S+ has no rule ban-everything, ban-more$/),
      expect.stringMatching(/^lint\.exclude: squawk \S+ has no rule no-rule$/),
    ]);
    await expect(lint(['DROP TABLE a'], options)).rejects.toMatchObject({ type: 'StepRefused' });
  });

  test('is refused for a rule both refused and excluded', async () => {
    const rules = ['ban-drop-column'];
    expect(await lintProfileFindings({ ...common, refuse: rules, exclude: rules })).toEqual([
      'lint: ban-drop-column is both refused and excluded',
    ]);
  });

  test('may be missing, unless there is something to refuse', async () => {
    const missing = { ...common, program: '/nowhere/squawk' };
    expect(await lintStatements({ ...missing, statements: [] })).toMatchObject({
      kind: 'not-linted',
      why: expect.stringContaining('/nowhere/squawk'),
    });
    expect(await lintProfileFindings({ ...missing, refuse: ['ban-drop-column'] })).toEqual([
      expect.stringMatching(/names ban-drop-column, but \/nowhere\/squawk does not exist/),
    ]);
  });

  test('that refuses rules is kept to where no statement was seen', async () => {
    expect(await lintStatements({ ...common, statements: [] })).toMatchObject({
      kind: 'not-linted',
      why: expect.stringContaining('no statement of the upgrade was reported'),
    });
    await expect(lintStatements({ ...common, refuse: ['ban-drop-column'], statements: [] })).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringMatching(/lint\.refuse names ban-drop-column, but no statement/),
    });
  });

  test('must be squawk', async () => {
    expect(await lintStatements({ ...common, program: 'true', statements: [] })).toMatchObject({ kind: 'not-linted' });
  });
});
