import type { StepInput } from '../contract/evidence/step.ts';
import { underMigrationLock } from '../postgres/advisory-lock.ts';
import { parseConnectionUrl } from '../postgres/connection-url.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { requireCurrentAttempt } from './current-attempt.ts';

type Needed = Pick<ActivityDependencies, 'secrets'>;

/** Nobody migrates or restores this database meanwhile; when the lock is lost the work stops. */
export async function withMigrationLock<T>(
  { secrets }: Needed,
  { run, profile }: StepInput,
  step: string,
  signal: AbortSignal,
  work: (administratorUrl: string, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { administrator, maintenanceDatabase } = profile.databases.production;
  const url = await secrets.resolve(administrator, profile, signal);
  const { database } = parseConnectionUrl(url);
  return underMigrationLock(
    url,
    { database, maintenanceDatabase, runId: run.runId, step, signal, requireCurrent: requireCurrentAttempt },
    (held) => work(url, held),
  );
}
