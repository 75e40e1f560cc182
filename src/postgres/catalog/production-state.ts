import type { Client } from 'pg';
import type { ProductionState } from '../../contract/evidence/production.ts';
import { type DatabaseVersion, readVersion, type VersionTableName } from '../../alembic/version-table.ts';
import { readIdentity } from '../identity.ts';
import { listInvalidIndexes } from './leftover-indexes.ts';
import { digestOf, type ObjectMap, readObjectMap, withoutTable } from './object-map.ts';
import { listSessions } from '../sessions.ts';

/** All of `ProductionState` but the place where its object map is archived, and the map itself. */
export interface ProductionReading {
  readonly state: Omit<ProductionState, 'objectMap'>;
  readonly map: ObjectMap;
}

/**
 * Reads what a database is: identity, version rows, object map and invalid indexes in one snapshot, then who is connected.
 *
 * @param client of the administrator, in the database, not in a transaction
 * @param migratorRole login role of the migrations
 */
export async function readProductionState(
  client: Client,
  { versionTable, migratorRole }: { readonly versionTable: VersionTableName; readonly migratorRole: string },
): Promise<ProductionReading> {
  const inSnapshot = await withinSnapshot(client, async () => ({
    identity: await readIdentity(client),
    version: await readVersion(client, versionTable),
    map: withoutTable(await readObjectMap(client), versionTable),
    invalidIndexes: (await listInvalidIndexes(client)).map(({ name }) => name),
  }));
  const { identity, version, map, invalidIndexes } = inSnapshot;
  return {
    state: {
      identity,
      versionRows: rowsOf(version),
      versioned: version.kind,
      objectMapDigest: digestOf(map),
      invalidIndexes,
      migratorSessions: (await listSessions(client, { role: migratorRole })).length,
      migratorSettings: await timeoutsOfRole(client, migratorRole),
      otherSessions: await groupedSessions(client, identity.database, migratorRole),
    },
    map,
  };
}

const rowsOf = (version: DatabaseVersion): readonly string[] => (version.kind === 'versioned' ? version.rows : []);

async function withinSnapshot<T>(client: Client, read: () => Promise<T>): Promise<T> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    return await read();
  } finally {
    await client.query('ROLLBACK').catch(() => undefined);
  }
}

/** `lock_timeout=3s`, sorted. What is set for the role in this database goes before what is set for it everywhere. */
async function timeoutsOfRole(client: Client, role: string): Promise<readonly string[]> {
  const { rows } = await client.query<{ setting: string }>(
    `SELECT DISTINCT ON (split_part(given.setting, '=', 1)) given.setting
     FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS given(setting)
     WHERE r.rolname = $1 AND split_part(given.setting, '=', 1) ~ '(_timeout|^client_connection_check_interval)$'
       AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
     ORDER BY split_part(given.setting, '=', 1), s.setdatabase DESC`,
    [role],
  );
  return rows.map(({ setting }) => setting);
}

async function groupedSessions(
  client: Client,
  database: string,
  migratorRole: string,
): Promise<ProductionState['otherSessions']> {
  const groups = Map.groupBy(
    (await listSessions(client, { database })).filter(({ role }) => role !== migratorRole),
    ({ role, application }) => JSON.stringify([role, application]),
  );
  // Bounded: every pod of an application may carry a name of its own.
  return [...groups.values()].slice(0, 50).map((sessions) => ({
    role: sessions[0]!.role,
    application: sessions[0]!.application.slice(0, 63),
    count: sessions.length,
  }));
}
