import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { STEP_ERRORS, type StepError } from '../../src/contract/errors.ts';
import type { Switch } from '../../src/contract/profile.ts';
import type { IntegrationContext } from '../../src/integrations/context.ts';
import { engageSwitch, readSwitch, releaseSwitch } from '../../src/integrations/switch.ts';
import type { RunningProcess } from '../../src/process/options.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { runProcess, startProcess } from '../../src/process/run.ts';
import { testContext } from '../integration-context.ts';
import { useStack } from '../stack.ts';

const stack = useStack();
const { python } = stack.venv;
/** Queue names of this file only: the broker is everybody's, and its remote control reaches every worker on it. */
const prefix = `celery-${randomBytes(4).toString('hex')}`;
const [jobs, mail] = [`${prefix}-jobs`, `${prefix}-mail`];
const redactor = createRedactor([]);
let home: string;
let context: IntegrationContext;

const APPLICATION = `
import os, time
from celery import Celery
print("importing the application says things on standard output")
app = Celery("shop", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
app.conf.update(
    task_default_queue="${prefix}-other",
    control_exchange="${prefix}",
    worker_prefetch_multiplier=1,
    task_acks_late=True,
)

@app.task
def work(seconds, path):
    time.sleep(seconds)
    open(path, "a").write("done\\n")
`;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'celery-'));
  await writeFile(join(home, 'shop.py'), APPLICATION);
  await writeFile(join(home, 'broker'), stack.redis.url, { mode: 0o600 });
  context = testContext(home, { checkout: home });
});
afterAll(() => rm(home, { recursive: true }));

const pause = (
  queues: readonly string[],
  changes: { readonly app?: string; readonly timeout?: number } = {},
): Switch => ({
  name: 'jobs',
  kind: 'jobs',
  mechanism: {
    kind: 'celery',
    python,
    app: 'shop',
    queues,
    environment: { BROKER_URL: { secret: { kind: 'file', path: 'broker' } } },
    timeout: 20_000,
    ...changes,
  },
  keepAfter: [],
});

const workers = new Set<RunningProcess>();
afterEach(async () => {
  await Promise.all([...workers].map((worker) => worker.stop().catch(() => undefined)));
  workers.clear();
});

/** @returns the worker's node name, once it answers */
async function startWorker(name: string, queues: readonly string[], more: readonly string[] = []): Promise<string> {
  const node = `${name}-${randomBytes(3).toString('hex')}@${prefix}`;
  workers.add(
    await startProcess({
      file: python,
      args: [
        '-m',
        'celery',
        '-A',
        'shop',
        'worker',
        '-n',
        node,
        '-Q',
        queues.join(','),
        '--pool',
        'threads',
        '--concurrency',
        '1',
        '--without-gossip',
        '--without-mingle',
        ...more,
      ],
      directory: home,
      environment: { BROKER_URL: stack.redis.url },
      signal: new AbortController().signal,
      redactor,
    }),
  );
  await expect
    .poll(async () => (await readSwitch(pause(queues), context)).detail['workers'], { timeout: 40_000 })
    .toContain(node);
  return node;
}

/** Sends tasks and returns the file each adds a line to. */
async function send(queue: string, count: number, seconds = 0): Promise<string> {
  const path = join(home, `done-${randomBytes(4).toString('hex')}`);
  await writeFile(path, '');
  await inPython(`
import shop
for _ in range(${count}): shop.work.apply_async((${seconds}, ${JSON.stringify(path)}), queue="${queue}")`);
  return path;
}

const done = async (path: string): Promise<number> =>
  Number(await inPython(`print(len(open(${JSON.stringify(path)}).readlines()))`));
const waiting = async (queue: string): Promise<number> =>
  Number(await inPython(`import os, redis; print(redis.Redis.from_url(os.environ["BROKER_URL"]).llen("${queue}"))`));

async function inPython(script: string): Promise<string> {
  const result = await runProcess({
    file: python,
    args: ['-c', script],
    directory: home,
    environment: { BROKER_URL: stack.redis.url },
    signal: new AbortController().signal,
    redactor,
  });
  if (result.kind !== 'exited' || result.code !== 0) throw new Error(result.stderrTail);
  return result.stdoutTail.trim().split('\n').at(-1) ?? '';
}

const failureOf = (work: Promise<unknown>): Promise<StepError> =>
  work.then(
    () => {
      throw new Error('it succeeded');
    },
    (error: StepError) => error,
  );

