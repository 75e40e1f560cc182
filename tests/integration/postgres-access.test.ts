import { describe, expect, it } from 'vitest';
import type { ProductionDatabase, Standby } from '../../src/contract/profile.ts';
import { STEP_ERRORS, type StepError } from '../../src/contract/errors.ts';
import {
  type DatabaseUrls,
  findConfusion,
  inspectDatabases,
  type InspectedDatabases,
} from '../../src/postgres/access.ts';
import { withConnection } from '../../src/postgres/connection.ts';
import { sqlName } from '../../src/postgres/identifier.ts';
import { Findings } from '../../src/postgres/findings.ts';
import { checkReplication, type ReplicationLimits } from '../../src/postgres/replication.ts';
import { createService, execute, majorOf, query, type TestService, withClient } from '../postgres-service.ts';
import { createRole, databaseUrl, useStack } from '../stack.ts';

const { primary, replica, staging, scratch } = useStack().postgres;
const signal = new AbortController().signal;
const session = { runId: '0190bbbb-1', step: 'preconditions.access', signal };

const reference = { kind: 'environment', name: 'UNUSED' } as const;
const standby = (name: string): Standby => ({ name, sessions: 'none' });
const profileOf = (service: TestService, more: Partial<ProductionDatabase> = {}): ProductionDatabase => ({
  administrator: reference,
  migrator: reference,
  backup: reference,
  applicationRoles: [service.roles.application],
  maintenanceDatabase: 'postgres',
  standbys: [standby(replica.name)],
  maximumLagBytes: 1_000_000,
  maximumLag: 10_000,
  tls: 'allow',
  maximumTransactionAge: 60_000,
  ...more,
});

/** Production and staging of one service, and the scratch server. */
async function createEnvironment(): Promise<{ service: TestService; urls: DatabaseUrls }> {
  const service = await createService(primary);
  const stagingService = await createService(staging);
  return {
    service,
    urls: {
      administrator: service.administratorUrl,
      migrator: service.migratorUrl,
      backup: service.backupUrl,
      stagingAdministrator: stagingService.administratorUrl,
      stagingMigrator: stagingService.migratorUrl,
      scratchAdministrator: scratch.superuserUrl,
    },
  };
}

async function inspect(
  urls: DatabaseUrls,
  production: ProductionDatabase,
): Promise<{ found: InspectedDatabases; findings: Findings }> {
  const findings = new Findings();
  const found = await inspectDatabases(
    { urls, standbys: production.standbys, production, ...session, progress: () => undefined },
    findings,
  );
  return { found, findings };
}

