import { setTimeout as pause } from 'node:timers/promises';
import { CancelledFailure } from '@temporalio/common';
import { afterEach, describe, expect, it } from 'vitest';
import { withProvenStop } from '../../src/activities/apply/proven-stop.ts';
import { holdMigrationLock, type MigrationLock } from '../../src/postgres/advisory-lock.ts';
import { parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import { isGroupGone } from '../../src/process/group.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { startProcess } from '../../src/process/run.ts';
import { createService, execute, query, type TestService, withClient } from '../postgres-service.ts';
import { randomName, useStack } from '../stack.ts';

const stack = useStack();
const server = stack.postgres.primary;

const locks: MigrationLock[] = [];
afterEach(async () => {
  for (const lock of locks.splice(0)) await lock.release();
});

interface Migration {
  readonly service: TestService;
  readonly lock: MigrationLock;
  readonly stop: AbortController;
  readonly options: Parameters<typeof withProvenStop>[0];
}

/** Under the migration lock, as every step that writes. */
async function migration(runId = randomName('run')): Promise<Migration> {
  const service = await createService(server);
  const lock = await holdLock(service, runId);
  const stop = new AbortController();
  const options = {
    administrator: parseConnectionUrl(service.administratorUrl),
    maintenanceDatabase: 'postgres',
    role: service.roles.migrator,
    runId,
    step: 'apply.upgrade',
    signal: stop.signal,
  };
  return { service, lock, stop, options };
}

async function holdLock({ administratorUrl, database }: TestService, runId: string): Promise<MigrationLock> {
  const lock = await holdMigrationLock(administratorUrl, {
    database,
    maintenanceDatabase: 'postgres',
    runId,
    step: 'apply.upgrade',
    signal: new AbortController().signal,
  });
  locks.push(lock);
  return lock;
}

const sessionsOf = async (role: string): Promise<number> =>
  (await query(server.superuserUrl, 'SELECT FROM pg_stat_activity WHERE usename = $1', [role])).length;

const settled = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'resolved',
    (error: unknown) => error,
  );

/** Python with psycopg that has said "ready". */
async function python(url: string, source: string, { signal, force }: { signal: AbortSignal; force: AbortSignal }) {
  const ready = Promise.withResolvers<void>();
  const running = await startProcess({
    file: stack.venv.python,
    args: ['-c', `import os, signal, time\nimport psycopg\nurl = os.environ["URL"]\n${source}`],
    environment: { URL: url, PYTHONUNBUFFERED: '1' },
    signal,
    force,
    redactor: createRedactor([url]),
    onLine: (_stream, line) => {
      if (line === 'ready') ready.resolve();
    },
  });
  await Promise.race([ready.promise, running.result]);
  return running;
}

/** Whatever is done to its session it opens another one, and no signal but SIGKILL ends it. */
const STUBBORN = `
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        with psycopg.connect(url) as connection:
            print("ready")
            while True:
                connection.execute("SELECT pg_sleep(0.02)")
    except psycopg.Error:
        pass
`;