describe('Celery queues', () => {
  test('are paused and resumed by remote control, and lose no task', { timeout: 120_000 }, async () => {
    const one = await startWorker('one', [jobs, mail]);
    const two = await startWorker('two', [jobs]);
    const item = pause([jobs]);
    const before = await readSwitch(item, context);
    expect(before).toEqual({
      state: 'released',
      detail: { workers: [one, two].toSorted(), consumers: { [jobs]: [one, two].toSorted() }, unfinished: 0 },
    });

    expect((await engageSwitch(item, context)).detail['consumers']).toEqual({ [jobs]: [] });
    expect((await readSwitch(item, context)).state).toBe('engaged');
    const held = await send(jobs, 3);
    const other = await send(mail, 1);
    await expect.poll(() => done(other), { timeout: 15_000 }).toBe(1);
    expect(await done(held)).toBe(0);
    expect(await waiting(jobs)).toBe(3);

    expect((await engageSwitch(item, context)).state).toBe('engaged');
    expect(await releaseSwitch(item, before, context)).toMatchObject({
      state: 'released',
      detail: { consumers: { [jobs]: [one, two].toSorted() } },
    });
    await expect.poll(() => done(held), { timeout: 15_000 }).toBe(3);
    expect(await releaseSwitch(item, before, context)).toMatchObject({ state: 'released' });
  });

  test('are resumed only where they were consumed before', { timeout: 120_000 }, async () => {
    const one = await startWorker('one', [jobs]);
    const two = await startWorker('two', [mail]);
    const item = pause([jobs, mail]);
    const before = await readSwitch(item, context);
    await engageSwitch(item, context);
    expect((await releaseSwitch(item, before, context)).detail['consumers']).toEqual({ [jobs]: [one], [mail]: [two] });
  });

  test('stay paused when they were paused before the run', { timeout: 120_000 }, async () => {
    await startWorker('one', [mail, jobs]);
    await engageSwitch(pause([jobs]), context);
    const before = await readSwitch(pause([jobs]), context);
    expect(before.state).toBe('engaged');
    await engageSwitch(pause([jobs]), context);
    expect((await releaseSwitch(pause([jobs]), before, context)).state).toBe('engaged');
    expect((await readSwitch(pause([jobs]), context)).state).toBe('engaged');
  });

  test('are paused once the task that a worker has taken is finished', { timeout: 120_000 }, async () => {
    await startWorker('one', [jobs]);
    const path = await send(jobs, 1, 4);
    await expect.poll(() => waiting(jobs), { timeout: 15_000 }).toBe(0);
    const state = await engageSwitch(pause([jobs]), context);
    expect(state.detail['unfinished']).toBe(0);
    expect(await done(path)).toBe(1);
  });

  test('are not taken for paused when no worker answers', { timeout: 60_000 }, async () => {
    expect(await readSwitch(pause([jobs]), context)).toEqual({
      state: 'unknown',
      detail: { note: 'no worker answered', workers: [] },
    });
    const failure = await failureOf(engageSwitch(pause([jobs], { timeout: 2_000 }), context));
    expect(failure.type).toBe(STEP_ERRORS.unavailable);
    expect(failure.message).toContain('not proven to be paused: no worker answered');
  });

  test('are consumed again by a worker that replaced the one before', { timeout: 120_000 }, async () => {
    await startWorker('old', [jobs]);
    const item = pause([jobs]);
    const before = await readSwitch(item, context);
    await engageSwitch(item, context);
    for (const worker of workers) await worker.stop();
    const held = await send(jobs, 1);
    const next = await startWorker('new', [jobs]);
    expect((await releaseSwitch(item, before, context)).detail['consumers']).toEqual({ [jobs]: [next] });
    await expect.poll(() => done(held), { timeout: 15_000 }).toBe(1);
  });

  test('are not taken for resumed when nobody consumes them', { timeout: 120_000 }, async () => {
    await startWorker('one', [jobs]);
    const item = pause([jobs], { timeout: 3_000 });
    const before = await readSwitch(item, context);
    await engageSwitch(item, context);
    for (const worker of workers) await worker.stop();
    const failure = await failureOf(releaseSwitch(item, before, context));
    expect(failure.type).toBe(STEP_ERRORS.unavailable);
    expect(failure.message).toContain('not proven to be consumed again (no worker answered)');
    expect(failure.message).toContain('celery -A shop control add_consumer');
  });

  test('of a broker that is not there, or an application that does not load, are reported', {
    timeout: 60_000,
  }, async () => {
    await writeFile(join(home, 'no-broker'), 'redis://:hunter2hunter2@127.0.0.1:1/0', { mode: 0o600 });
    const item = pause([jobs]);
    const astray = {
      ...item,
      mechanism: { ...item.mechanism, environment: { BROKER_URL: { secret: { kind: 'file', path: 'no-broker' } } } },
    } as Switch;
    const gone = await failureOf(readSwitch(astray, context));
    expect(gone.type).toBe(STEP_ERRORS.unavailable);
    expect(gone.message).toContain("Celery's remote control of shop: ");
    expect(gone.message).not.toContain('hunter2');
    const broken = await failureOf(readSwitch(pause([jobs], { app: 'no_such_module' }), context));
    expect(broken.message).toContain('no_such_module');
  });
});
