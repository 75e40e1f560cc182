import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { ApplicationFailure } from '@temporalio/common';
import { NativeConnection, Worker } from '@temporalio/worker';
import { beforeAll, describe, expect, test } from 'vitest';
import { ensureBundle } from '../../scripts/build-bundle.ts';
import { programs } from '../../scripts/stack/layout.ts';
import type { DrillActivities } from '../../src/contract/activities.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import { scriptedDrill } from '../workflow/scripted-drill.ts';
import { randomName, useStack } from '../stack.ts';
import { type CliWorld, createWorld } from './cli-world.ts';

const run = promisify(execFile);
const stack = useStack();
let cli: CliWorld;
beforeAll(async () => {
  cli = await createWorld();
  await cli.runbook('setup');
});

/** A service with a worker whose drills answer as told. */
async function withDrills<T>(
  overrides: Partial<DrillActivities>,
  work: (drill: readonly string[], service: string) => Promise<T>,
): Promise<T> {
  const service = randomName('svc').replaceAll('_', '-');
  const taskQueue = randomName('queue');
  const connection = await NativeConnection.connect({ address: stack.temporal.address });
  try {
    const worker = await Worker.create({
      connection,
      namespace: cli.namespace,
      taskQueue,
      workflowBundle: { code: await readFile(await ensureBundle(), 'utf8') },
      activities: { ...scriptedDrill(overrides).activities },
      shutdownForceTime: '2 seconds',
    });
    return await worker.runUntil(() => work(['drill', service, '--task-queue', taskQueue], service));
  } finally {
    await connection.close();
  }
}

const BY = ['--by', 'dana@example.com'];

