import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { type ArrivalsManifest, type ArrivalsRequest, countArrivals } from '../../src/archive/arrivals.ts';
import type { Arrivals } from '../../src/contract/evidence/rollback.ts';
import type { DroppedObject } from '../../src/contract/evidence/rehearsal.ts';
import { runTag, withConnection } from '../../src/postgres/connection.ts';
import { readCounters } from '../../src/postgres/contents/write-counters.ts';
import { countNewObjects, droppedSince, namesHeld } from '../../src/rehearsal/dropped.ts';
import { createService, execute, query, type TestService, withClient } from '../postgres-service.ts';
import { databaseUrl, randomName, useStack } from '../stack.ts';
import { never } from './archive-source.ts';
import { contentsOf, useRowsArchives } from './rows-archive.ts';

const server = useStack().postgres.primary;
const archives = await useRowsArchives();
const { store, recipient, fetched } = archives;

const UPGRADE = [
  'CREATE TABLE public.exports (id bigserial PRIMARY KEY, what text, state public.state)',
  `INSERT INTO public.exports (what) VALUES ('seeded by the migration')`,
  'ALTER TABLE public.users ADD COLUMN nickname text',
  'ALTER TABLE public.users ADD COLUMN rank integer NOT NULL DEFAULT 0',
  'ALTER TABLE public.notes ADD COLUMN "Full Text" text',
  `UPDATE public.notes SET "Full Text" = body WHERE id <= 100`,
];
const DOWNGRADE = [
  'DROP TABLE public.exports',
  'ALTER TABLE public.users DROP COLUMN nickname, DROP COLUMN rank',
  'ALTER TABLE public.notes DROP COLUMN "Full Text"',
];

/** What a rehearsal on a copy finds to be dropped. */
async function rehearsed(service: TestService, upgrade = UPGRADE, downgrade = DOWNGRADE): Promise<DroppedObject[]> {
  const copy = randomName(`${service.database}_copy`).slice(0, 60);
  await execute(server.superuserUrl, `CREATE DATABASE ${copy} TEMPLATE ${service.database}`);
  const url = databaseUrl(server, copy);
  return withConnection(url, { runId: 'r', step: 's', signal: never() }, async (client) => {
    const before = await namesHeld(client);
    for (const statement of upgrade) await client.query(statement);
    const added = await countNewObjects(client, before, 'public.alembic_version');
    for (const statement of downgrade) await client.query(statement);
    return droppedSince(client, added);
  });
}

const requestOf = (
  service: TestService,
  dropped: readonly DroppedObject[],
  more: Partial<ArrivalsRequest> = {},
): ArrivalsRequest => ({
  url: service.administratorUrl,
  dropped,
  runId: randomUUID(),
  step: 'recovery.arrivals',
  store,
  folder: `${randomName('arrivals')}/service/run`,
  name: 'arrivals-1',
  recipients: [recipient],
  facts: { service: 'notes', releaseTag: 'v2.0.0', changeTicket: 'CHG-7' },
  signal: never(),
  progress: () => undefined,
  ...more,
});

/** Loads the archive; all rows of all its tables, as text. */
const loaded = async ({ archive }: Arrivals, runId: string): Promise<Record<string, string[]>> =>
  contentsOf(await archives.loaded(archive!), `arrivals_${runTag(runId)}`);

