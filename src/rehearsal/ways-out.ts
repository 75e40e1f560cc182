/** Ways by which a copy could reach other hosts. What was restored is cut off (`neutralize`); a migration can make new ones. */
import type { Client } from 'pg';
import { qualifiedName } from '../postgres/identifier.ts';

/** Extensions with functions that open connections, or run programs, by arguments of their own. */
export const OUTGOING = [
  'dblink',
  'http',
  'pg_net',
  'plpython3u',
  'plperlu',
  'pltclu',
  'plsh',
  'aws_s3',
  'aws_lambda',
  'azure_storage',
];

export interface WayOut {
  readonly kind: 'foreign server' | 'extension' | 'subscription';
  readonly name: string;
  /** By which a change is seen. May hold addresses: for comparisons only. */
  readonly definition: string;
}

/** Foreign servers, subscriptions, and extensions that reach out or bring a foreign data wrapper. */
export async function waysOut(client: Client): Promise<readonly WayOut[]> {
  const { rows } = await client.query<WayOut>(
    `SELECT 'foreign server' AS "kind", s.srvname AS "name", concat_ws(' ', w.fdwname, w.fdwhandler, s.srvoptions::text) AS "definition"
     FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
     UNION ALL
     SELECT 'subscription', s.subname, concat_ws(' ', s.subenabled, s.subslotname)
     FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()
     UNION ALL
     SELECT 'extension', e.extname, '' FROM pg_extension e
     WHERE e.extname = ANY ($1)
        OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_foreign_data_wrapper'::regclass AND d.deptype = 'e'
                   AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid)
     ORDER BY 1, 2`,
    [OUTGOING],
  );
  return rows;
}

/** What came or was changed in between, in words. */
export function newWaysOut(before: readonly WayOut[], after: readonly WayOut[]): readonly string[] {
  const keyOf = ({ kind, name, definition }: WayOut): string => JSON.stringify([kind, name, definition]);
  const known = new Set(before.map(keyOf));
  return after
    .filter((way) => !known.has(keyOf(way)))
    .map(
      ({ kind, name }) =>
        `${kind} ${qualifiedName(name)}, which the upgrade makes or changes, may reach other hosts from the scratch server: only its network can keep it from them`,
    );
}