describe('a proven stop', () => {
  it('hands on what the work gives when nobody stops it, and leaves no session of its own', async () => {
    const { options, service } = await migration();
    expect(await withProvenStop(options, async () => 'done')).toBe('done');
    const own = () =>
      query(service.superuserUrl, `SELECT FROM pg_stat_activity WHERE application_name LIKE $1 AND usename = $2`, [
        '%/stop',
        service.roles.administrator,
      ]);
    await expect.poll(async () => (await own()).length).toBe(0);
  });

  it('hands on what the work throws when nobody stops it', async () => {
    const { options } = await migration();
    const failing = withProvenStop(options, () => Promise.reject(new Error('the revision failed')));
    await expect(failing).rejects.toThrow('the revision failed');
  });

  it('ends a process that ignores SIGTERM and connects anew each time its session is ended', async () => {
    const { options, service, stop } = await migration();
    let group = 0;
    const stopping = withProvenStop(options, async ({ force }) => {
      const running = await python(service.migratorUrl, STUBBORN, { signal: stop.signal, force });
      group = running.pid;
      stop.abort(new CancelledFailure('CANCELLED'));
      return running.result;
    });
    const failure = await settled(stopping);
    expect(await sessionsOf(options.role)).toBe(0);
    expect(await isGroupGone(group)).toBe(true);
    expect(failure).toBeInstanceOf(CancelledFailure);
    const [proof] = (failure as CancelledFailure).details as [{ endedSessions: number }];
    expect(proof.endedSessions).toBeGreaterThan(0);
  });

  it('ends sessions that no process on this host holds', async () => {
    const { options, service, stop } = await migration();
    await withClient(service.migratorUrl, async (elsewhere) => {
      const sleeping = settled(elsewhere.query('SELECT pg_sleep(60)'));
      const stopping = withProvenStop(options, async () => {
        await expect.poll(() => sessionsOf(options.role)).toBe(1);
        stop.abort(new Error('stopped'));
        throw new Error('the work has ended');
      });
      await expect(stopping).rejects.toThrow('the work has ended');
      expect(String(await sleeping)).toMatch(/cancel|terminat/);
      expect(await sessionsOf(options.role)).toBe(0);
    });
  });

  it('settles only when the work has, and ends whoever connects until then', async () => {
    const { options, service, stop } = await migration();
    const events: string[] = [];
    const stopping = withProvenStop({ ...options, onStopped: () => events.push('proven') }, async () => {
      stop.abort(new Error('stopped'));
      // Later than the first look, which sees nobody.
      await pause(300);
      // Its session may be ended before it is told that it has one.
      const late = withClient(service.migratorUrl, (client) => client.query('SELECT pg_sleep(60)'));
      expect(await settled(late)).not.toBe('resolved');
      events.push('work ended');
      throw new Error('the work has ended');
    });
    await expect(stopping).rejects.toThrow('the work has ended');
    expect(events).toEqual(['work ended', 'proven']);
  });

  it('says after a while who is left, where a session cannot be ended', async () => {
    const { options, service, stop } = await migration();
    await execute(service.superuserUrl, `ALTER ROLE ${options.role} SUPERUSER`);
    try {
      await withClient(service.migratorUrl, async (superuser) => {
        await superuser.query('SELECT 1');
        const stopping = withProvenStop({ ...options, within: 500 }, async () => {
          stop.abort(new CancelledFailure('CANCELLED'));
          throw new Error('the work has ended');
        });
        const failure = (await settled(stopping)) as CancelledFailure;
        expect(failure).toBeInstanceOf(CancelledFailure);
        expect(JSON.stringify(failure.details)).toMatch(/could not be ended: pid \d+/);
      });
    } finally {
      await execute(service.superuserUrl, `ALTER ROLE ${options.role} NOSUPERUSER`);
    }
  });

  it('opens another connection where its own was lost meanwhile', async () => {
    const { options, service, stop } = await migration();
    await withClient(service.migratorUrl, async (elsewhere) => {
      await elsewhere.query('SELECT 1');
      const stopping = withProvenStop(options, async () => {
        await query(
          service.superuserUrl,
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND application_name LIKE '%/stop'`,
          [service.roles.administrator],
        );
        stop.abort(new Error('stopped'));
        throw new Error('the work has ended');
      });
      await expect(stopping).rejects.toThrow('the work has ended');
      expect(await sessionsOf(options.role)).toBe(0);
    });
  });

  it('leaves the sessions of a later attempt alone, which holds production by now', async () => {
    const { options, service, lock, stop } = await migration();
    await withClient(service.migratorUrl, async (laterAttempt) => {
      const stopping = withProvenStop(options, async () => {
        await holdLock(service, options.runId);
        stop.abort(await lock.lost);
        throw new Error('the work has ended');
      });
      await expect(stopping).rejects.toThrow('the work has ended');
      expect((await laterAttempt.query('SELECT 1 AS alive')).rows).toEqual([{ alive: 1 }]);
    });
  });

  it('does not begin once it has been stopped', async () => {
    const { options, stop } = await migration();
    stop.abort(new Error('stopped before'));
    let begun = false;
    const stopping = withProvenStop(options, async () => {
      begun = true;
    });
    await expect(stopping).rejects.toThrow('stopped before');
    expect(begun).toBe(false);
  });
});
