import { readFile } from 'node:fs/promises';
import { CancelledFailure, Context } from '@temporalio/activity';
import { WorkflowFailedError, type WorkflowHandle, type WorkflowStartOptions } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ensureBundle } from '../../scripts/build-bundle.ts';
import { programs } from '../../scripts/stack/layout.ts';
import type { DrillActivities } from '../../src/contract/activities.ts';
import type { DrillStatus } from '../../src/contract/drill.ts';
import type { DrillRecord } from '../../src/contract/evidence/drill.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import { SEARCH_ATTRIBUTE_NAMES } from '../../src/contract/search-attributes.ts';
import { addSearchAttributes } from '../../src/temporal-setup.ts';
import { scriptedDrill } from './scripted-drill.ts';

Runtime.install({ logger: new DefaultLogger('ERROR'), telemetryOptions: { logging: { filter: 'ERROR' } } });

let environment: TestWorkflowEnvironment;
let code: string;
beforeAll(async () => {
  code = await readFile(await ensureBundle(), 'utf8');
  environment = await TestWorkflowEnvironment.createTimeSkipping({
    server: { executable: { type: 'existing-path', path: programs.temporalTestServer } },
  });
  await addSearchAttributes(environment.client, SEARCH_ATTRIBUTE_NAMES);
});
afterAll(() => environment?.teardown());

const request = { service: 'whisper-transcriber', requestedBy: 'dana@example.com' };

let drills = 0;
/** Replays each history after it has ended: workflow code that is not deterministic fails there. */
async function drill<T>(
  activities: DrillActivities,
  act: (handle: WorkflowHandle) => Promise<T>,
  options: Partial<WorkflowStartOptions> = {},
): Promise<T> {
  drills += 1;
  const taskQueue = `drill-${drills}`;
  const worker = await Worker.create({
    connection: environment.nativeConnection,
    taskQueue,
    workflowBundle: { code },
    activities: { ...activities },
    maxHeartbeatThrottleInterval: '100 milliseconds',
  });
  return worker.runUntil(async () => {
    const handle = await environment.client.workflow.start('restoreDrill', {
      args: [request],
      ...options,
      taskQueue,
      workflowId: `drill-whisper-transcriber-${drills}`,
    });
    const result = await act(handle);
    await Worker.runReplayHistory({ workflowBundle: { code } }, await handle.fetchHistory());
    return result;
  });
}

/** What a failed drill says: name or type, message, details. */
async function failureOf(
  handle: WorkflowHandle,
): Promise<{ readonly type: string; readonly message: string; readonly details: unknown }> {
  const error: unknown = await handle.result().then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof WorkflowFailedError)) throw new Error('the drill did not fail', { cause: error });
  const { cause } = error;
  return cause instanceof ApplicationFailure
    ? { type: cause.type ?? '', message: cause.message, details: cause.details?.[0] }
    : { type: cause?.name ?? '', message: cause?.message ?? '', details: undefined };
}

const steps = ['prepareDrill', 'restoreOnScratch', 'dropScratchDatabase', 'recordDrill'];

const damaged = async (): Promise<never> => {
  throw ApplicationFailure.nonRetryable('byte 17 differs', STEP_ERRORS.backupDamaged);
};

const untilCancelled = async (): Promise<never> => {
  const beating = setInterval(() => Context.current().heartbeat(), 50);
  try {
    return await Context.current().cancelled;
  } finally {
    clearInterval(beating);
  }
};

const statusOf = (handle: WorkflowHandle): Promise<DrillStatus> => handle.query<DrillStatus>('status');

