import { escapeLiteral, type Client } from 'pg';
import { sqlName } from '../identifier.ts';

const SETTING = 'default_transaction_read_only';

/** Where `default_transaction_read_only` is set for sessions of one database, as the texts that were set. */
export interface ReadOnlySettings {
  /** `ALTER DATABASE ... SET`; null = not set. */
  readonly database: string | null;
  /** `ALTER ROLE ... IN DATABASE ... SET`, by role: wins over everything else. */
  readonly inDatabase: Readonly<Record<string, string>>;
  /** `ALTER ROLE ... SET`, by role: wins over the database's. */
  readonly roleWide: Readonly<Record<string, string>>;
}

/** @param client in any database of the server */
export async function readSettings(client: Client, database: string): Promise<ReadOnlySettings> {
  const { rows } = await client.query<{ role: string | null; everywhere: boolean; value: string }>(
    `SELECT r.rolname AS "role", s.setdatabase = 0 AS "everywhere", split_part(entry, '=', 2) AS "value"
     FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, LATERAL unnest(s.setconfig) AS entry
     WHERE split_part(entry, '=', 1) = $2
       AND (s.setdatabase = 0 OR s.setdatabase = (SELECT oid FROM pg_database WHERE datname = $1))
       AND (s.setrole = 0 OR r.oid IS NOT NULL)
     ORDER BY 1`,
    [database, SETTING],
  );
  const ofRoles = (everywhere: boolean): Record<string, string> =>
    Object.fromEntries(
      rows.flatMap((row) => (row.role !== null && row.everywhere === everywhere ? [[row.role, row.value]] : [])),
    );
  return {
    database: rows.find(({ role, everywhere }) => role === null && !everywhere)?.value ?? null,
    inDatabase: ofRoles(false),
    roleWide: ofRoles(true),
  };
}

/** Any unambiguous beginning of a word is a boolean to the server. */
export const isOn = (value: string | null | undefined): boolean =>
  value !== null && value !== undefined && (value === '1' || /^(on|t|tr|tru|true|y|ye|yes)$/i.test(value));

export type WantedSettings = Pick<ReadOnlySettings, 'database' | 'inDatabase'>;

/** SQL that makes the settings of this database be exactly the wanted ones; empty = they are. */
export function settingStatements(database: string, found: WantedSettings, wanted: WantedSettings): string[] {
  const statements: string[] = [];
  const assign = (subject: string, value: string | null): void => {
    const change = value === null ? `RESET ${SETTING}` : `SET ${SETTING} = ${escapeLiteral(value)}`;
    statements.push(`ALTER ${subject} ${change}`);
  };
  if (found.database !== wanted.database) assign(`DATABASE ${sqlName(database)}`, wanted.database);
  for (const role of new Set([...Object.keys(found.inDatabase), ...Object.keys(wanted.inDatabase)])) {
    const value = wanted.inDatabase[role] ?? null;
    if ((found.inDatabase[role] ?? null) !== value) {
      assign(`ROLE ${sqlName(role)} IN DATABASE ${sqlName(database)}`, value);
    }
  }
  return statements;
}

/** All or nothing, whenever the worker dies. */
export async function applySettings(client: Client, statements: readonly string[]): Promise<void> {
  await client.query('BEGIN');
  try {
    for (const statement of statements) await client.query(statement);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}
