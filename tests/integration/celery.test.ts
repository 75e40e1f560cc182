import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SwitchState } from '../../src/contract/evidence/switches.ts';
import { STEP_ERRORS, type StepError } from '../../src/contract/errors.ts';
import type { Switch } from '../../src/contract/profile.ts';
import type { CeleryMechanism } from '../../src/integrations/celery.ts';
import type { IntegrationContext } from '../../src/integrations/context.ts';
import { engageSwitch, readSwitch, releaseSwitch } from '../../src/integrations/switch.ts';
import type { RunningProcess } from '../../src/process/options.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { runProcess, startProcess } from '../../src/process/run.ts';
import { testContext } from '../integration-context.ts';
import { useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const stack = useStack();
const { python } = stack.venv;
/** Queue names of this file only: the broker is everybody's, and its remote control reaches every worker on it. */
const prefix = `celery-${randomBytes(4).toString('hex')}`;
const [jobs, mail, other] = [`${prefix}-jobs`, `${prefix}-mail`, `${prefix}-other`];
const redactor = createRedactor([]);
let home: string;
let context: IntegrationContext;

const APPLICATION = `
import os, time
from celery import Celery
print("importing the application says things on standard output")
app = Celery("shop", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
app.conf.update(
    task_default_queue="${other}",
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
  home = await temporaryDirectory('celery');
  await writeFile(join(home, 'shop.py'), APPLICATION);
  await writeFile(join(home, 'broker'), stack.redis.url, { mode: 0o600 });
  context = testContext(home, { checkout: home });
});

const pause = (queues: readonly string[], changes: Partial<CeleryMechanism> = {}): Switch => ({
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
const stopWorkers = async (): Promise<void> => {
  await Promise.all([...workers].map((worker) => worker.stop().catch(() => undefined)));
  workers.clear();
};

/** @returns the worker's node name, once it says that it is ready */
async function startWorker(name: string, queues: readonly string[]): Promise<string> {
  const node = `${name}@${prefix}`;
  const ready = Promise.withResolvers<void>();
  const worker = await startProcess({
    file: python,
    args: `-m celery -A shop worker -n ${node} -Q ${queues.join(',')} --loglevel INFO --pool threads --concurrency 1 --without-gossip --without-mingle`.split(
      ' ',
    ),
    directory: home,
    environment: { BROKER_URL: stack.redis.url },
    signal: new AbortController().signal,
    redactor,
    onLine: (_stream, line) => {
      if (line.includes(`${node} ready.`)) ready.resolve();
    },
  });
  workers.add(worker);
  worker.result.then((result) => ready.reject(new Error(result.stderrTail)), ready.reject);
  await ready.promise;
  return node;
}

/** Sends tasks and returns the file each adds a line to. */
async function send(queue: string, count: number, seconds = 0): Promise<string> {
  const path = join(home, `done-${randomBytes(4).toString('hex')}`);
  await writeFile(path, '');
  const script = `
import shop
for _ in range(${count}): shop.work.apply_async((${seconds}, ${JSON.stringify(path)}), queue="${queue}")`;
  const result = await runProcess({
    file: python,
    args: ['-c', script],
    directory: home,
    environment: { BROKER_URL: stack.redis.url },
    signal: new AbortController().signal,
    redactor,
  });
  if (result.kind !== 'exited' || result.code !== 0) throw new Error(result.stderrTail);
  return path;
}

const done = async (path: string): Promise<number> => (await readFile(path, 'utf8')).split('done').length - 1;

/** Messages in a queue, told by Redis itself. */
async function waiting(queue: string): Promise<number> {
  const { hostname, port, password } = new URL(stack.redis.url);
  const socket = connect(Number(port), hostname);
  socket.end(`${password === '' ? '' : `AUTH ${decodeURIComponent(password)}\r\n`}LLEN ${queue}\r\nQUIT\r\n`);
  const answer = /:(\d+)\r\n/.exec(await text(socket));
  return Number(answer?.[1] ?? Number.NaN);
}

const failureOf = (work: Promise<unknown>): Promise<StepError> =>
  work.then(
    () => {
      throw new Error('it succeeded');
    },
    (error: StepError) => error,
  );

// One after the other on the same two workers: each takes seconds to start.
describe('Celery queues', { timeout: 120_000 }, () => {
  let one: string;
  let two: string;
  let before: SwitchState;
  beforeAll(async () => {
    [one, two] = await Promise.all([startWorker('one', [jobs, mail, other]), startWorker('two', [jobs])]);
  }, 120_000);
  afterAll(stopWorkers);
  const item = pause([jobs, mail]);

  test('are paused by remote control, keep their tasks, and leave other queues alone', async () => {
    before = await readSwitch(item, context);
    expect(before).toEqual({
      state: 'released',
      detail: { workers: [one, two], consumers: { [jobs]: [one, two], [mail]: [one] }, unfinished: 0 },
    });
    expect((await engageSwitch(item, context)).detail['consumers']).toEqual({ [jobs]: [], [mail]: [] });
    const held = await send(jobs, 3);
    const sent = await send(other, 1);
    await expect.poll(() => done(sent), { timeout: 15_000 }).toBe(1);
    expect(await done(held)).toBe(0);
    expect(await waiting(jobs)).toBe(3);
    expect(await readSwitch(item, context)).toMatchObject({ state: 'engaged' });
    expect(await engageSwitch(item, context)).toMatchObject({ state: 'engaged' });
  });

  test('are resumed where they were consumed before and nowhere else, and their tasks are done', async () => {
    const held = await send(jobs, 2);
    expect((await releaseSwitch(item, before, context)).detail['consumers']).toEqual({
      [jobs]: [one, two],
      [mail]: [one],
    });
    await expect.poll(() => done(held), { timeout: 15_000 }).toBe(2);
    expect(await releaseSwitch(item, before, context)).toMatchObject({ state: 'released' });
  });

  test('are paused once the task that a worker has taken is finished', async () => {
    const path = await send(jobs, 1, 5);
    await expect.poll(() => waiting(jobs), { timeout: 15_000 }).toBe(0);
    expect((await engageSwitch(item, context)).detail['unfinished']).toBe(0);
    expect(await done(path)).toBe(1);
  });

  test('stay paused when they were paused before the run', async () => {
    const found = await readSwitch(item, context);
    expect(found.state).toBe('engaged');
    expect((await releaseSwitch(item, found, context)).state).toBe('engaged');
    expect((await readSwitch(item, context)).state).toBe('engaged');
  });

  test('are proven neither paused nor consumed while no worker answers', async () => {
    await stopWorkers();
    const hasty = pause([jobs, mail], { timeout: 1_000 });
    expect(await readSwitch(hasty, context)).toEqual({
      state: 'unknown',
      detail: { note: 'no worker answered', workers: [] },
    });
    const paused = await failureOf(engageSwitch(hasty, context));
    expect(paused.type).toBe(STEP_ERRORS.unavailable);
    expect(paused.message).toContain('not proven to be paused: no worker answered');
    const resumed = await failureOf(releaseSwitch(hasty, before, context));
    expect(resumed.type).toBe(STEP_ERRORS.unavailable);
    expect(resumed.message).toContain('not proven to be consumed again (no worker answered)');
    expect(resumed.message).toContain('celery -A shop control add_consumer');
  });

  test('are consumed again by a worker that replaced those before', async () => {
    const held = await send(mail, 1);
    const next = await startWorker('next', [jobs, mail]);
    expect((await releaseSwitch(item, before, context)).detail['consumers']).toEqual({
      [jobs]: [next],
      [mail]: [next],
    });
    await expect.poll(() => done(held), { timeout: 15_000 }).toBe(1);
  });
});

test('a broker that is not there, and an application that does not load, are told', { timeout: 60_000 }, async () => {
  await writeFile(join(home, 'no-broker'), 'redis://:hunter2hunter2@127.0.0.1:1/0', { mode: 0o600 });
  const environment = { BROKER_URL: { secret: { kind: 'file', path: 'no-broker' } } } as const;
  const gone = await failureOf(readSwitch(pause([jobs], { environment }), context));
  expect(gone.type).toBe(STEP_ERRORS.unavailable);
  expect(gone.message).toContain("Celery's remote control of shop: ");
  expect(gone.message).not.toContain('hunter2');
  const broken = await failureOf(readSwitch(pause([jobs], { app: 'no_such_module' }), context));
  expect(broken.message).toContain('no_such_module');
});
