import { createServer, connect, type Server, type AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../src/postgres/connection.ts';
import { captureObjectMap, type ObjectMap } from '../../src/postgres/catalog/object-map.ts';
import { compareForRestore } from '../../src/postgres/catalog/object-map-restore.ts';
import { neutralize } from '../../src/rehearsal/neutralize.ts';
import { createService, execute, query, type TestService } from '../postgres-service.ts';
import { createDatabase, createRole, databaseUrl, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { never } from './archive-source.ts';
import { type RehearsedService, rehearsedService } from './rehearsal-world.ts';

const { primary, scratch } = useStack().postgres;
const session = { runId: 'isolation', step: 'test', signal: never() };

/** A way to the primary that counts who goes along it. */
class CountingGate {
  readonly #server: Server;
  connections = 0;

  constructor() {
    this.#server = createServer((incoming) => {
      this.connections += 1;
      const outgoing = connect(primary.port, primary.host);
      for (const socket of [incoming, outgoing]) socket.on('error', () => socket.destroy());
      incoming.pipe(outgoing).pipe(incoming);
    });
  }

  async open(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
  }
}

describe('a database with foreign tables', () => {
  const gate = new CountingGate();
  let profiles: string;
  let production: TestService;
  let service: RehearsedService;
  let restored: Awaited<ReturnType<RehearsedService['restore']>>;
  let password: string;

  beforeAll(async () => {
    profiles = await temporaryDirectory('isolation');
    const port = await gate.open();
    production = await createService(primary);
    const { owner, application } = production.roles;
    const far = await createDatabase(primary, 'far');
    const reader = await createRole(primary, 'reader');
    ({ password } = reader);
    await execute(
      far.url,
      'CREATE TABLE public.rates (id int, rate numeric)',
      'INSERT INTO public.rates VALUES (1, 1.5), (2, 2.5)',
      `GRANT SELECT ON public.rates TO ${reader.name}`,
    );
    const mapped = `OPTIONS (user '${reader.name}', password '${password}')`;
    await execute(
      production.superuserUrl,
      'CREATE EXTENSION postgres_fdw',
      'CREATE EXTENSION dblink',
      `CREATE SERVER "Far away" FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '${port}', dbname '${far.name}')`,
      `CREATE USER MAPPING FOR ${owner} SERVER "Far away" ${mapped}`,
      `CREATE USER MAPPING FOR PUBLIC SERVER "Far away" ${mapped}`,
      `ALTER SERVER "Far away" OWNER TO ${owner}`,
      `GRANT USAGE ON FOREIGN SERVER "Far away" TO ${owner}, ${application}`,
      `SET ROLE ${owner}`,
      `CREATE FOREIGN TABLE public.rates (id int, rate numeric) SERVER "Far away"`,
      'CREATE VIEW public.good_rates AS SELECT * FROM public.rates WHERE rate > 2',
      'CREATE MATERIALIZED VIEW public.rates_kept AS SELECT * FROM public.good_rates',
      'CREATE MATERIALIZED VIEW public.rates_counted AS SELECT count(*) AS n FROM public.rates_kept',
      'CREATE MATERIALIZED VIEW public.rates_unread AS SELECT * FROM public.rates WITH NO DATA',
      'CREATE MATERIALIZED VIEW public.people_kept AS SELECT * FROM public.people',
      'CREATE TABLE public.sales (id int, far boolean) PARTITION BY LIST (far)',
      'CREATE TABLE public.sales_near PARTITION OF public.sales FOR VALUES IN (false)',
      `CREATE FOREIGN TABLE public.sales_far PARTITION OF public.sales FOR VALUES IN (true) SERVER "Far away" OPTIONS (table_name 'rates')`,
      'INSERT INTO public.sales_near SELECT g, false FROM generate_series(1, 50) g',
    );
    if (gate.connections === 0) throw new Error('nobody has read the foreign table through the gate');
    service = await rehearsedService(profiles, production);
    gate.connections = 0;
    restored = await service.restore();
  });
  afterAll(async () => {
    await service.drop();
    for (const role of Object.values(production.roles))
      await execute(scratch.superuserUrl, `DROP ROLE IF EXISTS "${role}"`);
    gate.close();
  });

  const inCopy = <Row extends object>(text: string): Promise<Row[]> =>
    query<Row>(databaseUrl(scratch, restored.database), text);

  it('is restored, equal to its ledger, without a connection to where they lead', () => {
    expect(gate.connections).toBe(0);
    expect(restored.restored).toMatchObject({ rows: 2551, tables: 4 });
    expect(restored.neutralized).toEqual([
      'foreign server "Far away" (postgres_fdw) leads nowhere',
      expect.stringMatching(/^user mapping of .* for foreign server "Far away" holds no credentials$/),
      expect.stringMatching(/^user mapping of .* for foreign server "Far away" holds no credentials$/),
    ]);
    expect(restored.unknown).toEqual([
      'materialized view public.rates_counted has no rows in the rehearsal: it reads foreign tables',
      'materialized view public.rates_kept has no rows in the rehearsal: it reads foreign tables',
      'materialized view public.rates_unread has no rows in the rehearsal: it reads foreign tables',
      expect.stringMatching(/extension dblink may reach other hosts/),
    ]);
  });

  it('reaches nobody afterwards, and knows no password', async () => {
    await expect(inCopy('SELECT * FROM public.rates')).rejects.toThrow('could not connect to server');
    await expect(inCopy('INSERT INTO public.sales VALUES (1, true)')).rejects.toThrow('could not connect to server');
    await expect(inCopy(`SELECT * FROM dblink('Far away', 'SELECT 1') AS t (n int)`)).rejects.toThrow(
      'could not establish',
    );
    expect(JSON.stringify(await inCopy('SELECT umoptions FROM pg_user_mappings'))).not.toContain(password);
    expect(gate.connections).toBe(0);
  });

  it('has the rows of the materialized views that read no foreign table', async () => {
    const populated = await inCopy('SELECT matviewname AS name, ispopulated AS rows FROM pg_matviews ORDER BY 1');
    expect(populated).toEqual([
      { name: 'people_kept', rows: true },
      { name: 'rates_counted', rows: false },
      { name: 'rates_kept', rows: false },
      { name: 'rates_unread', rows: false },
    ]);
  });
});

