import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { sha256 } from '../../src/archive/canonical.ts';
import {
  type Salvage,
  type SalvageProgress,
  salvageDifferences,
  type SalvageRequest,
} from '../../src/archive/salvage.ts';
import type { SalvageManifest } from '../../src/archive/salvage-manifest.ts';
import { runTag } from '../../src/postgres/connection.ts';
import { createService, execute, query, type TestService } from '../postgres-service.ts';
import { databaseUrl, randomName, useStack } from '../stack.ts';
import { never } from './archive-source.ts';
import { contentsOf, useRowsArchives } from './rows-archive.ts';

const server = useStack().postgres.primary;
const { store, recipient, fetched, sqlOf, loaded } = await useRowsArchives();

const manifestOf = async ({ manifest }: Salvage): Promise<SalvageManifest> =>
  JSON.parse(Buffer.from(await fetched(manifest!.uri)).toString('utf8')) as SalvageManifest;

interface Restored {
  readonly service: TestService;
  readonly copy: string;
  readonly copyUrl: string;
}

/** A production and what a restore of its backup would give, before production goes on. */
async function restored(...more: readonly string[]): Promise<Restored> {
  const service = await createService(server);
  if (more.length > 0) await execute(service.migratorUrl, ...more);
  const copy = `${service.database}_restored`;
  await execute(
    server.superuserUrl,
    `CREATE DATABASE ${copy} TEMPLATE ${service.database} OWNER ${service.roles.owner}`,
  );
  return { service, copy, copyUrl: databaseUrl(server, copy) };
}

const requestOf = ({ service, copy }: Restored, more: Partial<SalvageRequest> = {}): SalvageRequest => ({
  url: service.administratorUrl,
  copy,
  versionTable: { schema: 'public', table: 'alembic_version' },
  runId: randomUUID(),
  step: 'recovery.salvage',
  store,
  folder: `${randomName('salvage')}/service/run`,
  name: 'salvage-1',
  recipients: [recipient],
  facts: {
    service: 'notes',
    releaseTag: 'v2.0.0',
    changeTicket: 'CHG-7',
    backup: { uri: 's3://bucket/backup', capturedAt: '2026-01-01T00:00:00.000Z' },
    by: 'anybody',
  },
  signal: never(),
  progress: () => undefined,
  ...more,
});