describe('access', () => {
  it('is found to be complete with least-privilege roles, and says what was proven', async () => {
    const { service, urls } = await createEnvironment();
    const { found, findings } = await inspect(urls, profileOf(service));
    expect(findings.all).toEqual([]);
    expect(found.production).toMatchObject({ database: service.database, serverMajor: await majorOf(primary) });
    expect(found.staging?.systemIdentifier).not.toBe(found.production?.systemIdentifier);
    expect(found.scratch?.database).toBe('postgres');
    expect(found.migratorRole).toBe(service.roles.migrator);
    expect(found.tls).toContain('not encrypted');
    expect(found.need).toMatchObject({ database: service.database, tablespaces: [] });
    expect(found.need!.sizeBytes).toBe(found.production!.sizeBytes);
    expect(found.need!.walBytes).toBeGreaterThan(0);
    expect(found.rights).toContain('scratch: a database was created and dropped');
    expect(found.rights.filter((text) => text.startsWith('note:'))).toEqual([]);
    expect(() => findings.throwIfAny()).not.toThrow();
  });

  it('names everything that is missing in one message', async () => {
    const { service, urls } = await createEnvironment();
    await execute(
      service.superuserUrl,
      `ALTER ROLE ${service.roles.administrator} NOCREATEDB`,
      `REVOKE pg_signal_backend FROM ${service.roles.administrator}`,
      `REVOKE pg_read_all_data FROM ${service.roles.backup}`,
      'CREATE TABLE public.owned_by_somebody_else (a int)',
    );
    const wrong = new URL(urls.stagingMigrator!);
    wrong.password = 'wrong-password-value';
    const { findings } = await inspect(
      { ...urls, stagingMigrator: wrong.href, scratchAdministrator: databaseUrl(scratch, 'not_there') },
      profileOf(service, {
        tls: 'require',
        applicationRoles: [service.roles.migrator, 'role_of_nobody'],
        standbys: [{ name: 'second', sessions: 'end' }],
      }),
    );
    const told = findings.all.join('\n');
    for (const expected of [
      'lacks: CREATEDB',
      'lacks: pg_signal_backend',
      'the session is not encrypted',
      `the migrator "${service.roles.migrator}" is a role of the application`,
      'the application role "role_of_nobody"',
      'may not alter public.owned_by_somebody_else',
      `backup role "${service.roles.backup}" cannot read public.`,
      `standby "${replica.name}"`,
      'standby "second": give databases.production.standbys[].administrator, or say sessions: none',
      'staging as migrator: wrong password',
      'scratch as administrator: database "not_there"',
    ]) {
      expect(told).toContain(expected);
    }
    expect(told).not.toContain('wrong-password-value');
    let thrown: unknown;
    try {
      findings.throwIfAny();
    } catch (error) {
      thrown = error;
    }
    expect((thrown as StepError).type).toBe(STEP_ERRORS.refused);
    expect((thrown as StepError).details['findings']).toEqual(findings.all);
  });

  it('may be tried again when all that is wrong is that a server does not answer', async () => {
    const { service, urls } = await createEnvironment();
    const gone = new URL(scratch.superuserUrl);
    gone.hostname = 'nowhere.invalid';
    const { findings } = await inspect({ ...urls, scratchAdministrator: gone.href }, profileOf(service));
    expect(findings.all).toEqual([expect.stringMatching(/^scratch as administrator: .* cannot be reached/)]);
    expect(() => findings.throwIfAny()).toThrow(expect.objectContaining({ type: STEP_ERRORS.unavailable }));
  });

  it('refuses a staging that is production, by whatever role', async () => {
    const { service, urls } = await createEnvironment();
    const { findings } = await inspect(
      { ...urls, stagingAdministrator: urls.administrator, stagingMigrator: urls.migrator },
      profileOf(service),
    );
    expect(findings.all).toEqual(
      expect.arrayContaining([
        expect.stringContaining('staging IS the production database'),
        expect.stringContaining('staging (migrator) IS'),
      ]),
    );
  });

  it('refuses standbys as production and as staging', async () => {
    const { service, urls } = await createEnvironment();
    const onReplica = new URL(urls.administrator!);
    onReplica.port = String(replica.port);
    await expect.poll(() => query(onReplica.href, 'SELECT 1 AS one').catch(() => [])).toHaveLength(1);
    const { findings } = await inspect({ ...urls, stagingAdministrator: onReplica.href }, profileOf(service));
    expect(findings.all.join('\n')).toContain('staging is a standby');
    // Same identifier, same name, and yet not the same server.
    expect(findings.all.join('\n')).not.toContain('staging IS the production');
  });

  it('refuses when somebody else uses the migrator role, and when one role has two duties', async () => {
    const { service, urls } = await createEnvironment();
    await withClient(`${service.migratorUrl}?application_name=somebody`, async () => {
      const { findings } = await inspect({ ...urls, backup: urls.administrator }, profileOf(service));
      expect(findings.all.join('\n')).toContain('somebody else uses the migrator role now');
      expect(findings.all.join('\n')).toContain('application "somebody"');
      expect(findings.all.join('\n')).toContain('serves as administrator and backup');
    });
  });

  it('refuses a superuser’s session in production, which could not be ended for a restore', async () => {
    const { service, urls } = await createEnvironment();
    await withClient(service.superuserUrl, async () => {
      const { findings } = await inspect(urls, profileOf(service));
      expect(findings.all).toEqual([expect.stringContaining('a superuser is connected')]);
    });
  });

  it('refuses objects that could not be given back to their owners, and large objects that no dump could read', async () => {
    const { service, urls } = await createEnvironment();
    const superuser = databaseUrl(primary, service.database);
    await execute(superuser, `SELECT lo_from_bytea(0, 'hello'); CREATE TYPE public.foreign_mood AS ENUM ('glad')`);
    const { findings } = await inspect(urls, profileOf(service));
    expect(findings.all).toEqual([
      expect.stringMatching(
        /could not restore .*(large object \d+|foreign_mood) and 1 more, owned by "postgres": GRANT postgres TO/,
      ),
      expect.stringMatching(/cannot read 1 large object\(s\).*GRANT SELECT ON LARGE OBJECT \d+ TO/),
    ]);
  });

  it('refuses administrators from whom forced row security would hide rows, with statements that can be run as they stand', async () => {
    const { service, urls } = await createEnvironment();
    const superuser = databaseUrl(primary, service.database);
    await execute(
      superuser,
      'ALTER TABLE public.users ENABLE ROW LEVEL SECURITY; ALTER TABLE public.users FORCE ROW LEVEL SECURITY',
    );
    const odd = await createRole(scratch, 'Odd "ü"', 'CREATEDB CREATEROLE');
    const scratchAdministrator = databaseUrl(scratch, 'postgres', odd);
    const looked = await inspect({ ...urls, scratchAdministrator }, profileOf(service));
    expect(looked.findings.all).toEqual([
      expect.stringContaining(
        `so a restore could not be compared: ALTER ROLE ${service.roles.administrator} BYPASSRLS`,
      ),
      expect.stringContaining(`ALTER ROLE ${service.roles.backup} BYPASSRLS`),
      expect.stringContaining(`of the scratch server: ALTER ROLE ${sqlName(odd.name)} BYPASSRLS there`),
    ]);
    await execute(
      superuser,
      `ALTER ROLE ${service.roles.administrator} BYPASSRLS; ALTER ROLE ${service.roles.backup} BYPASSRLS`,
    );
    await execute(scratch.superuserUrl, `ALTER ROLE ${sqlName(odd.name)} BYPASSRLS`);
    expect((await inspect({ ...urls, scratchAdministrator }, profileOf(service))).findings.all).toEqual([]);
  });

  it('warns of a backup role that could write', async () => {
    const { service, urls } = await createEnvironment();
    await execute(service.superuserUrl, `GRANT INSERT ON public.users TO ${service.roles.backup}`);
    const { found, findings } = await inspect(urls, profileOf(service));
    expect(findings.all).toEqual([]);
    expect(found.rights).toContain(`note: backup role "${service.roles.backup}" could also write public.users`);
  });

  it('is checked again before a step that writes elsewhere', async () => {
    const { service, urls } = await createEnvironment();
    const production = { url: service.administratorUrl, options: session };
    const confusion = (url: string) =>
      withConnection(url, session, (client) => findConfusion(client, 'staging', production));
    expect(await confusion(urls.stagingMigrator!)).toEqual([]);
    expect(await confusion(service.migratorUrl)).toHaveLength(1);
  });
});