describe('cutting off', () => {
  const empty = async (...statements: readonly string[]): Promise<string> => {
    const { url } = await createDatabase(scratch, 'cut_off');
    await execute(url, ...statements);
    return url;
  };
  const cut = (url: string) => withConnection(url, session, neutralize);

  it('leaves a wrapper that is not libpq’s without its handler', async () => {
    const url = await empty(
      'CREATE EXTENSION file_fdw',
      'CREATE SERVER files FOREIGN DATA WRAPPER file_fdw',
      `CREATE FOREIGN TABLE public.passwords (line text) SERVER files OPTIONS (program 'echo reached')`,
    );
    expect(await query(url, 'SELECT line FROM public.passwords')).toEqual([{ line: 'reached' }]);
    expect((await cut(url)).neutralized).toEqual(['foreign server files (file_fdw) leads nowhere']);
    await expect(query(url, 'SELECT line FROM public.passwords')).rejects.toThrow('has no handler');
  });

  it('is refused, by name, where the administrator may not do it', async () => {
    const administrator = await createRole(scratch, 'weak_admin');
    const url = await empty('CREATE EXTENSION file_fdw', 'CREATE SERVER files FOREIGN DATA WRAPPER file_fdw');
    const own = new URL(url);
    own.username = administrator.name;
    own.password = administrator.password;
    await expect(cut(own.href)).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringContaining('foreign server files (file_fdw) cannot be cut off'),
    });
  });

  it('keeps the names of options, so that a migration can change them', async () => {
    const url = await empty(
      'CREATE EXTENSION postgres_fdw',
      `CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (hostaddr '192.0.2.1', fetch_size '7')`,
      `CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user 'somebody', password 'secret', password_required 'false')`,
    );
    await cut(url);
    await cut(url);
    const [found] = await query<{ server: string[]; mapping: string[] }>(
      url,
      `SELECT (SELECT srvoptions FROM pg_foreign_server) AS server, (SELECT umoptions FROM pg_user_mappings) AS mapping`,
    );
    expect(found!.server.toSorted()).toEqual([
      'dbname=nowhere',
      'fetch_size=7',
      'host=nowhere.invalid',
      'hostaddr=127.0.0.1',
      'port=1',
    ]);
    expect(found!.mapping).toEqual(['user=nobody', 'password=nobody', 'password_required=false']);
    await execute(url, `ALTER USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (SET password 'other')`);
  });

  it('hides nothing else from the comparison', async () => {
    const url = await empty(
      'CREATE EXTENSION postgres_fdw',
      `CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'a.example')`,
      'CREATE FOREIGN TABLE public.rates (id int) SERVER far',
      'CREATE MATERIALIZED VIEW public.kept AS SELECT * FROM public.rates WITH NO DATA',
      'CREATE MATERIALIZED VIEW public.empty AS SELECT 1 AS n WITH NO DATA',
    );
    const map = () => withConnection(url, session, captureObjectMap);
    const before = await map();
    const { isolation } = await cut(url);
    const comparedWith = async (recorded: ObjectMap) =>
      compareForRestore(recorded, isolation.asRestored(await map(), recorded)).different;
    expect(await comparedWith(before)).toEqual([]);
    const filled = (name: string): ObjectMap => ({
      ...before,
      objects: before.objects.map((object) =>
        object.name === name ? { ...object, definition: object.definition.replace(' not populated', '') } : object,
      ),
    });
    // Left without rows on purpose; that of the other means something.
    expect(await comparedWith(filled('public.kept'))).toEqual([]);
    expect(await comparedWith(filled('public.empty'))).toHaveLength(1);
    const otherHost: ObjectMap = {
      ...before,
      objects: before.objects.map((object) =>
        object.kind === 'foreign-server'
          ? { ...object, definition: `${object.definition}, port=0123456789abcdef` }
          : object,
      ),
    };
    expect(await comparedWith(otherHost)).toHaveLength(1);
    await execute(url, 'CREATE SERVER further FOREIGN DATA WRAPPER postgres_fdw');
    expect(await comparedWith(before)).not.toEqual([]);
  });

  it('switches subscriptions off', async () => {
    const url = await empty(
      `CREATE SUBSCRIPTION from_far CONNECTION 'host=192.0.2.1 password=secret' PUBLICATION p WITH (connect = false, slot_name = 'theirs')`,
    );
    try {
      expect((await cut(url)).neutralized).toEqual(['subscription from_far is disabled and leads nowhere']);
      const found = await query(url, 'SELECT subenabled, subslotname, subconninfo FROM pg_subscription');
      expect(found).toEqual([
        { subenabled: false, subslotname: null, subconninfo: expect.not.stringContaining('secret') },
      ]);
    } finally {
      await execute(url, 'DROP SUBSCRIPTION from_far');
    }
  });

  it('finds nothing to do in an ordinary database', async () => {
    expect(await cut(await empty('CREATE TABLE public.t (id int)'))).toMatchObject({ neutralized: [], unknown: [] });
  });
});
