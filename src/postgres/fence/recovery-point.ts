import type { Client } from 'pg';
import type { RecoveryPointEvidence } from '../../contract/evidence/fence.ts';
import { refusal } from '../../contract/errors.ts';
import { runTag } from '../connection.ts';
import { boundedIdentifier } from '../identifier.ts';

/**
 * What a named restore point lacks: a WAL that can be recovered from, and the right to set one (a superuser's unless granted).
 *
 * @param client of the administrator, in the maintenance database: rights on functions are a database's own
 * @returns findings, in words; empty = it can be set
 */
export async function recoveryPointFindings(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ role: string; database: string; level: string; may: boolean }>(
    `SELECT current_user AS "role", current_database() AS "database", current_setting('wal_level') AS "level",
            has_function_privilege('pg_catalog.pg_create_restore_point(text)', 'EXECUTE') AS "may"`,
  );
  const { role, database, level, may } = rows[0]!;
  return [
    ...(level === 'minimal'
      ? ['recoveryPoint.restorePoint: wal_level is minimal, which no restore point can be set with']
      : []),
    ...(may
      ? []
      : [
          `recoveryPoint.restorePoint: administrator "${role}" may not set one: in database "${database}", GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO ${role}`,
        ]),
  ];
}

/**
 * Sets a named restore point: `recovery_target_name` of whoever recovers an older base backup to this moment. Recovery ends
 * at the first point of a name, so the moment is part of it.
 *
 * @throws StepError `StepRefused`, see `recoveryPointFindings`
 */
export async function setRestorePoint(
  client: Client,
  { service, runId }: { readonly service: string; readonly runId: string },
): Promise<NonNullable<RecoveryPointEvidence['restorePoint']>> {
  const findings = await recoveryPointFindings(client);
  if (findings.length > 0) throw refusal(findings);
  // The server takes names of 63 bytes at most.
  const moment = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, '');
  const name = boundedIdentifier(`runbook-${service}`, `-${runTag(runId)}-${moment}Z`);
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_create_restore_point($1)::text AS "lsn"', [name]);
  return { name, lsn: rows[0]!.lsn };
}
