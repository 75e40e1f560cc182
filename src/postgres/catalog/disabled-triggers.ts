import type { Client } from 'pg';
import { qualifiedName } from '../identifier.ts';

/**
 * Triggers that are in no object map and do not fire: those of foreign keys and other constraints, which `ALTER TABLE ...
 * DISABLE TRIGGER ALL` switches off as well, and those that partitions have from their parent. No dump carries it.
 *
 * @returns one line each, sorted
 */
export async function listDisabledTriggers(client: Client): Promise<readonly string[]> {
  const { rows } = await client.query<{
    schema: string;
    table: string;
    trigger: string;
    constraint: boolean;
    state: string;
  }>(
    `SELECT DISTINCT n.nspname AS "schema", c.relname AS "table", coalesce(k.conname, g.tgname) AS "trigger",
            k.oid IS NOT NULL AS "constraint",
            CASE g.tgenabled WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'enabled for replicas only' ELSE 'enabled always' END AS "state"
     FROM pg_trigger g LEFT JOIN pg_constraint k ON k.oid = g.tgconstraint AND g.tgisinternal
     JOIN pg_class c ON c.oid = coalesce(nullif(k.conrelid, 0), g.tgrelid) JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE g.tgenabled <> 'O' AND (g.tgisinternal OR g.tgparentid <> 0)`,
  );
  return rows
    .map(({ schema, table, trigger, constraint, state }) => {
      const name = qualifiedName(schema, table, trigger);
      return constraint ? `constraint ${name}: its triggers are ${state}` : `trigger ${name}: ${state}`;
    })
    .sort();
}
