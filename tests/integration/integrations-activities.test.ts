/** Activities of this project's preconditions, announcements and checks, run as a worker runs them. */
import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createAnnouncementActivities } from '../../src/activities/announcements.ts';
import { createCheckActivities } from '../../src/activities/checks.ts';
import type { ActivityDependencies } from '../../src/activities/dependencies.ts';
import { createOwnStepActivities } from '../../src/activities/own-steps.ts';
import { createPreconditionActivities } from '../../src/activities/preconditions/preconditions.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import type { ActionsInput } from '../../src/contract/evidence/actions.ts';
import type { StepInput } from '../../src/contract/evidence/step.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import type { Action, Check, Measure } from '../../src/contract/profile.ts';
import type { MigrationRequest } from '../../src/contract/request.ts';
import { serve } from '../http-server.ts';
import { testProfile, testRun } from '../integration-context.ts';
import { randomName, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const stack = useStack();
const template = await readFile(new URL('../../config/profile-template.yaml', import.meta.url), 'utf8');
let home: string;
let input: StepInput;
let dependencies: ActivityDependencies;
let connection: Connection;

beforeAll(async () => {
  home = await temporaryDirectory('activities');
  await writeFile(join(home, 'whisper-transcriber.yaml'), template);
  connection = await Connection.connect({ address: stack.temporal.address });
  dependencies = {
    profilesDirectory: home,
    stateDirectory: join(home, 'state'),
    client: new Client({ connection }),
    secrets: createSecretVault(),
  };
  input = { run: testRun, profile: testProfile(home) };
});
afterAll(async () => {
  await connection.close();
});

type Info = ConstructorParameters<typeof MockActivityEnvironment>[0];
const environment = (info: Info = {}): MockActivityEnvironment =>
  new MockActivityEnvironment({ activityId: 'the-step', ...info }, { logger: new DefaultLogger('ERROR') });
const activity = <T>(work: () => Promise<T>, within = environment()): Promise<T> => within.run(work);
const failureOf = async (work: Promise<unknown>): Promise<ApplicationFailure> => {
  const failure = await work.then(
    () => new Error('it succeeded'),
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(ApplicationFailure);
  return failure as ApplicationFailure;
};
const findingsOf = (failure: ApplicationFailure): readonly string[] =>
  (failure.details?.[0] as { readonly findings: readonly string[] } | undefined)?.findings ?? [];

describe('an announcement', () => {
  const post = (url: string): Action => ({
    kind: 'http',
    method: 'POST',
    url,
    headers: {},
    expect: { status: [200], json: {}, contains: [] },
    timeout: 2_000,
  });
  const announce = (actions: readonly Action[], info?: Info, within = environment(info)) => {
    const message = { kind: 'window-announced', title: 'Maintenance', text: 'Tonight', facts: {} } as const;
    const given: ActionsInput = { ...input, actions, message };
    return activity(() => createAnnouncementActivities(dependencies).performActions(given), within);
  };

  test('reaches everybody it can, and a retry only those it did not', async () => {
    let open = false;
    await using one = await serve(() => ({}));
    await using two = await serve(() => ({ status: open ? 200 : 503 }));
    await using three = await serve(() => ({}));
    const actions = [post(one.url), post(two.url), post(three.url)];
    const first = environment();
    let heartbeat: unknown;
    first.on('heartbeat', (details: unknown) => (heartbeat = details));
    const failed = await failureOf(announce(actions, undefined, first));
    expect(failed.type).toBe(STEP_ERRORS.unavailable);
    expect(failed.message).toBe(`not delivered: POST ${two.url}: POST ${two.url}: status 503 instead of 200`);

    // The heartbeat that the server hands to the next attempt is the one sent last.
    await expect.poll(() => JSON.stringify(heartbeat)).toContain(three.url);
    open = true;
    expect(await announce(actions, { attempt: 2, heartbeatDetails: heartbeat })).toEqual({
      delivered: [one, two, three].map(({ url }) => ({ to: `POST ${url}`, answer: 'status 200' })),
    });
    expect([one, two, three].map(({ seen }) => seen.length)).toEqual([1, 2, 1]);
    const keys = two.seen.map(({ headers }) => headers['idempotency-key']);
    expect(keys[0]).toBe(keys[1]);
  });

  test('is remembered by an attempt that is lost before it told anybody else', async () => {
    await using one = await serve(() => ({}));
    await using two = await serve(() => ({ status: 503 }));
    const heartbeatDetails = { delivered: { 0: { to: `POST ${one.url}`, answer: 'status 200' } } };
    const second = environment({ attempt: 2, heartbeatDetails });
    const beats: unknown[] = [];
    second.on('heartbeat', (details: unknown) => beats.push(details));
    await failureOf(announce([post(one.url), post(two.url)], undefined, second));
    expect(beats[0]).toEqual(heartbeatDetails);
    expect(one.seen).toEqual([]);
  });

  test('that says the same again in another step is another message', async () => {
    await using server = await serve(() => ({}));
    await announce([post(server.url)], { activityId: 'gate.production/remind' });
    await announce([post(server.url)], { activityId: 'gate.production/remind#2' });
    const [first, second] = server.seen.map(({ headers }) => headers['idempotency-key']);
    expect(first).not.toBe(second);
  });

  test('is not tried again where trying changes nothing', async () => {
    const failure = await failureOf(announce([{ kind: 'file', path: 'whisper-transcriber.yaml/x.md' }]));
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.nonRetryable).toBe(true);
  });
});

describe('checks', () => {
  const shell = (name: string, script: string): Check => ({
    name,
    kind: 'command',
    action: { kind: 'command', command: ['sh', '-c', script], directory: 'profile', environment: {}, timeout: 5_000 },
  });
  const run = (checks: readonly Check[]) =>
    activity(() => createCheckActivities(dependencies).runChecks({ ...input, checks }));

  test('are all run, and all that say no are named', async () => {
    const failure = await failureOf(
      run([shell('one', 'echo no >&2; exit 1'), shell('two', 'echo fine'), shell('three', 'exit 4')]),
    );
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    expect(findingsOf(failure)).toEqual([
      'check "one": command sh exited with code 1: no',
      'check "three": command sh exited with code 4 and said nothing',
    ]);
  });

  test('that pass tell what they were told', async () => {
    expect(await run([shell('one', 'echo working; echo 42 rows')])).toEqual({
      checks: [{ name: 'one', answer: 'exit code 0: 42 rows', milliseconds: expect.any(Number) as number }],
    });
  });
});

describe('measures', () => {
  test('are compared after they have settled, and a regression is named with its limit', async () => {
    let depth = 10;
    await using server = await serve(() => ({ body: { depth } }));
    const measures: Measure[] = [
      {
        name: 'queue depth',
        source: { kind: 'http', url: server.url, pointer: '/depth', headers: {} },
        limit: { ratio: 1.5, absolute: 1 },
        samples: 3,
      },
    ];
    const given = { ...input, profile: { ...input.profile, monitoring: { measures, settle: 10, sampleEvery: 10 } } };
    const { captureMeasures, compareMeasures } = createCheckActivities(dependencies);
    const baseline = await activity(() => captureMeasures(given));
    expect(baseline.values).toEqual([{ name: 'queue depth', value: 10, samples: [10, 10, 10] }]);
    depth = 16;
    expect(await activity(() => compareMeasures({ ...given, measures, baseline }))).toEqual({
      values: [{ name: 'queue depth', before: 10, after: 16, limit: 16, verdict: 'within' }],
    });
    depth = 17;
    const failure = await failureOf(activity(() => compareMeasures({ ...given, measures, baseline })));
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    expect(failure.message).toBe('measure "queue depth": 17, at most 16 allowed (10 before)');
  });

  test('without data are found before the run goes on', async () => {
    await using server = await serve(() => ({ body: {} }));
    const measures: Measure[] = [
      {
        name: 'a',
        source: { kind: 'http', url: server.url, pointer: '/a', headers: {} },
        limit: { ratio: 1, absolute: 0 },
        samples: 5,
      },
      {
        name: 'b',
        source: { kind: 'http', url: server.url, pointer: '/b', headers: {} },
        limit: { ratio: 1, absolute: 0 },
        samples: 5,
      },
    ];
    const given = { ...input, profile: { ...input.profile, monitoring: { measures, settle: 10, sampleEvery: 10 } } };
    const failure = await failureOf(activity(() => createPreconditionActivities(dependencies).verifyMonitoring(given)));
    expect(findingsOf(failure)).toEqual(['measure "a": no data', 'measure "b": no data']);
    expect(server.seen).toHaveLength(2);
  });
});

test('an own step answers with what its program says', async () => {
  const { runOwnStep } = createOwnStepActivities(dependencies);
  const step = {
    id: 'warm-cache',
    section: 'validation',
    action: { kind: 'command', command: ['sh', '-c', 'cat'], directory: 'profile', environment: {}, timeout: 5_000 },
    timeout: 5_000,
  } as const;
  const { answer } = await activity(() => runOwnStep({ ...input, step }));
  expect(answer).toContain('exit code 0: {"service":"whisper-transcriber","releaseTag":"v1.1.0"');
});

/** `COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION` of Temporal's API. */
const COMPLETE_WORKFLOW = 4;
/** Events of a history: started, task scheduled, task started, task completed. */
const FIRST_TASK_COMPLETED = 4;

describe('a request', () => {
  const request: MigrationRequest = {
    service: 'whisper-transcriber',
    releaseTag: 'v1.1.0',
    changeTicket: 'CHG-1042',
    requestedBy: 'dana@example.com',
  };
  /** Runs of a workflow that nobody works on: they stay as they are until they are ended. */
  const startRun = async (workflowId: string, given: unknown): Promise<string> => {
    const handle = await dependencies.client.workflow.start('databaseMigration', {
      taskQueue: randomName('nobody'),
      workflowId,
      args: [given],
    });
    return handle.firstExecutionRunId;
  };
  const terminate = (workflowId: string, runId: string) =>
    dependencies.client.workflow.getHandle(workflowId, runId).terminate('test');
  /** Answers the run's task as a worker would whose workflow says this. */
  const workOn = async (workflowId: string, commands: readonly object[]): Promise<void> => {
    const { taskQueue } = await dependencies.client.workflow.getHandle(workflowId).describe();
    const { workflowService } = connection;
    const { taskToken } = await connection.withDeadline(Date.now() + 10_000, () =>
      workflowService.pollWorkflowTaskQueue({ namespace: 'default', taskQueue: { name: taskQueue } }),
    );
    await workflowService.respondWorkflowTaskCompleted({
      namespace: 'default',
      taskToken,
      commands: [...commands],
    });
  };
  /** The workflow returns at once. */
  const complete = (workflowId: string): Promise<void> =>
    workOn(workflowId, [{ commandType: COMPLETE_WORKFLOW, completeWorkflowExecutionCommandAttributes: {} }]);
  const accept = (
    workflowId: string,
    runId: string,
    changes: Partial<MigrationRequest> = {},
    findings: readonly string[] = [],
  ) =>
    activity(
      () =>
        createPreconditionActivities(dependencies).acceptRequest({
          request: { ...request, ...changes },
          workflowId,
          runId,
          findings,
        }),
      environment({ workflowExecution: { workflowId, runId } }),
    );

  test('is accepted with the profile it will run by', async () => {
    const workflowId = randomName('migrate-accepted');
    const runId = await startRun(workflowId, request);
    const accepted = await accept(workflowId, runId);
    expect(accepted.profile.service).toBe('whisper-transcriber');
    expect(accepted.profileDigest).toMatch(/^[0-9a-f]{64}$/);
    expect(accepted.previousRun).toBeUndefined();
    await terminate(workflowId, runId);
  });

  test('is refused with the findings of all sides in one message', async () => {
    const workflowId = randomName('migrate-refused');
    const first = await startRun(workflowId, request);
    await terminate(workflowId, first);
    const second = await startRun(workflowId, request);
    await writeFile(
      join(home, 'broken.yaml'),
      template.replace('minimumReviewers: 1', 'minimumReviewers: x').replace('length: 1h', 'length: 1'),
    );
    const failure = await failureOf(accept(workflowId, second, { service: 'broken' }, ['the window lies in the past']));
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.nonRetryable).toBe(true);
    expect(findingsOf(failure)).toEqual([
      'the window lies in the past',
      expect.stringContaining('review.minimumReviewers: must be a number'),
      expect.stringContaining('window.length: must be a duration'),
      expect.stringContaining(`the earlier run ${first} was terminated and could put nothing back`),
    ]);
    await terminate(workflowId, second);
  });

  test('is refused for an unknown service, naming those known', async () => {
    const workflowId = randomName('migrate-unknown');
    const runId = await startRun(workflowId, request);
    const failure = await failureOf(accept(workflowId, runId, { service: 'no-such-service' }));
    await terminate(workflowId, runId);
    expect(failure.message).toContain('the service "no-such-service" has no profile; known services: ');
    expect(failure.message).toContain('whisper-transcriber');
  });

  test('after a terminated run is accepted once somebody has looked after it', async () => {
    const workflowId = randomName('migrate-reconciled');
    const first = await startRun(workflowId, request);
    await terminate(workflowId, first);
    const second = await startRun(workflowId, request);
    expect(findingsOf(await failureOf(accept(workflowId, second)))).toEqual([expect.stringContaining(first)]);
    await terminate(workflowId, second);

    // Both are behind the newer one: naming that settles them, naming the older does not.
    const third = await startRun(workflowId, { ...request, reconciledRun: second });
    expect(findingsOf(await failureOf(accept(workflowId, third, { reconciledRun: first })))).toEqual([
      expect.stringContaining(second),
    ]);
    const accepted = await accept(workflowId, third, { reconciledRun: second });
    expect(accepted.previousRun).toEqual({ runId: second, status: 'TERMINATED' });
    await terminate(workflowId, third);
  });

  test('remembers what earlier requests have settled', async () => {
    const workflowId = randomName('migrate-remembered');
    const first = await startRun(workflowId, request);
    await terminate(workflowId, first);
    const second = await startRun(workflowId, { ...request, reconciledRun: first });
    await complete(workflowId);
    const third = await startRun(workflowId, request);
    expect((await accept(workflowId, third)).previousRun).toEqual({ runId: second, status: 'COMPLETED' });
    await terminate(workflowId, third);
  });

  test('after a workflow reset is refused, for the execution that went on does not know what the first had switched', async () => {
    const workflowId = randomName('migrate-reset');
    const first = await startRun(workflowId, request);
    await workOn(workflowId, []);
    await dependencies.client.workflowService.resetWorkflowExecution({
      namespace: 'default',
      workflowExecution: { workflowId, runId: first },
      reason: 'test',
      requestId: randomUUID(),
      workflowTaskFinishEventId: FIRST_TASK_COMPLETED as never,
    });
    await complete(workflowId);
    const next = await startRun(workflowId, request);
    expect(findingsOf(await failureOf(accept(workflowId, next)))).toEqual([expect.stringContaining(first)]);
    const accepted = await accept(workflowId, next, { reconciledRun: first });
    expect(accepted.previousRun).toMatchObject({ status: 'COMPLETED' });
    await terminate(workflowId, next);
  });

  test('that names a run nobody terminated is refused', async () => {
    const workflowId = randomName('migrate-wrong');
    const runId = await startRun(workflowId, request);
    const named = randomUUID();
    expect(findingsOf(await failureOf(accept(workflowId, runId, { reconciledRun: named })))).toEqual([
      `"reconciledRun" names ${named}, which is no terminated or timed-out run of ${workflowId}`,
    ]);
    await terminate(workflowId, runId);
  });

  test('without a window is refused where the profile announces one', async () => {
    await writeFile(
      join(home, 'announcing.yaml'),
      template
        .replace('service: whisper-transcriber', 'service: announcing')
        .replace("schedule, '{{service}}'", "schedule, '{{windowStart}}'"),
    );
    const workflowId = randomName('migrate-window');
    const runId = await startRun(workflowId, request);
    const failure = await failureOf(accept(workflowId, runId, { service: 'announcing' }));
    expect(failure.message).toContain('the request must name both "windowStart" and "windowEnd"');
    const window = { windowStart: '2027-01-01T10:00:00Z', windowEnd: '2027-01-01T11:00:00Z' };
    expect((await accept(workflowId, runId, { service: 'announcing', ...window })).profile.service).toBe('announcing');
    await terminate(workflowId, runId);
  });
});
