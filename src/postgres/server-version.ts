import type { Client } from 'pg';
import type { DatabaseIdentity } from '../contract/evidence/production.ts';

/** `pg_read_all_data` and the hash functions of the ledger came with it. */
const OLDEST_MAJOR = 14;

type Server = Pick<DatabaseIdentity, 'serverMajor'>;

export interface ServerVersions {
  readonly production: Server | undefined;
  readonly staging: Server | undefined;
  readonly scratch: Server | undefined;
}

/** What the servers' major versions stand in the way of, and what a dry run on another version does not show. */
export function inspectVersions({ production, staging, scratch }: ServerVersions): {
  readonly findings: readonly string[];
  readonly notes: readonly string[];
} {
  if (production === undefined) return { findings: [], notes: [] };
  const { serverMajor } = production;
  const other = (server: Server | undefined): server is Server =>
    server !== undefined && server.serverMajor !== serverMajor;
  return {
    findings: [
      ...(serverMajor < OLDEST_MAJOR
        ? [`production is PostgreSQL ${serverMajor}: ${OLDEST_MAJOR} or later is needed`]
        : []),
      ...(other(scratch)
        ? [
            `the scratch server is PostgreSQL ${scratch.serverMajor}, production ${serverMajor}: only the same major version shows what a restore would do`,
          ]
        : []),
    ],
    notes: other(staging)
      ? [
          `staging is PostgreSQL ${staging.serverMajor}, production ${serverMajor}: what its dry run shows is of another version`,
        ]
      : [],
  };
}

/** Major version of the server behind this connection, as it tells it itself. */
export async function readServerMajor(client: Client): Promise<number> {
  const { rows } = await client.query<{ major: number }>(
    `SELECT current_setting('server_version_num')::int / 10000 AS major`,
  );
  return rows[0]!.major;
}