describe('salvage', () => {
  it('exports what only production has: psql loads exactly those rows', async () => {
    const world = await restored();
    await execute(
      world.service.migratorUrl,
      `ALTER TABLE public.users ADD COLUMN rank int NOT NULL DEFAULT 1`,
      `UPDATE public.users SET name = E'tab\\there, "quotes", back\\\\slash\\nand \\\\. line' WHERE id = 3`,
      `UPDATE public.users SET state = 'done', rank = 9 WHERE id = 4`,
      `INSERT INTO public.users (id, name) VALUES (9001, 'new')`,
      'DELETE FROM public.notes WHERE id IN (7, 8)',
      'CREATE TABLE public.exports (id int, what text)',
      `INSERT INTO public.exports VALUES (1, NULL), (2, '')`,
      `UPDATE public.alembic_version SET version_num = '0003'`,
    );
    const beats: SalvageProgress[] = [];
    const request = requestOf(world, { progress: (now) => beats.push(now) });
    const salvage = await salvageDifferences(request);

    expect(salvage.tables).toEqual([
      { table: 'public.exports', inserted: 2, updated: 0, deleted: 0 },
      { table: 'public.notes', inserted: 0, updated: 0, deleted: 2 },
      { table: 'public.users', inserted: 1, updated: 2, deleted: 0 },
    ]);
    expect(salvage.unknown).toEqual(['public.users (what was written to new column rank)']);
    expect(beats.some(({ phase, table }) => phase === 'compare' && table === 'public.users')).toBe(true);
    expect(beats.at(-1)).toMatchObject({ phase: 'export', table: 'public.users', rows: 7 });

    const manifest = await manifestOf(salvage);
    expect(manifest.schema).toBe(`salvage_${runTag(request.runId)}`);
    const url = await loaded(salvage.archive!);
    expect(await contentsOf(url, manifest.schema)).toEqual({
      exports__inserted: ['(1,)', '(2,"")'],
      notes__deleted: ['(7)', '(8)'],
      users__inserted: ['(9001,new,person,new,1)'],
      users__updated: [
        '(3,"tab\there, ""quotes"", back\\\\slash\nand \\\\. line",person,new,1)',
        '(4,"user 4",person,done,9)',
      ],
    });
  });

  it('says in its manifest what it compared and how, names no row, and fits the object beside it', async () => {
    const world = await restored();
    await execute(
      world.service.migratorUrl,
      `ALTER TABLE public.notes ADD COLUMN state public.state, ALTER body TYPE varchar(900)`,
      `UPDATE public.notes SET body = 'the secret of user five' WHERE id = 5`,
    );
    const salvage = await salvageDifferences(requestOf(world));
    const manifest = await manifestOf(salvage);
    expect(manifest).toMatchObject({
      format: 'migration-runbook/salvage/1',
      service: 'notes',
      copy: world.copy,
      production: { database: world.service.database },
      tables: [
        {
          table: 'public.notes',
          presence: 'both',
          key: ['id'],
          compared: ['id', 'user_id', 'body'],
          retyped: ['body'],
          onlyInProduction: ['state'],
          updated: 1,
          exported: [
            {
              name: 'notes__updated',
              kind: 'updated',
              rows: 1,
              columns: [
                { name: 'id', type: 'bigint' },
                { name: 'user_id', type: 'bigint' },
                { name: 'body', type: 'character varying(900)' },
                { name: 'state', type: 'text', was: 'public.state' },
              ],
            },
          ],
        },
      ],
    });
    const text = Buffer.from(await fetched(salvage.manifest!.uri)).toString('utf8');
    expect(text).not.toContain('secret of user five');
    const object = await fetched(salvage.archive!.uri);
    expect(sha256(object)).toBe(manifest.archive.sha256);
    expect(Buffer.from(object).toString('latin1')).not.toContain('secret of user five');
    expect(manifest.load.at(-1)).toContain('age --decrypt');
  });

  it('names what the migration dropped: nobody has what was written there after the backup', async () => {
    const world = await restored(
      'ALTER TABLE public.users ADD COLUMN remark text, ADD COLUMN loud text GENERATED ALWAYS AS (upper(name)) STORED',
      'CREATE TABLE public."Old list" (id int)',
    );
    await execute(
      world.service.migratorUrl,
      `UPDATE public.users SET remark = 'written after the backup' WHERE id = 3`,
      `INSERT INTO public."Old list" VALUES (1)`,
      // What is generated can be generated again.
      'ALTER TABLE public.users DROP COLUMN remark, DROP COLUMN loud',
      'DROP TABLE public."Old list"',
    );
    const salvage = await salvageDifferences(requestOf(world));
    // No row differs by what is left of them: without this list nothing would tell of it.
    expect(salvage).toMatchObject({ tables: [], archive: null });
    expect(salvage.lost).toEqual(['public."Old list"', 'public.users (column remark)']);

    const behindFence = requestOf(world);
    const facts = { ...behindFence.facts, by: 'migration' } as const;
    expect((await salvageDifferences({ ...behindFence, facts })).lost).toEqual([]);

    await execute(world.service.migratorUrl, `INSERT INTO public.users (id, name) VALUES (9001, 'new')`);
    const manifest = await manifestOf(await salvageDifferences(behindFence));
    expect(manifest.gone).toEqual([
      { table: 'public."Old list"', columns: [] },
      { table: 'public.users', columns: ['remark'] },
    ]);
  });

  it('stores nothing where nothing differs, and takes away what an earlier attempt stored', async () => {
    const world = await restored();
    const request = requestOf(world);
    await execute(world.service.migratorUrl, `INSERT INTO public.users (id, name) VALUES (9001, 'new')`);
    const first = await salvageDifferences(request);
    expect(first.archive).not.toBeNull();
    await execute(world.service.migratorUrl, 'DELETE FROM public.users WHERE id = 9001');
    expect(await salvageDifferences(request)).toEqual({
      tables: [],
      unknown: [],
      lost: [],
      archive: null,
      manifest: null,
    });
    expect(await store.list(request.folder, never())).toEqual([]);
  });

  it('replaces what an earlier attempt stored', async () => {
    const world = await restored();
    const request = requestOf(world);
    await execute(world.service.migratorUrl, `INSERT INTO public.users (id, name) VALUES (9001, 'new')`);
    await salvageDifferences(request);
    await execute(world.service.migratorUrl, `INSERT INTO public.users (id, name) VALUES (9002, 'newer')`);
    const second = await salvageDifferences(request);
    expect((await store.list(request.folder, never())).map(({ key }) => key.split('/').at(-1))).toEqual([
      'salvage-1.json',
      'salvage-1.sql.zst.age',
    ]);
    expect((await manifestOf(second)).tables[0]?.inserted).toBe(2);
    expect(await sqlOf(second.archive!)).toContain('9002\tnewer');
  });

  it('leaves what another export stored: after a swap whose answer was lost its rows are gone from production', async () => {
    const world = await restored();
    const request = requestOf(world);
    await execute(world.service.migratorUrl, `INSERT INTO public.users (id, name) VALUES (9001, 'new')`);
    const first = await salvageDifferences(request);
    // As the swap leaves it: what is production now holds what the copy does.
    await execute(world.service.migratorUrl, 'DELETE FROM public.users WHERE id = 9001');
    expect((await salvageDifferences({ ...request, name: 'salvage-2' })).archive).toBeNull();
    expect(await sqlOf(first.archive!)).toContain('9001\tnew');
  });

  it('takes names of every kind, long ones that begin alike, and types of the service and of all arrays', async () => {
    const long = 'ü'.repeat(29);
    const world = await restored(
      'CREATE SCHEMA "Odd ""Schema"""',
      `CREATE TABLE public.${long} (id int PRIMARY KEY)`,
      `CREATE TABLE public.${long}_2 (id int PRIMARY KEY)`,
      `CREATE TYPE public.pair AS (a int, b text)`,
      'CREATE DOMAIN public.small AS int CHECK (VALUE < 10)',
      `CREATE TABLE "Odd ""Schema"""."it's; -- a \\table" (
         "key ""1""" text PRIMARY KEY, p public.pair, ps public.pair[], d public.small, s public.state[], n numeric(8,3)[], r int4range, m int4multirange,
         t timestamptz(3), i interval, b bytea, j jsonb, c char(4), q "char", money money, g int GENERATED ALWAYS AS (1 + 1) STORED, reg regclass)`,
    );
    await execute(
      world.service.migratorUrl,
      `INSERT INTO public.${long} VALUES (1)`,
      `INSERT INTO public.${long}_2 VALUES (2)`,
      `INSERT INTO "Odd ""Schema"""."it's; -- a \\table" VALUES
         (E'a\\nb', '(1,"x, y")', '{"(1,a)","(2,)"}', 5, '{new,done}', '{1.5,NULL}', '[1,5)', '{[1,2),[5,6)}', '2026-03-01 12:00:00.123456+02',
          '-1 mon -2 days 03:04:05', '\\x00ff', '{"a": [1]}', 'ab', 'z', 12.5, DEFAULT, 'public.users')`,
    );
    const salvage = await salvageDifferences(requestOf(world));
    const { schema } = await manifestOf(salvage);
    const url = await loaded(salvage.archive!);
    const contents = await contentsOf(url, schema);
    expect(Object.keys(contents).sort()).toEqual(
      [
        `Odd "Schema".it's; -- a \\table__inserted`,
        `${'ü'.repeat(26)}__inserted`,
        `${'ü'.repeat(25)}_2__inserted`,
      ].sort(),
    );
    const table = `Odd "Schema".it's; -- a \\table__inserted`;
    const columns = await query<{ name: string; type: string }>(
      url,
      `SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
       WHERE attrelid = (SELECT oid FROM pg_class WHERE relname = $1) AND attnum > 0 ORDER BY attnum`,
      [table],
    );
    expect(Object.fromEntries(columns.map(({ name, type }) => [name, type]))).toEqual({
      'key "1"': 'text',
      p: 'text',
      ps: 'text',
      d: 'text',
      s: 'text',
      n: 'numeric(8,3)[]',
      r: 'int4range',
      m: 'int4multirange',
      t: 'timestamp(3) with time zone',
      i: 'interval',
      b: 'bytea',
      j: 'jsonb',
      c: 'character(4)',
      q: '"char"',
      money: 'text',
      g: 'integer',
      reg: 'text',
    });
    // Put back where they came from, the rows are the same again.
    const [there] = await query<{ row: string }>(
      world.service.superuserUrl,
      `SELECT t::text AS row FROM "Odd ""Schema"""."it's; -- a \\table" t`,
    );
    expect(contents[table]).toEqual([there!.row.replace('$12.50', '12.50').replace(',users)', ',public.users)')]);
  });

  it('exports large objects page by page', async () => {
    const world = await restored(`SELECT lo_from_bytea(42, 'as it was')`);
    await execute(
      world.service.migratorUrl,
      `SELECT lo_put(42, 0, 'AS')`,
      `SELECT lo_from_bytea(43, decode(repeat('abcd', 700000), 'hex'))`,
      `SELECT lo_from_bytea(44, '')`,
    );
    await execute(
      world.copyUrl,
      `SELECT lo_from_bytea(45, 'gone')`,
      `ALTER LARGE OBJECT 45 OWNER TO ${world.service.roles.owner}`,
    );
    const salvage = await salvageDifferences(requestOf(world));
    expect(salvage.tables).toEqual([{ table: 'large objects', inserted: 2, updated: 1, deleted: 1 }]);
    const { schema } = await manifestOf(salvage);
    const url = await loaded(salvage.archive!);
    const objects = await query(
      url,
      `SELECT oid::int, length(string_agg(data, '' ORDER BY page)) AS bytes, md5(string_agg(data, '' ORDER BY page)) AS md5
       FROM (TABLE ${schema}.large_objects__inserted UNION ALL TABLE ${schema}.large_objects__updated) o GROUP BY oid ORDER BY oid`,
    );
    const originals = await query(
      world.service.superuserUrl,
      `SELECT oid::int, length(lo_get(oid)) AS bytes, md5(lo_get(oid)) AS md5 FROM pg_largeobject_metadata ORDER BY oid`,
    );
    expect(objects).toEqual(originals);
    expect(await query(url, `SELECT oid::int FROM ${schema}.large_objects__deleted`)).toEqual([{ oid: 45 }]);
  });

  it('works behind the fence and leaves no session', async () => {
    const world = await restored();
    const { database } = world.service;
    await execute(world.service.migratorUrl, `UPDATE public.users SET name = 'x' WHERE id <= 3000`);
    await execute(server.superuserUrl, `ALTER DATABASE ${database} SET default_transaction_read_only = on`);
    const salvage = await salvageDifferences(requestOf(world));
    expect(salvage.tables).toEqual([{ table: 'public.users', inserted: 0, updated: 500, deleted: 0 }]);
    // Autovacuum comes and goes by itself.
    const open = await query(
      server.superuserUrl,
      `SELECT application_name FROM pg_stat_activity WHERE datname IN ($1, $2) AND backend_type <> 'autovacuum worker'`,
      [database, world.copy],
    );
    expect(open).toEqual([]);
  });

  it('reads one snapshot: what is written while it reads is left to the database kept aside', async () => {
    const world = await restored();
    await execute(world.service.migratorUrl, `INSERT INTO public.users (id, name) VALUES (9001, 'before')`);
    let written: Promise<void> | undefined;
    const salvage = await salvageDifferences(
      requestOf(world, {
        progress: ({ phase }) => {
          if (phase === 'compare')
            written ??= execute(
              world.service.migratorUrl,
              `INSERT INTO public.users (id, name) VALUES (9002, 'after')`,
            );
        },
      }),
    );
    await written;
    expect(await sqlOf(salvage.archive!)).toContain('9001\tbefore');
    expect(await sqlOf(salvage.archive!)).not.toContain('9002\tafter');
  });

  it('is cancelled in the midst of the export: no object, no upload and no session stays', async () => {
    const world = await restored();
    await execute(
      world.service.migratorUrl,
      'CREATE TABLE public.bulk (v text)',
      // Compressed more than the three parts that fill or travel: the text cannot end before the store has taken the first.
      `INSERT INTO public.bulk SELECT encode(sha512(n::text::bytea), 'base64') || encode(sha512((-n)::text::bytea), 'base64')
       FROM generate_series(1, 300000) n`,
    );
    const abort = new AbortController();
    const request = requestOf(world, {
      signal: abort.signal,
      progress: ({ stored }) => {
        if (stored > 0) abort.abort(new Error('stopped by the test'));
      },
    });
    await expect(salvageDifferences(request)).rejects.toThrow('stopped by the test');
    expect(await store.list(request.folder, never())).toEqual([]);
    expect(await store.abortUploads(`${request.folder}/recovery/salvage-1.sql.zst.age`, never())).toBe(0);
    const sessions = `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname IN ('${world.service.database}', '${world.copy}')`;
    await expect.poll(async () => (await query<{ n: number }>(server.superuserUrl, sessions))[0]?.n).toBe(0);
  });
});
