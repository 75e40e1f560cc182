import { describe, expect, it } from 'vitest';
import { applicationName } from '../../src/postgres/connection.ts';
import { holdMigrationLock } from '../../src/postgres/advisory-lock.ts';
import { parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { prepareSessionStop } from '../../src/postgres/session-stop.ts';
import { createService, query } from '../postgres-service.ts';
import { useStack } from '../stack.ts';

const { primary } = useStack().postgres;
const RUN_ID = '0190bbbb-5e55-7000-8000-000000005709';
const STEP = 'apply.upgrade';

const sessionsOfTheStop = (): Promise<{ pid: number }[]> =>
  query(primary.superuserUrl, 'SELECT pid FROM pg_stat_activity WHERE application_name = $1', [
    applicationName(RUN_ID, `${STEP}/stop`),
  ]);

describe('the connection that stands ready to stop a migration', () => {
  it('is replaced by one other when several find it gone at the same time, and none is left after it was closed', async () => {
    const service = await createService(primary);
    const { signal } = new AbortController();
    const lock = await holdMigrationLock(service.administratorUrl, {
      runId: RUN_ID,
      step: STEP,
      signal,
      database: service.database,
      maintenanceDatabase: 'postgres',
    });
    try {
      const ready = await prepareSessionStop({
        administrator: parseConnectionUrl(service.administratorUrl),
        maintenanceDatabase: 'postgres',
        role: service.roles.migrator,
        runId: RUN_ID,
        step: STEP,
      });
      const [before, ...others] = await sessionsOfTheStop();
      expect(others).toEqual([]);
      await query(primary.superuserUrl, 'SELECT pg_terminate_backend($1, 5000)', [before!.pid]);
      const stop = () => ready.stop(Promise.resolve(), () => undefined, 10_000);
      expect(await Promise.all([stop(), stop(), stop()])).toHaveLength(3);
      const [after, ...more] = await sessionsOfTheStop();
      expect(more).toEqual([]);
      expect(after!.pid).not.toBe(before!.pid);
      await ready.close();
      await expect.poll(sessionsOfTheStop).toEqual([]);
    } finally {
      await lock.release();
    }
  });
});