describe('replication', () => {
  const check = (url: string, limits: Partial<ReplicationLimits> = {}) =>
    withConnection(url, session, (client) =>
      checkReplication(
        client,
        { standbys: [standby(replica.name)], maximumLagBytes: 10_000_000, maximumLag: 10_000, ...limits },
        signal,
      ),
    );

  it('is healthy when the named standby streams and is near, as an administrator without superuser sees it', async () => {
    const service = await createService(primary);
    // Other tests write in bulk meanwhile.
    const limits = { maximumLagBytes: 1_000_000_000, maximumLag: 60_000 };
    const { standbys } = await check(service.administratorUrl, limits);
    expect(standbys).toHaveLength(1);
    expect(standbys[0]).toMatchObject({ name: replica.name, state: 'streaming' });
    expect(standbys[0]!.lagMilliseconds).toBeLessThanOrEqual(limits.maximumLag);
  });

  it('is healthy without standbys only where the profile names none', async () => {
    expect(await check(primary.superuserUrl, { standbys: [] })).toEqual({ standbys: [] });
  });

  it('fails, naming each standby and why', async () => {
    await expect(
      check(primary.superuserUrl, { standbys: [standby(replica.name), standby('second')] }),
    ).rejects.toMatchObject({
      type: STEP_ERRORS.checkFailed,
      message: expect.stringContaining('standby "second" is not connected to the primary'),
    });
  });

  it('fails for a role that may not see the columns: what is NULL is not healthy', async () => {
    const role = await createRole(primary);
    await expect(check(databaseUrl(primary, 'postgres', role))).rejects.toMatchObject({
      type: STEP_ERRORS.checkFailed,
      message: expect.stringContaining('lacks pg_monitor'),
    });
  });

  it('refuses to ask a standby', async () => {
    await expect(check(replica.superuserUrl)).rejects.toMatchObject({ type: STEP_ERRORS.refused });
  });
});