describe('what came into objects that a downgrade drops', () => {
  it('is nothing while nobody wrote: what the migration put there is no arrival', async () => {
    const service = await createService(server);
    const dropped = await rehearsed(service);
    expect(dropped).toEqual([
      { table: 'public.exports', column: null, rows: 1 },
      { table: 'public.notes', column: 'Full Text', rows: 100 },
      { table: 'public.users', column: 'nickname', rows: 0 },
      { table: 'public.users', column: 'rank', rows: 500, beyondDefault: 0 },
    ]);
    await execute(service.migratorUrl, ...UPGRADE);
    const request = requestOf(service, dropped);
    const arrivals = await countArrivals(request);
    expect(arrivals).toMatchObject({ total: 0, archive: null, unknown: [] });
    expect(await store.list(request.folder, never())).toEqual([]);
  });

  it('is counted and exported: tables whole, of a column its values with their key', async () => {
    const service = await createService(server);
    const dropped = await rehearsed(service);
    await execute(service.migratorUrl, ...UPGRADE);
    await execute(
      service.applicationUrl,
      `INSERT INTO public.exports (what, state) VALUES (E'tab\\t"quote"\\nline \\\\. end', 'done'), (NULL, NULL)`,
      `UPDATE public.users SET nickname = 'bob' WHERE id = 3`,
      'UPDATE public.users SET rank = 7 WHERE id IN (4, 5)',
    );
    const request = requestOf(service, dropped);
    const arrivals = await countArrivals(request);
    expect(arrivals).toMatchObject({
      total: 5,
      unknown: [],
      objects: [
        { table: 'public.exports', column: null, rows: 1, found: 3 },
        { table: 'public.users', column: 'rank', rows: 500, found: 502 },
        { table: 'public.users', column: 'nickname', rows: 0, found: 1 },
        { table: 'public.notes', column: 'Full Text', rows: 100, found: 100 },
      ],
    });
    expect(await loaded(arrivals, request.runId)).toEqual({
      exports__held: ['(1,"seeded by the migration",)', '(2,"tab\t""quote""\nline \\\\. end",done)', '(3,,)'],
      'users.nickname__held': ['(3,bob)'],
      'users.rank__held': ['(4,7)', '(5,7)'],
    });
    const manifest = JSON.parse(
      Buffer.from(await fetched(arrivals.archive!.uri.replace('.sql.zst.age', '.json'))).toString('utf8'),
    ) as ArrivalsManifest;
    expect(manifest).toMatchObject({
      format: 'migration-runbook/arrivals/1',
      service: 'notes',
      production: { database: service.database },
      exported: [
        { name: 'exports__held', source: 'public.exports', kind: 'held', rows: 3 },
        { name: 'users.nickname__held', rows: 1 },
        { name: 'users.rank__held', rows: 2 },
      ],
    });
    expect(JSON.stringify(manifest)).not.toContain('bob');
  });

  it('is told and exported where rows were changed or deleted in place, which no count shows', async () => {
    const service = await createService(server);
    const dropped = await rehearsed(service);
    await execute(service.migratorUrl, ...UPGRADE);
    const since = await withClient(service.administratorUrl, readCounters);
    const unchanged = requestOf(service, dropped, { since });
    expect(await countArrivals(unchanged)).toMatchObject({ total: 0, archive: null, unseen: [] });

    await execute(
      service.applicationUrl,
      `INSERT INTO public.exports (what) VALUES ('mine')`,
      `DELETE FROM public.exports WHERE what LIKE 'seeded%'`,
      `UPDATE public.notes SET "Full Text" = 'mine' WHERE id = 7`,
    );
    const request = requestOf(service, dropped, { since });
    const arrivals = await countArrivals(request);
    expect(arrivals).toMatchObject({
      total: 0,
      unseen: [
        'public.exports (since the upgrade ended 0 row(s) were changed and 1 deleted, 1 inserted)',
        'public.notes (since the upgrade ended 1 row(s) were changed and 0 deleted, 0 inserted)',
      ],
    });
    const rows = await loaded(arrivals, request.runId);
    expect(rows['exports__held']).toEqual(['(2,mine,)']);
    expect(rows['notes.Full Text__held']).toHaveLength(100);
    expect(rows['notes.Full Text__held']).toContain('(7,mine)');
    expect(Object.keys(rows)).toHaveLength(2);
  });

  it('is told as possible where counters say nothing: not noted, or of a table made anew', async () => {
    const service = await createService(server);
    const dropped = await rehearsed(service);
    await execute(service.migratorUrl, ...UPGRADE);
    expect((await countArrivals(requestOf(service, dropped))).unseen.join()).toContain('was not noted');
    const since = await withClient(service.administratorUrl, readCounters);
    await execute(service.superuserUrl, 'TRUNCATE public.exports');
    const { unseen } = await countArrivals(requestOf(service, dropped, { since }));
    expect(unseen).toEqual(['public.exports (its counters do not tell whether rows were changed or deleted)']);
  });

  it('is no row that has the default alone: every new row has it', async () => {
    const service = await createService(server);
    const dropped = await rehearsed(service);
    await execute(service.migratorUrl, ...UPGRADE);
    await execute(service.applicationUrl, `INSERT INTO public.users (name) VALUES ('new'), ('newer')`);
    expect(await countArrivals(requestOf(service, dropped))).toMatchObject({ total: 0 });
  });

  it('is every new row where the default is no constant: it cannot be told from a value somebody chose', async () => {
    const service = await createService(server);
    const defaults: readonly (readonly [string, string])[] = [
      ['jsonb', `'{}'`],
      ['public.state', `'new'`],
      ['numeric(5,2)', '-1.50'],
      ['boolean', 'false'],
      ['text[]', `'{}'`],
      ['varchar(20)', `'it''s'`],
      ['interval', `'1 day'`],
      ['integer', 'NULL'],
      ['timestamptz', 'now()'],
      ['uuid', 'gen_random_uuid()'],
      ['integer', '1 + 1'],
    ];
    const upgrade = defaults.map(
      ([type, value], index) => `ALTER TABLE public.notes ADD COLUMN c${index} ${type} DEFAULT ${value}`,
    );
    const downgrade = defaults.map((_, index) => `ALTER TABLE public.notes DROP COLUMN c${index}`);
    const dropped = await rehearsed(service, upgrade, downgrade);
    await execute(service.migratorUrl, ...upgrade);
    await execute(service.applicationUrl, `INSERT INTO public.notes (user_id, body) VALUES (1, 'new')`);
    const { objects } = await countArrivals(requestOf(service, dropped));
    const came = objects.filter(({ found, rows }) => found > rows).map(({ column }) => column);
    expect(came).toEqual(['c8', 'c9', 'c10']);
  });

  it('is nothing in objects that are not there: the upgrade was stopped before it made them', async () => {
    const service = await createService(server);
    const dropped = await rehearsed(service);
    await execute(service.migratorUrl, UPGRADE[2]!);
    await execute(service.applicationUrl, `UPDATE public.users SET nickname = 'al' WHERE id = 9`);
    const request = requestOf(service, dropped);
    const arrivals = await countArrivals(request);
    expect(arrivals).toMatchObject({ total: 1, unknown: [] });
    expect(arrivals.objects.filter(({ found }) => found > 0)).toEqual([
      { table: 'public.users', column: 'nickname', rows: 0, found: 1 },
    ]);
    expect(await loaded(arrivals, request.runId)).toEqual({ 'users.nickname__held': ['(9,al)'] });
  });

  it('is counted in partitioned tables, odd names and tables without a key', async () => {
    const service = await createService(server);
    const upgrade = [
      'CREATE SCHEMA "Odd Schema"',
      'CREATE TABLE "Odd Schema"."what ""is""" (day date, value int) PARTITION BY RANGE (day)',
      `CREATE TABLE "Odd Schema".early PARTITION OF "Odd Schema"."what ""is""" FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')`,
      'ALTER TABLE public.notes DROP CONSTRAINT notes_pkey, ADD COLUMN mark int',
    ];
    const dropped = await rehearsed(service, upgrade, [
      'DROP SCHEMA "Odd Schema" CASCADE',
      'ALTER TABLE public.notes DROP COLUMN mark',
    ]);
    expect(dropped.map(({ table, column }) => [table, column])).toEqual([
      ['"Odd Schema"."what ""is"""', null],
      ['public.notes', 'mark'],
    ]);
    await execute(
      service.migratorUrl,
      ...upgrade,
      `INSERT INTO "Odd Schema"."what ""is""" VALUES ('2026-03-01', 5)`,
      'UPDATE public.notes SET mark = 1 WHERE id = 2',
    );
    const request = requestOf(service, dropped);
    const arrivals = await countArrivals(request);
    expect(arrivals.total).toBe(2);
    expect(await loaded(arrivals, request.runId)).toEqual({
      'Odd Schema.what "is"__held': ['(2026-03-01,5)'],
      'notes.mark__held': [`(2,3,${'x'.repeat(200)},1)`],
    });
  });

  it('is told as not known where it cannot be counted, and the rest is counted', async () => {
    const service = await createService(server);
    const dropped = await rehearsed(service);
    await execute(service.migratorUrl, ...UPGRADE);
    await execute(service.applicationUrl, `UPDATE public.users SET nickname = 'bob' WHERE id = 3`);
    await withClient(service.superuserUrl, async (blocker) => {
      await blocker.query('BEGIN');
      await blocker.query('LOCK TABLE public.exports IN ACCESS EXCLUSIVE MODE');
      const limits = { statement: 60_000, lock: 200 };
      const arrivals = await countArrivals(requestOf(service, dropped, { limits }));
      expect(arrivals).toMatchObject({ total: 1, unknown: ['public.exports (it is locked for more than 0.2 s)'] });
      expect(arrivals.archive).not.toBeNull();
    });
    const limits = { statement: 1, lock: 5_000 };
    await execute(
      service.superuserUrl,
      `INSERT INTO public.exports (what) SELECT repeat('x', 100) FROM generate_series(1, 100000)`,
    );
    const slow = await countArrivals(requestOf(service, dropped, { limits }));
    expect(slow.unknown).toContain('public.exports (counting takes longer than 0.001 s)');
  });

  it('says so where a policy hides rows', async () => {
    const service = await createService(server);
    const dropped = await rehearsed(service);
    await execute(
      service.migratorUrl,
      ...UPGRADE,
      'ALTER TABLE public.exports ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
    );
    const { unknown } = await countArrivals(requestOf(service, dropped));
    expect(unknown).toEqual([expect.stringMatching(/^public\.exports \(.*BYPASSRLS/)]);
  });

  it('keeps what an earlier count exported: the downgrade may have dropped the rows since', async () => {
    const service = await createService(server);
    const dropped = await rehearsed(service);
    await execute(service.migratorUrl, ...UPGRADE);
    await execute(service.applicationUrl, `INSERT INTO public.exports (what) VALUES ('precious')`);
    const request = requestOf(service, dropped);
    const first = await countArrivals(request);
    await execute(service.migratorUrl, ...DOWNGRADE);
    const second = await countArrivals({ ...request, name: 'arrivals-2' });
    expect(second).toMatchObject({ total: 0, archive: null });
    expect(await loaded(first, request.runId)).toEqual({
      exports__held: ['(1,"seeded by the migration",)', '(2,precious,)'],
    });
  });

  it('stores nothing when it is stopped, and can be repeated', async () => {
    const service = await createService(server);
    const dropped = await rehearsed(service);
    await execute(service.migratorUrl, ...UPGRADE);
    await execute(
      service.superuserUrl,
      `INSERT INTO public.exports (what) SELECT repeat('x', 1000) || g FROM generate_series(1, 20000) g`,
    );
    const stop = new AbortController();
    const request = requestOf(service, dropped, {
      signal: stop.signal,
      progress: ({ phase }) => {
        if (phase === 'export') stop.abort(new Error('stopped'));
      },
    });
    await expect(countArrivals(request)).rejects.toThrow('stopped');
    expect(await store.list(request.folder, never())).toEqual([]);
    const again = await countArrivals({ ...request, signal: never(), progress: () => undefined });
    expect(again.total).toBe(20_000);
    expect((await store.list(request.folder, never())).map(({ key }) => key.split('/').at(-1))).toEqual([
      'arrivals-1.json',
      'arrivals-1.sql.zst.age',
    ]);
    expect(
      await query(service.superuserUrl, `SELECT FROM pg_stat_activity WHERE application_name LIKE $1`, [
        `migration-runbook/${runTag(request.runId)}%`,
      ]),
    ).toEqual([]);
  });
});
