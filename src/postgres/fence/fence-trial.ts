import type { Client } from 'pg';
import type { DatabaseIdentity } from '../../contract/evidence/production.ts';
import { refusal } from '../../contract/errors.ts';
import { type ConnectionOptions, withConnection } from '../connection.ts';
import { parseConnectionUrl } from '../connection-url.ts';
import { sqlState } from '../database-error.ts';
import { sqlName } from '../identifier.ts';
import { isInRecovery, readIdentity } from '../identity.ts';

export interface TrialRequest {
  /** Of the service's own login. */
  readonly url: string;
  readonly applicationRoles: readonly string[];
  /** Where the login must lead. */
  readonly production: Pick<DatabaseIdentity, 'systemIdentifier' | 'database'>;
  readonly session: Pick<ConnectionOptions, 'runId' | 'step' | 'signal'>;
}

export interface WriteTrial {
  readonly role: string;
  /** `read-only`: refused as in a read-only transaction (SQLSTATE 25006). `open`: whatever else the answer was. */
  readonly kind: 'read-only' | 'open';
  /** What was tried, and what the server said. */
  readonly told: string;
}

const READ_ONLY_TRANSACTION = '25006';

/**
 * Does the login of the profile lead to production, as one of the application's roles? Looks, and tries nothing.
 *
 * @throws StepError `StepRefused` when the login is not the service's, or leads elsewhere
 */
export const inspectServiceLogin = (request: TrialRequest): Promise<void> => asService(request, async () => undefined);

/**
 * Tries to write as the service does: in a session with the settings that its role gets, something that writes no row, and
 * that is rolled back besides.
 *
 * @throws StepError as `inspectServiceLogin`
 */
export const tryToWrite = (request: TrialRequest): Promise<WriteTrial> =>
  asService(request, async (client, role) => {
    const statement = await harmlessWrite(client);
    await client.query('BEGIN');
    try {
      const said = await client.query(statement).then(
        () => ({ state: undefined, text: 'let through' }),
        (error: unknown) => {
          const state = sqlState(error);
          if (state === undefined) throw error;
          return { state, text: `refused, "${(error as Error).message.slice(0, 200)}" (SQLSTATE ${state})` };
        },
      );
      return {
        role,
        kind: said.state === READ_ONLY_TRANSACTION ? 'read-only' : 'open',
        told: `${statement} as role "${role}": ${said.text}`,
      };
    } finally {
      await client.query('ROLLBACK').catch(() => undefined);
    }
  });

async function asService<T>(
  { url, applicationRoles, production, session }: TrialRequest,
  work: (client: Client, role: string) => Promise<T>,
): Promise<T> {
  const target = parseConnectionUrl(url);
  const role = target.user;
  if (!applicationRoles.includes(role)) {
    throw refusal([
      `databases.production.application is the login of role "${role}", which is none of applicationRoles (${applicationRoles.join(', ')}): the fence is to be tried as the service itself`,
    ]);
  }
  return withConnection(target, { ...session, transactions: 'as-configured' }, async (client) => {
    const found = await readIdentity(client);
    if (found.systemIdentifier !== production.systemIdentifier || found.database !== production.database) {
      throw refusal([
        `databases.production.application leads to database "${found.database}" of system ${found.systemIdentifier}, the administrator to "${production.database}" of system ${production.systemIdentifier}: correct the profile's addresses`,
      ]);
    }
    if ((await isInRecovery(client)) === 'standby') {
      throw refusal(['databases.production.application leads to a standby: the fence is to be tried on the primary']);
    }
    return work(client, role);
  });
}

/**
 * A statement that the server refuses in a read-only transaction before it looks at anything else. On a table of the
 * service's, if there is one that no trigger or rule would act on.
 */
async function harmlessWrite(client: Client): Promise<string> {
  const { rows } = await client.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS "schema", c.relname AS "name"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'DELETE') AND NOT c.relhasrules
       AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 1 = 0)
     ORDER BY 1, 2 LIMIT 1`,
  );
  const table = rows[0];
  if (table === undefined) return 'CREATE TEMPORARY TABLE migration_runbook_trial ()';
  return `DELETE FROM ${sqlName(table.schema, table.name)} WHERE false`;
}
