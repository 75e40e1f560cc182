import type { Client } from 'pg';
import type { ProductionState } from '../../contract/evidence.ts';
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
