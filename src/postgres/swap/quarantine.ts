/** Databases that were production until a restore took their place: evidence, and the only place of what was written late. */
import type { Client } from 'pg';
import { refusal } from '../../contract/errors.ts';
import { type DatabaseMark, listMarkedDatabases, readDatabaseSize } from '../restore/database-mark.ts';
import { sqlName } from '../identifier.ts';

export interface KeptAside {
  readonly name: string;
  readonly oid: number;
  readonly sizeBytes: number | null;
  /** The production database it was. */
  readonly production: string;
  /** Closed to connections, as a swap leaves it. */
  readonly closed: boolean;
  readonly mark: DatabaseMark;
}

/**
 * Databases kept aside by any run, by their marks, those that expire first at the head.
 *
 * @param client of the administrator, in the maintenance database
 */
export async function listKeptAside(client: Client): Promise<KeptAside[]> {
  const found: KeptAside[] = [];
  for (const { name, oid, open, mark } of await listMarkedDatabases(client)) {
    if (mark.kind !== 'kept-aside') continue;
    const production = String(mark.facts?.['production'] ?? '');
    found.push({ name, oid, sizeBytes: await readDatabaseSize(client, oid), production, closed: !open, mark });
  }
  return found;
}

/**
 * Drops one database kept aside, named exactly, after every look that could tell that it is something else. There is no way
 * back from it.
 *
 * @param client of the administrator, in the maintenance database
 * @param production the names of production databases of the profile: never dropped, whatever their comments say
 * @throws StepError `StepRefused` with every reason
 */
export async function dropKeptAside(
  client: Client,
  { name, production }: { readonly name: string; readonly production: readonly string[] },
): Promise<KeptAside> {
  const found = (await listKeptAside(client)).find((database) => database.name === name);
  if (found === undefined) {
    throw refusal([
      `there is no database "${name}" that a run has put aside: runbook quarantine list shows those there are`,
    ]);
  }
  const findings = await reasonsToKeep(client, found, production);
  if (findings.length > 0) throw refusal(findings.map((text) => `database "${name}" is not dropped: ${text}`));
  // Without FORCE: should somebody have come in after all, this fails.
  await client.query(`DROP DATABASE ${sqlName(name)}`);
  return found;
}

async function reasonsToKeep(client: Client, found: KeptAside, production: readonly string[]): Promise<string[]> {
  const { name, oid, mark } = found;
  const sessions = await client.query<{ count: number }>(
    'SELECT count(*)::int AS "count" FROM pg_stat_activity WHERE datid = $1::int8::oid',
    [oid],
  );
  const prepared = await client.query<{ count: number }>(
    'SELECT count(*)::int AS "count" FROM pg_prepared_xacts WHERE database = $1',
    [name],
  );
  const successor = await client.query('SELECT FROM pg_database WHERE datname = $1 AND datallowconn', [
    found.production,
  ]);
  const recorded = mark.facts?.['keptAside'];
  return [
    ...(production.includes(name) ? ['it is the production database of the profile'] : []),
    ...(found.closed ? [] : ['it is open to connections, so somebody has taken it into use again']),
    ...(recorded === name ? [] : [`it was put aside as "${recorded}" and has been renamed since`]),
    ...(successor.rows.length > 0
      ? []
      : [`there is no open database "${found.production}", whose place was taken: this may be the only copy`]),
    ...(sessions.rows[0]!.count === 0 ? [] : [`${sessions.rows[0]!.count} session(s) are connected to it`]),
    ...(prepared.rows[0]!.count === 0 ? [] : [`${prepared.rows[0]!.count} prepared transaction(s) are open in it`]),
  ];
}
