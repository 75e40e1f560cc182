import type { Client } from 'pg';
import type { AccessEvidence } from '../contract/evidence/preconditions.ts';
import type { DatabaseIdentity } from '../contract/evidence/production.ts';
import type { ProductionDatabase } from '../contract/profile.ts';
import { type CapacityNeed, readCapacityNeed } from './restore/capacity.ts';
import { applicationPrefix, type ConnectionOptions, runTag, withConnection } from './connection.ts';
import { parseConnectionUrl } from './connection-url.ts';
import type { Findings } from './findings.ts';
import { boundedIdentifier, sqlName } from './identifier.ts';
import { isInRecovery, isSameDatabase, readIdentity } from './identity.ts';
import {
  forcedRowSecurity,
  inspectAdministrator,
  inspectBackupRole,
  inspectMigrator,
  inspectScratchAdministrator,
  type RightsFindings,
} from './role-rights.ts';
import { inspectVersions } from './server-version.ts';
import { describeSession, listSessions } from './sessions.ts';
import type { StandbyAccess } from './standbys.ts';
import { findWayBackBlockers } from './swap/way-back-blockers.ts';

/** Resolved addresses; undefined where the secret could not be resolved, which is a finding already. */
export interface DatabaseUrls {
  readonly administrator: string | undefined;
  readonly migrator: string | undefined;
  readonly backup: string | undefined;
  readonly stagingAdministrator: string | undefined;
  readonly stagingMigrator: string | undefined;
  readonly scratchAdministrator: string | undefined;
}

export interface AccessRequest {
  readonly urls: DatabaseUrls;
  /** The profile's standbys with their administrators' addresses. */
  readonly standbys: readonly StandbyAccess[];
  readonly production: ProductionDatabase;
  readonly runId: string;
  readonly step: string;
  readonly signal: AbortSignal;
  readonly progress: (looking: string) => void;
}

export type InspectedDatabases = Partial<
  Pick<AccessEvidence, 'production' | 'staging' | 'scratch' | 'migratorRole' | 'tls'>
> & {
  readonly rights: readonly string[];
  /** What a second copy of production would take; undefined where that could not be read, which is a finding already. */
  readonly need?: CapacityNeed;
};

/**
 * Looks at every database the run will touch: can it be reached by each role, is it the right one, may the role do what it
 * will have to. On production rights are read from the catalog; on the scratch server they are tried. What is wrong goes
 * into `findings`, all of it.
 */
export async function inspectDatabases(request: AccessRequest, findings: Findings): Promise<InspectedDatabases> {
  const { urls, progress } = request;
  const rights: string[] = [];
  const note = (found: RightsFindings | undefined): void => {
    findings.add(...(found?.missing ?? []));
    if (found?.missing.length === 0) rights.push(...found.proven);
    rights.push(...(found?.warnings ?? []).map((text) => `note: ${text}`));
  };
  const tls: string[] = [];
  const reach = <T>(subject: string, url: string | undefined, work: (client: Client) => Promise<T>) => {
    progress(subject);
    return url === undefined
      ? Promise.resolve(undefined)
      : findings.attempt(subject, () => withConnection(url, sessionOf(request), work));
  };
  const onProduction = <T>(subject: string, url: string | undefined, work: (client: Client) => Promise<T>) =>
    reach(subject, url, async (client) => {
      tls.push(await tlsOf(client, subject, request.production, findings));
      return work(client);
    });

  const forced: string[] = [];
  const production = await onProduction('production as administrator', urls.administrator, async (client) => {
    await requirePrimary(client, 'production', findings);
    note(await inspectAdministrator(client));
    await inspectHeadRoom(client, request.production, findings);
    forced.push(...(await forcedRowSecurity(client)));
    return readIdentity(client);
  });
  const need = await inspectWayBack(request, production, rights, findings);
  const migratorRole = await onProduction('production as migrator', urls.migrator, async (client) => {
    note(await inspectMigrator(client));
    requireSame(await readIdentity(client), production, 'the migrator', findings);
    const { rows } = await client.query<{ role: string }>('SELECT session_user AS role');
    return rows[0]!.role;
  });
  if (migratorRole !== undefined) await requireUnused(request, migratorRole, findings);
  await onProduction('production as backup role', urls.backup, async (client) => {
    note(await inspectBackupRole(client));
    requireSame(await readIdentity(client), production, 'the backup role', findings);
  });
  requireDistinctRoles(urls, findings);

  const staging = await reach('staging as administrator', urls.stagingAdministrator, async (client) => {
    await requirePrimary(client, 'staging', findings);
    await requireOther(client, 'staging', request, findings);
    return readIdentity(client);
  });
  await reach('staging as migrator', urls.stagingMigrator, async (client) => {
    await requireOther(client, 'staging (migrator)', request, findings);
    requireSame(await readIdentity(client), staging, 'the staging migrator', findings);
    note(withSubject(await inspectMigrator(client), 'staging'));
  });
  const scratch = await reach('scratch as administrator', urls.scratchAdministrator, async (client) => {
    await requireOther(client, 'scratch', request, findings);
    note(await inspectScratchAdministrator(client, forced));
    rights.push(await createAndDrop(client, request.runId));
    const identity = await readIdentity(client);
    if (production !== undefined && identity.systemIdentifier === production.systemIdentifier) {
      rights.push('note: the scratch server is the production server: rehearsals will take of its resources');
    }
    return identity;
  });
  const versions = inspectVersions({ production, staging, scratch });
  findings.add(...versions.findings);
  rights.push(...versions.notes.map((text) => `note: ${text}`));
  return {
    rights,
    ...(tls.length === 0 ? {} : { tls: [...new Set(tls)].join(', ') }),
    ...(production === undefined ? {} : { production }),
    ...(staging === undefined ? {} : { staging }),
    ...(scratch === undefined ? {} : { scratch }),
    ...(migratorRole === undefined ? {} : { migratorRole }),
    ...(need === undefined ? {} : { need }),
  };
}