async function untilPhase(handle: WorkflowHandle, phase: DrillStatus['phase']): Promise<void> {
  for (;;) {
    if ((await statusOf(handle)).phase === phase) return;
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

describe('a drill', () => {
  it('restores, tidies up, records, and completes with the record', async () => {
    const { calls, recorded, activities } = scriptedDrill();
    const record = await drill(activities, async (handle) => {
      const result = (await handle.result()) as DrillRecord;
      expect(await statusOf(handle)).toMatchObject({
        service: 'whisper-transcriber',
        phase: 'passed',
        backup: 's3://backups/backup.capture.dump.zst.age',
      });
      return result;
    });
    expect(record).toMatchObject({ outcome: 'passed', requestedBy: 'dana@example.com' });
    expect(calls).toEqual(steps);
    expect(recorded[0]).toMatchObject({ result: { kind: 'passed' } });
    expect(Date.parse(recorded[0]!.startedAt)).not.toBeNaN();
  });

  it('hands on the backup it was asked for', async () => {
    const asked: unknown[] = [];
    const { activities } = scriptedDrill();
    const backup = 's3://backups/runbook/whisper-transcriber/run/backup.capture.backup.json';
    await drill(
      { ...activities, prepareDrill: (input) => (asked.push(input.backup), activities.prepareDrill(input)) },
      (handle) => handle.result(),
      { args: [{ ...request, backup }] },
    );
    expect(asked).toEqual([backup]);
  });

  it('that fails still drops the scratch database and records why', async () => {
    const { calls, recorded, activities } = scriptedDrill({ restoreOnScratch: damaged });
    const failure = await drill(activities, async (handle) => {
      const found = await failureOf(handle);
      expect(await statusOf(handle)).toMatchObject({ phase: 'failed', trouble: 'byte 17 differs' });
      return found;
    });
    expect(failure).toMatchObject({
      type: 'DrillFailed',
      message: expect.stringContaining('byte 17 differs'),
      details: { outcome: 'failed', why: 'byte 17 differs' },
    });
    expect(calls).toEqual(steps);
    expect(recorded[0]?.result).toEqual({ kind: 'failed', why: 'byte 17 differs' });
  });

  it('that passed but leaves its database behind is recorded as passed and fails with the remedy', async () => {
    const { calls, recorded, activities } = scriptedDrill({
      dropScratchDatabase: async () => {
        throw ApplicationFailure.nonRetryable('a session stays', STEP_ERRORS.stateUnexpected);
      },
    });
    const failure = await drill(activities, failureOf);
    expect(failure).toMatchObject({
      type: 'DrillFailed',
      message: expect.stringContaining('runbook sweep whisper-transcriber --remove: a session stays'),
      details: { outcome: 'passed' },
    });
    expect(calls).toEqual(steps);
    expect(recorded[0]?.result.kind).toBe('passed');
  });

  it('tries again to tidy up where the server does not answer', async () => {
    let tries = 0;
    const { activities } = scriptedDrill({
      dropScratchDatabase: async () => {
        tries += 1;
        if (tries < 4) throw ApplicationFailure.retryable('no answer', STEP_ERRORS.unavailable);
        return { dropped: [] };
      },
    });
    expect(await drill(activities, (handle) => handle.result())).toMatchObject({ outcome: 'passed' });
    expect(tries).toBe(4);
  });

  it('whose result cannot be recorded fails', async () => {
    const { activities } = scriptedDrill({
      recordDrill: async () => {
        throw ApplicationFailure.nonRetryable('access denied', STEP_ERRORS.refused);
      },
    });
    expect(await drill(activities, failureOf)).toMatchObject({
      type: 'DrillFailed',
      message: expect.stringContaining('could not be recorded: access denied'),
      details: undefined,
    });
  });

  it('that is cancelled stops the restore first, then tidies up and records, and ends cancelled', async () => {
    const order: string[] = [];
    const { recorded, activities } = scriptedDrill({
      restoreOnScratch: async () => {
        try {
          return await untilCancelled();
        } catch (error) {
          if (error instanceof CancelledFailure) order.push('restore stopped');
          throw error;
        }
      },
      dropScratchDatabase: async () => {
        order.push('dropped');
        return { dropped: [] };
      },
    });
    const failure = await drill(activities, async (handle) => {
      await untilPhase(handle, 'restore');
      await handle.cancel();
      return failureOf(handle);
    });
    expect(failure.type).toBe('CancelledFailure');
    expect(order).toEqual(['restore stopped', 'dropped']);
    expect(recorded[0]?.result).toEqual({ kind: 'failed', why: 'the drill was cancelled' });
  });

  it('that is cancelled while it tidies up goes on tidying up', async () => {
    const asked = Promise.withResolvers<void>();
    const { recorded, activities } = scriptedDrill({
      dropScratchDatabase: async () => {
        const heartbeat = setInterval(() => Context.current().heartbeat(), 50);
        await asked.promise;
        // A cancellation would come with the answer to a heartbeat.
        await new Promise((resolve) => setTimeout(resolve, 700));
        clearInterval(heartbeat);
        return { dropped: [] };
      },
    });
    const record = await drill(activities, async (handle) => {
      await untilPhase(handle, 'drop');
      await handle.cancel();
      asked.resolve();
      return handle.result();
    });
    expect(record).toMatchObject({ outcome: 'passed' });
    expect(recorded).toHaveLength(1);
  });
});

describe('a drill is refused, with nothing touched', () => {
  it.each([
    ['no argument', [], 'got 0 arguments'],
    ['null', [null], 'got null'],
    ['a text', ['whisper'], 'got a string'],
    ['two arguments', [request, request], 'got 2 arguments'],
    ['a field of another type', [{ ...request, service: 7 }], '"service" must be a string'],
    ['a path in place of a service', [{ ...request, service: '../etc' }], '"service" must be lower-case'],
    ['nobody who asks', [{ service: 'x' }], '"requestedBy" is missing'],
    ['a field nobody knows', [{ ...request, force: 'yes' }], '"force" is not a field'],
    ['a backup that is no address', [{ ...request, backup: 'yesterday' }], '"backup" must be an address'],
  ])('for %s', async (_name, args, finding) => {
    const { calls, activities } = scriptedDrill();
    const failure = await drill(activities, failureOf, { args });
    expect(failure).toMatchObject({ type: 'DrillRefused', message: expect.stringContaining(finding) });
    expect(failure.message).toContain('--workflow-id drill-whisper-transcriber');
    expect(calls).toEqual([]);
  });

  it('for an execution timeout, with which nobody would tidy up: the finding is handed on, to be told with all others', async () => {
    const given: (readonly string[])[] = [];
    const { activities } = scriptedDrill();
    await drill(
      { ...activities, prepareDrill: (input) => (given.push(input.findings), activities.prepareDrill(input)) },
      (handle) => handle.result(),
      { workflowExecutionTimeout: '1 hour' },
    );
    expect(given[0]).toContainEqual(expect.stringContaining('an execution timeout is set'));
    expect(given[0]?.at(-1)).toContain('start it with: temporal workflow start --type restoreDrill');
  });

  it('when there is no backup to restore: with the findings', async () => {
    const { calls, activities } = scriptedDrill({
      prepareDrill: async () => {
        throw ApplicationFailure.create({
          message: 'no verified backup',
          type: STEP_ERRORS.refused,
          nonRetryable: true,
          details: [{ findings: ['no verified backup'] }],
        });
      },
    });
    const failure = await drill(activities, failureOf);
    expect(failure).toMatchObject({ type: 'DrillRefused', details: { findings: ['no verified backup'] } });
    expect(calls).toEqual(['prepareDrill']);
  });
});
