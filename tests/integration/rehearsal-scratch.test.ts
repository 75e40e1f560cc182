import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../../src/postgres/connection.ts';
import { type ConnectionTarget, parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { databaseMark } from '../../src/postgres/restore/database-mark.ts';
import { ensurePlaceholderRoles } from '../../src/postgres/restore/placeholder-roles.ts';
import { rehearsalTarget } from '../../src/rehearsal/login.ts';
import { trialName, withTrialCopy } from '../../src/rehearsal/scratch.ts';
import type { RehearsalRestore } from '../../src/contract/evidence/rehearsal.ts';
import { createService, execute, majorOf, query, type TestService, withClient } from '../postgres-service.ts';
import { createRole, databaseUrl, randomName, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { type RehearsedService, rehearsedService } from './rehearsal-world.ts';

const { primary, scratch } = useStack().postgres;
const major = await majorOf(scratch);
let profiles: string;
let production: TestService;

beforeAll(async () => {
  profiles = await temporaryDirectory('rehearsal');
  production = await createService(primary);
});
afterAll(async () => {
  await dropPlaceholders();
});

async function dropPlaceholders(): Promise<void> {
  for (const name of Object.values(production.roles))
    await execute(scratch.superuserUrl, `DROP ROLE IF EXISTS "${name}"`);
}

const urlOf = ({ database, user, password }: ConnectionTarget): string =>
  databaseUrl(scratch, database, { name: user, password: password ?? '' });

const inCopy = (database: string): string => databaseUrl(scratch, database);

describe('a rehearsal’s databases', () => {
  let service: RehearsedService;
  let restored: RehearsalRestore;
  let pristine: string;
  beforeAll(async () => {
    service = await rehearsedService(profiles, production);
    restored = await service.restore();
    pristine = restored.database;
  });
  afterAll(() => service.drop());

  it('are restored and compared; a repetition makes the one database anew', async () => {
    await execute(inCopy(pristine), 'CREATE TABLE left_by_an_attempt ()');
    expect(await service.restore()).toMatchObject({
      database: pristine,
      restored: { rows: 2501, tables: 3 },
      neutralized: [],
      unknown: [],
    });
    expect(await query(inCopy(pristine), `SELECT FROM pg_class WHERE relname = 'left_by_an_attempt'`)).toEqual([]);
  });

  it('are copied for a trial, closed to others, and the copy is gone afterwards although the trial failed', async () => {
    const name = trialName(service.world, 'trial');
    const trial = withTrialCopy(service.world, { of: pristine, purpose: 'trial' }, async (target) => {
      expect(target.database).toBe(name);
      const [found] = await query<{ owner: string; open: boolean; rows: string }>(
        inCopy(name),
        `SELECT pg_get_userbyid(datdba) AS owner, has_database_privilege($1, oid, 'CONNECT') AS open,
                (SELECT count(*) FROM public.notes)::text AS rows
         FROM pg_database WHERE datname = current_database()`,
        [production.roles.application],
      );
      expect(found).toEqual({ owner: production.roles.owner, open: false, rows: '2000' });
      await execute(inCopy(name), 'DROP TABLE public.notes');
      throw new Error('the trial failed');
    });
    await expect(trial).rejects.toThrow('the trial failed');
    expect(await service.left()).toEqual([pristine]);
    expect(await query(inCopy(pristine), 'SELECT FROM public.notes LIMIT 1')).toHaveLength(1);
  });

  it('are dropped although the migration has made a subscription, without asking its publisher', async () => {
    const name = trialName(service.world, 'trial');
    await withTrialCopy(service.world, { of: pristine, purpose: 'trial' }, () =>
      execute(
        inCopy(name),
        `CREATE SUBSCRIPTION "${name}_far" CONNECTION 'host=192.0.2.1 password=secret' PUBLICATION p WITH (connect = false, slot_name = 'theirs')`,
        `INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate, srsublsn)
         SELECT oid, 'public.notes'::regclass, 'i', NULL FROM pg_subscription WHERE subname = '${name}_far'`,
        `ALTER SUBSCRIPTION "${name}_far" ENABLE`,
      ),
    );
    expect(await service.left()).toEqual([pristine]);
    expect(
      await query(scratch.superuserUrl, `SELECT FROM pg_subscription WHERE starts_with(subname, '${name}')`),
    ).toEqual([]);
  });

  it('are copied although somebody is connected to the original and an earlier attempt is at work in its copy', async () => {
    const name = trialName(service.world, 'trial');
    await withTrialCopy(service.world, { of: pristine, purpose: 'trial' }, () =>
      withClient(inCopy(pristine), () =>
        withClient(inCopy(name), async (lost) => {
          await lost.query('CREATE TABLE of_the_first_attempt ()');
          await withTrialCopy(service.world, { of: pristine, purpose: 'trial' }, async ({ database }) => {
            const found = await query(inCopy(database), `SELECT FROM pg_class WHERE relname = 'of_the_first_attempt'`);
            expect(found).toEqual([]);
            await expect(lost.query('SELECT 1')).rejects.toThrow(/terminat|not queryable|closed/i);
          });
        }),
      ),
    );
    expect(await service.left()).toEqual([pristine]);
  });

  it('an attempt that ends late leaves its successor’s copy alone', async () => {
    const name = trialName(service.world, 'trial');
    await withTrialCopy(service.world, { of: pristine, purpose: 'trial' }, async () => {
      await execute(scratch.superuserUrl, `DROP DATABASE "${name}"`, `CREATE DATABASE "${name}" TEMPLATE template0`);
    });
    expect(await service.left()).toEqual([pristine, name]);
    // Not marked yet, but of the run's own name.
    await withTrialCopy(service.world, { of: pristine, purpose: 'trial' }, async () => undefined);
    expect(await service.left()).toEqual([pristine]);
  });

  it('a database of somebody else is neither copied nor replaced', async () => {
    const other = `${service.service}_theirs`;
    const taken = trialName(service.world, 'trial');
    await execute(
      scratch.superuserUrl,
      `CREATE DATABASE "${other}"`,
      `CREATE DATABASE "${taken}"`,
      `COMMENT ON DATABASE "${taken}" IS 'mine'`,
    );
    const copy = (of: string) => withTrialCopy(service.world, { of, purpose: 'trial' }, async () => undefined);
    await expect(copy(other)).rejects.toThrow('is not of this run');
    await expect(copy(pristine)).rejects.toThrow('its comment says "mine"');
    await execute(scratch.superuserUrl, `DROP DATABASE "${other}"`, `DROP DATABASE "${taken}"`);
  });

  it('are swapped as production would be, with the time nobody can connect, and nothing is left of it', async () => {
    const { shutOut, milliseconds } = await service.swap(restored);
    expect(shutOut).toBeGreaterThan(0);
    expect(milliseconds).toBeGreaterThanOrEqual(shutOut);
    expect(await service.left()).toEqual([pristine]);
  });

  it('what a swap that was killed has left under any name is dropped by the next one, and at the end', async () => {
    const { runId, workflowId, expiresAt } = service.world;
    const leave = async (): Promise<void> => {
      const mark = { runId, workflowId, expiresAt, service: service.service, note: '' };
      const swapped = trialName(service.world, 'swap');
      const marks = [
        [swapped, databaseMark({ ...mark, kind: 'scratch' })],
        [`${swapped}_before`, databaseMark({ ...mark, kind: 'kept-aside', facts: { production: swapped } })],
        [
          trialName(service.world, 'swap_fresh'),
          databaseMark({ ...mark, kind: 'restore', facts: { closed: swapped } }),
        ],
      ] as const;
      await withClient(scratch.superuserUrl, async (client) => {
        for (const [name, text] of marks) {
          await client.query(`CREATE DATABASE "${name}" TEMPLATE template0 ALLOW_CONNECTIONS false`);
          await client.query(`COMMENT ON DATABASE "${name}" IS ${client.escapeLiteral(text)}`);
        }
      });
    };
    await leave();
    await service.swap(restored);
    expect(await service.left()).toEqual([pristine]);
    await leave();
    expect(await service.drop()).toHaveLength(4);
    expect(await service.left()).toEqual([]);
    expect(await service.drop()).toEqual([]);
    await service.restore();
  });

  it('another run’s are left alone at the end', async () => {
    const other = await rehearsedService(profiles, production);
    const { database } = await other.restore();
    const { migrator } = await other.roles();
    await rehearsalTarget(other.world, { copy: database, as: migrator });
    await service.drop();
    expect(await other.left()).toHaveLength(2);
    expect(await other.drop()).toEqual([database, `role ${database}_migrator`]);
    expect(await other.left()).toEqual([]);
    await service.restore();
  });
});

describe.each(['a superuser', 'no superuser'] as const)('logins of a rehearsal whose administrator is %s', (power) => {
  let service: RehearsedService;
  let pristine: string;
  beforeAll(async () => {
    // Placeholders of an earlier administrator are not this one's to act as.
    await dropPlaceholders();
    const administrator =
      power === 'a superuser' ? undefined : await createRole(scratch, 'scratch_admin', 'CREATEDB CREATEROLE');
    const url = administrator === undefined ? undefined : databaseUrl(scratch, 'postgres', administrator);
    service = await rehearsedService(profiles, production, url);
    pristine = (await service.restore()).database;
  });
  afterAll(async () => {
    await service.drop();
    await dropPlaceholders();
  });

  const inTrial = <T>(work: (target: ConnectionTarget) => Promise<T>): Promise<T> =>
    withTrialCopy(service.world, { of: pristine, purpose: 'trial' }, work);

  it('act as the migrator does in production: same owner, same settings', async () => {
    const { migrator } = await service.roles();
    await inTrial(async ({ database }) => {
      const login = await rehearsalTarget(service.world, { copy: database, as: migrator });
      expect(login).toMatchObject({ actsAs: production.roles.owner, differences: [] });
      const url = urlOf(login.target);
      await execute(
        url,
        'CREATE TABLE public.added (id int)',
        'CREATE SCHEMA added',
        'ALTER TABLE public.notes ADD extra int',
      );
      const made = await query(
        inCopy(database),
        `SELECT pg_get_userbyid(relowner) AS owner FROM pg_class WHERE relname = 'added'`,
      );
      expect(made).toEqual([{ owner: production.roles.owner }]);
      const settings = await query(
        url,
        `SELECT name, setting FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout', 'search_path') ORDER BY 1`,
      );
      // Of the role and of production's database.
      expect(settings).toEqual([
        { name: 'lock_timeout', setting: '5000' },
        { name: 'search_path', setting: '"$user", public, "Odd Schema"' },
        { name: 'statement_timeout', setting: '31000' },
      ]);
    });
  });

  // Before PostgreSQL 16 only superusers make subscriptions.
  it.skipIf(major < 16)(
    'cannot make a subscription, although production’s role can and an earlier rehearsal’s could (skipped before PostgreSQL 16)',
    async () => {
      const { migrator } = await service.roles();
      const role = 'pg_create_subscription';
      const membership = { role, member: migrator.actsAs, inherit: true, set: true };
      await inTrial(async ({ database }) => {
        await rehearsalTarget(service.world, { copy: database, as: migrator });
        if (power === 'a superuser') await execute(scratch.superuserUrl, `GRANT ${role} TO "${migrator.actsAs}"`);
        const as = { ...migrator, memberships: [...migrator.memberships, membership] };
        const { target, differences } = await rehearsalTarget(service.world, { copy: database, as });
        expect(differences).toEqual([
          expect.stringMatching(/is not given "pg_create_subscription" on the scratch server/),
        ]);
        const making = execute(
          urlOf(target),
          `CREATE SUBSCRIPTION s CONNECTION 'host=192.0.2.1 password=x' PUBLICATION p WITH (connect = false)`,
        );
        await expect(making).rejects.toThrow('permission denied to create subscription');
      });
    },
  );

  it('are no different for another run that gives the same membership and has not committed yet', async () => {
    const { migrator } = await service.roles();
    const role = randomName('above');
    const administrator = { runId: service.world.runId, step: service.world.step, signal: service.world.signal };
    await withConnection(parseConnectionUrl(service.world.url), administrator, (client) =>
      ensurePlaceholderRoles(client, [role, migrator.actsAs]),
    );
    const membership = { role, member: migrator.actsAs, inherit: true, set: true };
    const as = { ...migrator, memberships: [...migrator.memberships, membership] };
    await inTrial(async ({ database }) => {
      const { differences } = await withClient(service.world.url, async (other) => {
        const { rows } = await other.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
        await other.query('BEGIN');
        await other.query(`GRANT "${role}" TO "${migrator.actsAs}"`);
        const login = rehearsalTarget(service.world, { copy: database, as });
        login.catch(() => undefined);
        await expect
          .poll(() =>
            query(scratch.superuserUrl, 'SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))', [
              rows[0]!.pid,
            ]),
          )
          .toHaveLength(1);
        await other.query('COMMIT');
        return login;
      });
      expect(differences).toEqual([]);
    });
    await execute(scratch.superuserUrl, `DROP ROLE "${role}"`);
  });

  it('act as the application does in production: its rights, no more', async () => {
    const { application } = await service.roles();
    await inTrial(async ({ database }) => {
      const { target, differences } = await rehearsalTarget(service.world, { copy: database, as: application });
      expect(differences).toEqual([]);
      await execute(urlOf(target), `INSERT INTO public.users (name) VALUES ('somebody')`);
      await expect(execute(urlOf(target), 'DROP TABLE public.notes')).rejects.toThrow('must be owner');
    });
  });

  it('get a new password each time, and into no other database than they were made for', async () => {
    const { application } = await service.roles();
    await inTrial(async ({ database }) => {
      const first = await rehearsalTarget(service.world, { copy: database, as: application });
      const second = await rehearsalTarget(service.world, { copy: database, as: application });
      expect(second.target.user).toBe(first.target.user);
      await expect(query(urlOf(first.target), 'SELECT 1')).rejects.toThrow('password authentication failed');
      await expect(query(urlOf({ ...second.target, database: pristine }), 'SELECT 1')).rejects.toThrow(
        'permission denied',
      );
      const [role] = await query<{ rolpassword: string; rolvaliduntil: Date; rolsuper: boolean }>(
        scratch.superuserUrl,
        'SELECT rolpassword, rolvaliduntil, rolsuper FROM pg_authid WHERE rolname = $1',
        [first.target.user],
      );
      expect(role).toMatchObject({ rolsuper: false, rolpassword: expect.stringMatching(/^SCRAM-SHA-256\$/) });
      expect(role!.rolvaliduntil.toISOString()).toBe(service.world.expiresAt);
    });
  });

  it('are dropped at the end, with whoever is logged in', async () => {
    const { migrator } = await service.roles();
    const login = await rehearsalTarget(service.world, { copy: pristine, as: migrator });
    await withClient(urlOf(login.target), async () => {
      expect(await service.drop()).toEqual([
        pristine,
        expect.stringMatching(/^role .*_application$/),
        `role ${login.target.user}`,
      ]);
    });
    expect(await service.left()).toEqual([]);
    await service.restore();
  });
});

describe('a login for a migrator who acts as himself', () => {
  it('owns as he does, and has the rights of those he is a member of', async () => {
    const other = await createService(primary);
    const { migrator: name, owner } = other.roles;
    await execute(other.superuserUrl, `ALTER ROLE ${name} RESET role`, `GRANT CREATE ON SCHEMA public TO ${name}`);
    const service = await rehearsedService(profiles, other);
    try {
      const { database } = await service.restore();
      const { migrator } = await service.roles();
      const login = await rehearsalTarget(service.world, { copy: database, as: migrator });
      expect(login).toMatchObject({ actsAs: name, differences: [] });
      await execute(
        urlOf(login.target),
        'CREATE TABLE public.added (id int)',
        'ALTER TABLE public.notes ADD extra int',
        `SET ROLE ${owner}`,
      );
      const made = await query(
        inCopy(database),
        `SELECT pg_get_userbyid(relowner) AS owner FROM pg_class WHERE relname = 'added'`,
      );
      expect(made).toEqual([{ owner: name }]);
    } finally {
      await service.drop();
      for (const role of Object.values(other.roles))
        await execute(scratch.superuserUrl, `DROP ROLE IF EXISTS "${role}"`);
    }
  });
});