/**
 * Before every step that writes somewhere else: is that really not production?
 * @returns findings; empty = it is another database, on a server that is not a standby
 */
export async function findConfusion(
  other: Client,
  subject: string,
  production: { readonly url: string; readonly options: ConnectionOptions },
): Promise<string[]> {
  const same = await withConnection(production.url, production.options, (client) => isSameDatabase(client, other));
  return same ? [`${subject} IS the production database: correct the profile's addresses`] : [];
}

const sessionOf = ({ runId, step, signal }: AccessRequest): ConnectionOptions => ({ runId, step, signal });

const withSubject = (found: RightsFindings, subject: string): RightsFindings => ({
  missing: found.missing.map((text) => `${subject}: ${text}`),
  proven: found.proven.map((text) => `${subject}: ${text}`),
  warnings: found.warnings.map((text) => `${subject}: ${text}`),
});

async function requirePrimary(client: Client, subject: string, findings: Findings): Promise<void> {
  if ((await isInRecovery(client)) === 'standby') {
    findings.add(`${subject} is a standby (in recovery) and cannot be written: give the address of the primary`);
  }
}

async function requireOther(
  client: Client,
  subject: string,
  request: AccessRequest,
  findings: Findings,
): Promise<void> {
  const url = request.urls.administrator;
  if (url === undefined) return;
  // Production that cannot be reached is a finding already.
  const quiet = await findConfusion(client, subject, { url, options: sessionOf(request) }).catch(() => []);
  findings.add(...quiet);
}

function requireSame(
  found: DatabaseIdentity,
  expected: DatabaseIdentity | undefined,
  who: string,
  findings: Findings,
): void {
  if (expected === undefined) return;
  if (found.systemIdentifier !== expected.systemIdentifier || found.database !== expected.database) {
    findings.add(
      `${who} is led to database "${found.database}" of system ${found.systemIdentifier}, the administrator to "${expected.database}" of system ${expected.systemIdentifier}: correct the profile's addresses`,
    );
  }
}

/** Three credentials, each for one duty. */
function requireDistinctRoles(urls: DatabaseUrls, findings: Findings): void {
  const users = (['administrator', 'migrator', 'backup'] as const).flatMap((duty) => {
    const url = urls[duty];
    if (url === undefined) return [];
    try {
      return [[parseConnectionUrl(url).user, duty] as const];
    } catch {
      return [];
    }
  });
  const duties = Map.groupBy(users, ([user]) => user);
  for (const [user, entries] of duties) {
    if (entries.length > 1) {
      findings.add(
        `role "${user}" serves as ${entries.map(([, duty]) => duty).join(' and ')}: each duty needs a role of its own`,
      );
    }
  }
}

async function tlsOf(
  client: Client,
  subject: string,
  { tls }: ProductionDatabase,
  findings: Findings,
): Promise<string> {
  const { rows } = await client.query<{ ssl: boolean; version: string | null }>(
    'SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()',
  );
  const encrypted = rows[0]?.ssl === true;
  if (!encrypted && tls === 'require') {
    findings.add(
      `${subject}: the session is not encrypted, and the profile asks for TLS (add sslmode=verify-full to the address)`,
    );
  }
  return encrypted ? (rows[0]?.version ?? 'TLS') : 'not encrypted (allowed by the profile)';
}

