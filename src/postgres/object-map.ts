import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { Client } from 'pg';
import { qualifiedName } from './identifier.ts';
import { OBJECT_QUERIES, type ObjectKind } from './object-map-queries.ts';

/** One catalog object. `name` is qualified and unique within its kind; the name of a column is `schema.table.column`. */
export interface DatabaseObject {
  readonly kind: ObjectKind;
  readonly name: string;
  readonly definition: string;
}

/** Everything that matters in a database but its rows, sorted by kind and name. */
export interface ObjectMap {
  readonly format: 'migration-runbook/object-map/1';
  readonly objects: readonly DatabaseObject[];
}

/**
 * Reads the map in one REPEATABLE READ snapshot of its own.
 *
 * @param client not in a transaction
 */
export async function captureObjectMap(client: Client): Promise<ObjectMap> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    return await readObjectMap(client);
  } finally {
    await client.query('ROLLBACK').catch(() => undefined);
  }
}

/** Reads the map in the caller's transaction: a ledger's, which shares the snapshot of a dump. */
export async function readObjectMap(client: Client): Promise<ObjectMap> {
  // The deparser leaves out what the search path covers: with the catalog alone every name is qualified.
  await client.query(`SET search_path = pg_catalog`);
  const objects: DatabaseObject[] = [];
  for (const kind of Object.keys(OBJECT_QUERIES) as ObjectKind[]) {
    const { rows } = await client.query<{ parts: string[]; suffix: string; definition: string | null; word?: string }>(
      OBJECT_QUERIES[kind],
    );
    for (const { parts, suffix, definition, word } of rows) {
      const name = `${word === undefined ? '' : `${word} `}${qualifiedName(...parts)}${suffix}`;
      objects.push({ kind, name, definition: definition ?? '' });
    }
  }
  return { format: 'migration-runbook/object-map/1', objects: objects.sort(byKindAndName) };
}

/** By code units: no locale decides. */
const byKindAndName = (one: DatabaseObject, other: DatabaseObject): number => {
  const [first, second] = [keyOf(one), keyOf(other)];
  return first < second ? -1 : first > second ? 1 : 0;
};

/** `kind name`: how an object is named in evidence and messages. */
export const keyOf = ({ kind, name }: Pick<DatabaseObject, 'kind' | 'name'>): string => `${kind} ${name}`;

/** Canonical JSON (RFC 8785): what is stored and hashed. */
export const serializeObjectMap = (map: ObjectMap): string => canonicalize(map)!;

/** Lower-case hexadecimal SHA-256 of the canonical JSON: the database's fingerprint. */
export const digestOf = (map: ObjectMap): string => createHash('sha256').update(serializeObjectMap(map)).digest('hex');

/**
 * The map without one table and what hangs on it. Alembic makes its version table by itself before the first revision and
 * leaves it after the last downgrade: it is no part of what a migration changes.
 */
export function withoutTable(
  map: ObjectMap,
  { schema = 'public', table = 'alembic_version' }: { readonly schema?: string; readonly table?: string },
): ObjectMap {
  const qualified = qualifiedName(schema, table);
  const belongs = ({ kind, name, definition }: DatabaseObject): boolean => {
    const plain = name.slice(name.lastIndexOf(' ') + 1);
    return (
      plain === qualified ||
      plain.startsWith(`${qualified}.`) ||
      (kind === 'index' && definition.includes(` ON ${qualified} USING `))
    );
  };
  return { ...map, objects: map.objects.filter((object) => !belongs(object)) };
}

/** @throws Error when the text is no object map */
export function parseObjectMap(text: string): ObjectMap {
  const value = JSON.parse(text) as Partial<ObjectMap> | null;
  if (value?.format !== 'migration-runbook/object-map/1' || !Array.isArray(value.objects)) {
    throw new Error('not an object map of format migration-runbook/object-map/1');
  }
  return value as ObjectMap;
}
