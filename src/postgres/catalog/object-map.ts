import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { Client } from 'pg';
import { qualifiedName } from '../identifier.ts';
import { readServerMajor } from '../server-version.ts';
import { COSMETIC_QUERIES, type CosmeticKind, OBJECT_QUERIES, type ObjectKind, SINCE } from './object-map-queries.ts';

/** One catalog object. `name` is qualified and unique within its kind; the name of a column is `schema.table.column`. */
export interface DatabaseObject {
  readonly kind: ObjectKind;
  readonly name: string;
  readonly definition: string;
}

/** What may differ without meaning anything: the order of a table's columns, a name that PostgreSQL made up. */
export interface CosmeticFact {
  readonly kind: CosmeticKind;
  readonly name: string;
  readonly definition: string;
}

/** Everything that matters in a database but its rows, sorted by kind and name. */
export interface ObjectMap {
  readonly format: typeof FORMAT;
  readonly objects: readonly DatabaseObject[];
  /** No part of the digest. */
  readonly cosmetic: readonly CosmeticFact[];
}

const FORMAT = 'migration-runbook/object-map/2';

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
  const major = await readServerMajor(client);
  const kinds = (Object.keys(OBJECT_QUERIES) as ObjectKind[]).filter((kind) => (SINCE[kind] ?? 0) <= major);
  const objects: DatabaseObject[] = [];
  for (const kind of kinds) objects.push(...(await readKind(client, kind, OBJECT_QUERIES[kind])));
  const cosmetic: CosmeticFact[] = [];
  for (const kind of Object.keys(COSMETIC_QUERIES) as CosmeticKind[]) {
    cosmetic.push(...(await readKind(client, kind, COSMETIC_QUERIES[kind])));
  }
  return { format: FORMAT, objects: objects.sort(byKindAndName), cosmetic: cosmetic.sort(byKindAndName) };
}

async function readKind<Kind extends string>(
  client: Client,
  kind: Kind,
  query: string,
): Promise<{ readonly kind: Kind; readonly name: string; readonly definition: string }[]> {
  const { rows } = await client.query<{ parts: string[]; suffix: string; definition: string | null; word?: string }>(
    query,
  );
  return rows.map(({ parts, suffix, definition, word }) => ({
    kind,
    name: `${word === undefined ? '' : `${word} `}${qualifiedName(...parts)}${suffix}`,
    definition: definition ?? '',
  }));
}

/** By code units: no locale decides. */
const byKindAndName = (one: DatabaseObject | CosmeticFact, other: DatabaseObject | CosmeticFact): number => {
  const [first, second] = [keyOf(one), keyOf(other)];
  return first < second ? -1 : first > second ? 1 : 0;
};

/** `kind name`: how an object is named in evidence and messages. */
export const keyOf = ({ kind, name }: { readonly kind: string; readonly name: string }): string => `${kind} ${name}`;

/** Canonical JSON (RFC 8785): what is stored. */
export const serializeObjectMap = (map: ObjectMap): string => canonicalize(map)!;

/** Lower-case hexadecimal SHA-256 of all that is not cosmetic: the database's fingerprint. */
export const digestOf = ({ format, objects }: ObjectMap): string =>
  createHash('sha256').update(canonicalize({ format, objects })!).digest('hex');

/**
 * The map without one table and what hangs on it. Alembic makes its version table by itself before the first revision and
 * leaves it after the last downgrade: it is no part of what a migration changes.
 */
export function withoutTable(
  map: ObjectMap,
  { schema = 'public', table = 'alembic_version' }: { readonly schema?: string; readonly table?: string },
): ObjectMap {
  const qualified = qualifiedName(schema, table);
  const belongs = ({ kind, name, definition }: DatabaseObject | CosmeticFact): boolean => {
    const plain = name.slice(name.lastIndexOf(' ') + 1);
    return (
      plain === qualified ||
      plain.startsWith(`${qualified}.`) ||
      (kind === 'index' && definition.includes(` ON ${qualified} USING `))
    );
  };
  return {
    ...map,
    objects: map.objects.filter((object) => !belongs(object)),
    cosmetic: map.cosmetic.filter((fact) => !belongs(fact)),
  };
}

/** @throws Error when the text is no object map */
export function parseObjectMap(text: string): ObjectMap {
  const value = JSON.parse(text) as Partial<ObjectMap> | null;
  if (value?.format !== FORMAT || !Array.isArray(value.objects) || !Array.isArray(value.cosmetic)) {
    throw new Error(`not an object map of format ${FORMAT}`);
  }
  return value as ObjectMap;
}