describe('runbook drill', () => {
  test('starts a drill, follows it, and exits with 0 when the backup came back', async () => {
    await withDrills({}, async (drill, service) => {
      const { code, stdout, stderr } = await cli.runbook(...drill, ...BY, '--wait');
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(new RegExp(`^started drill-${service}, run [0-9a-f-]{36}\\n`));
      expect(stdout).toContain('passed: the backup of 2026-11-22 20:00:00 UTC');
      expect(stdout).toContain('record: s3://backups/drills/1.json');

      const status = await cli.runbook('drill', service, '--status');
      expect(status.code).toBe(0);
      expect(status.stdout).toMatch(/^result +passed: /m);
      expect(status.stdout).toMatch(/^schedule +none$/m);
      const json = await cli.runbook('drill', service, '--status', '--json');
      expect(JSON.parse(json.stdout)).toMatchObject({
        last: { end: { kind: 'passed', record: { outcome: 'passed', requestedBy: 'dana@example.com' } } },
        schedule: null,
      });
    });
  });

  test('exits with 1 and says why when it did not', async () => {
    const damaged = async (): Promise<never> => {
      throw ApplicationFailure.nonRetryable('byte 17 of 40 differs', STEP_ERRORS.backupDamaged);
    };
    await withDrills({ restoreOnScratch: damaged }, async (drill, service) => {
      const { code, stdout } = await cli.runbook(...drill, ...BY, '--wait');
      expect(code).toBe(1);
      expect(stdout).toContain(`The drill of ${service} failed: byte 17 of 40 differs`);
      expect(stdout).toContain('record: s3://backups/drills/1.json');
    });
  });

  test('says that one is there already, and shows what it does', async () => {
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => (release = resolve));
    const { activities } = scriptedDrill();
    await withDrills(
      {
        prepareDrill: async (input) => {
          await released;
          return activities.prepareDrill(input);
        },
      },
      async (drill, service) => {
        const waiting = cli.begin(...drill, ...BY, '--wait');
        await waiting.says('finding the backup');
        const second = await cli.runbook(...drill, ...BY);
        expect(second).toEqual({
          code: 1,
          stdout: '',
          stderr: `runbook: a drill of ${service} is there already: drill-${service}; see runbook drill ${service} --status\n`,
        });
        const status = await cli.runbook('drill', service, '--status');
        expect(status.stdout).toMatch(/^phase +finding the backup/m);
        waiting.kill('SIGINT');
        expect(await waiting.ended).toMatchObject({
          code: 130,
          stderr: expect.stringContaining(`the drill drill-${service} goes on`),
        });
        release();
        await cli.client.workflow.getHandle(`drill-${service}`).result();
      },
    );
  });

  test('is scheduled, given other times, started by its schedule, and no longer scheduled', async () => {
    await withDrills({}, async (drill, service) => {
      const created = await cli.runbook(...drill, ...BY, '--schedule', '0 3 * * 0');
      expect(created).toMatchObject({ code: 0, stderr: '' });
      expect(created.stdout).toMatch(
        new RegExp(`^created: drill-${service}, next at 20\\d\\d-\\d\\d-\\d\\d 03:00:00 UTC, `),
      );
      const updated = await cli.runbook(...drill, ...BY, '--schedule', '30 4 * * *');
      expect(updated.stdout).toMatch(/^updated: .* 04:30:00 UTC, .* 04:30:00 UTC, .* 04:30:00 UTC\n$/);
      const nonsense = await cli.runbook(...drill, ...BY, '--schedule', '61 4 * * *');
      expect(nonsense).toMatchObject({
        code: 2,
        stderr: expect.stringContaining('--schedule "61 4 * * *" was refused'),
      });
      const handle = cli.client.schedule.getHandle(`drill-${service}`);
      expect(await handle.describe()).toMatchObject({ policies: { overlap: 'SKIP' }, state: { paused: false } });

      await handle.trigger();
      const ended = await untilPassed(service);
      // A schedule appends the time of the start.
      expect(ended).toMatch(new RegExp(`^drill +drill-${service}-20\\d\\d-`, 'm'));

      expect(await cli.runbook('drill', service, '--unschedule')).toMatchObject({
        code: 0,
        stdout: `drills of ${service} are no longer scheduled\n`,
      });
      expect(await cli.runbook('drill', service, '--unschedule')).toMatchObject({
        code: 1,
        stderr: `runbook: drills of ${service} are not scheduled\n`,
      });
    });
  });

  test('can be scheduled with temporal’s own command line as well', async () => {
    await withDrills({}, async ([, , , taskQueue = ''], service) => {
      const id = `drill-${service}`;
      const temporal = (...words: string[]) =>
        run(programs.temporal, [...words, '--address', stack.temporal.address, '--namespace', cli.namespace]);
      await temporal(
        'schedule',
        'create',
        '--schedule-id',
        id,
        '--cron',
        '0 3 * * 0',
        '--overlap-policy',
        'Skip',
        '--workflow-id',
        id,
        '--type',
        'restoreDrill',
        '--task-queue',
        taskQueue,
        '--input',
        JSON.stringify({ service, requestedBy: 'dana@example.com' }),
      );
      const status = await cli.runbook('drill', service, '--status');
      expect(status.stdout).toMatch(new RegExp(`^schedule +${id}, next at 20.* 03:00:00 UTC`, 'm'));
      await temporal('schedule', 'trigger', '--schedule-id', id);
      expect(await untilPassed(service)).toContain('by         dana@example.com');
      expect(await cli.runbook('drill', service, '--unschedule')).toMatchObject({ code: 0 });
    });
  });

  async function untilPassed(service: string): Promise<string> {
    for (;;) {
      const { stdout } = await cli.runbook('drill', service, '--status');
      if (stdout.includes('passed: ')) return stdout;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  test.each([
    [['drill', 'svc'], '--by is missing'],
    [['drill', 'Svc', ...BY], 'the service must be lower-case letters'],
    [['drill', 'svc', ...BY, '--backup', 'latest'], '--backup must be an address like s3://bucket/key'],
    [['drill', 'svc', ...BY, '--status', '--unschedule'], 'give one of --status, --unschedule'],
    [['drill', 'svc', ...BY, '--schedule', '0 3 * * 0', '--wait'], '--wait does not go with --schedule'],
    [['drill', 'svc', ...BY, '--wait', '--json'], '--json goes with --status only'],
    [['drill', 'svc', ...BY, '--schedule', 'every sunday'], '--schedule "every sunday" was refused'],
  ])('%j is wrong usage', async (words, message) => {
    const { code, stderr } = await cli.runbook(...words);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});