/** Could a restore be done, and swapped in? Renames are done, and locks held, from another database of the same server. */
async function inspectWayBack(
  request: AccessRequest,
  production: DatabaseIdentity | undefined,
  rights: string[],
  findings: Findings,
): Promise<CapacityNeed | undefined> {
  const { urls, standbys, production: profile } = request;
  const url = urls.administrator;
  if (url === undefined || production === undefined) return undefined;
  const { maintenanceDatabase } = profile;
  if (maintenanceDatabase === production.database) {
    findings.add(`the maintenance database must not be the production database "${production.database}" itself`);
    return undefined;
  }
  const session = sessionOf(request);
  const need = await findings.attempt('maintenance database', () =>
    withConnection(url, { ...session, database: maintenanceDatabase }, (client) =>
      readCapacityNeed(client, production.database),
    ),
  );
  await findings.attempt('way back', async () => {
    const administrator = parseConnectionUrl(url);
    const found = await findWayBackBlockers({ administrator, maintenanceDatabase, standbys, session });
    findings.add(...found.findings);
    rights.push(...found.notes.map((text) => `note: ${text}`));
  });
  return need;
}

/** Its sessions are the migration's: somebody else's under the same role could be ended, or could be taken for ours. */
async function requireUnused(request: AccessRequest, migratorRole: string, findings: Findings): Promise<void> {
  const { urls, production, runId } = request;
  if (production.applicationRoles.includes(migratorRole)) {
    findings.add(
      `the migrator "${migratorRole}" is a role of the application (applicationRoles): give migrations a role of their own`,
    );
  }
  const url = urls.administrator;
  if (url === undefined) return;
  await findings.attempt('sessions of the migrator', () =>
    withConnection(url, sessionOf(request), async (client) => {
      const others = (await listSessions(client, { role: migratorRole })).filter(
        ({ application }) => !application.startsWith(applicationPrefix(runId)),
      );
      findings.add(...others.map((session) => `somebody else uses the migrator role now: ${describeSession(session)}`));
      const { rows } = await client.query<{ name: string }>(
        'SELECT name FROM unnest($1::text[]) AS name WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)',
        [production.applicationRoles],
      );
      findings.add(...rows.map(({ name }) => `the application role "${name}" (applicationRoles) does not exist`));
    }),
  );
}

/** Connections the run needs at the same time: administrator twice, lock, migration, backup, a person. */
const CONNECTIONS_NEEDED = 6;

/** What SQL can tell. Disk space it cannot. */
async function inspectHeadRoom(client: Client, production: ProductionDatabase, findings: Findings): Promise<void> {
  const { rows } = await client.query<{ free: number; age: number; limits: string[] }>(
    `SELECT (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
             - coalesce(current_setting('reserved_connections', true), '0')::int
             - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'))::int AS "free",
            (SELECT age(datfrozenxid) FROM pg_database WHERE datname = current_database()) AS "age",
            (SELECT coalesce(array_agg(rolname::text), '{}') FROM pg_roles
             WHERE rolconnlimit BETWEEN 0 AND 2 AND rolname = current_user) AS "limits"`,
  );
  const facts = rows[0]!;
  if (facts.free < CONNECTIONS_NEEDED) {
    findings.add(`production has ${facts.free} connections free, the run needs ${CONNECTIONS_NEEDED}`);
  }
  if (facts.age > 1_500_000_000) {
    findings.add(`production is ${facts.age} transactions from its last freeze and near wraparound: vacuum first`);
  }
  findings.add(...facts.limits.map((role) => `role "${role}" has a connection limit below 3`));
  if (production.standbys.length === 0) return;
  const standbys = await client.query<{ count: number }>('SELECT count(*)::int AS count FROM pg_stat_replication');
  if (standbys.rows[0]!.count === 0) {
    findings.add(
      `no standby is connected, the profile names ${production.standbys.map(({ name }) => name).join(', ')}`,
    );
  }
}

/** By doing, where it does no harm. */
async function createAndDrop(client: Client, runId: string): Promise<string> {
  const name = boundedIdentifier('migration_runbook_probe_', runTag(runId));
  await client.query(`DROP DATABASE IF EXISTS ${sqlName(name)}`);
  await client.query(`CREATE DATABASE ${sqlName(name)} TEMPLATE template0`);
  await client.query(`DROP DATABASE ${sqlName(name)}`);
  return 'scratch: a database was created and dropped';
}
