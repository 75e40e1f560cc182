import { spawn } from 'node:child_process';
import { access, constants, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { STEP_ERRORS, type StepError } from '../../src/contract/errors.ts';
import type { Check, Measure } from '../../src/contract/profile.ts';
import { runCheck } from '../../src/integrations/checks.ts';
import type { IntegrationContext } from '../../src/integrations/context.ts';
import { compareWithBaseline, median, takeMeasures } from '../../src/integrations/monitor.ts';
import { type Answer, serve } from '../http-server.ts';
import { testContext, testProfile } from '../integration-context.ts';
import { query } from '../postgres-service.ts';
import { createDatabase, createRole, databaseUrl, useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const stack = useStack();
const { primary } = stack.postgres;
const reader = await createRole(primary, 'reader');
const database = await createDatabase(primary, 'measures');
let home: string;
let context: IntegrationContext;

beforeAll(async () => {
  home = await temporaryDirectory('monitor');
  await writeFile(join(home, 'backup-url'), databaseUrl(primary, database.name, reader), { mode: 0o600 });
  await withClient(database.url, (client) =>
    client.query(`
      CREATE TABLE public.jobs (id bigint PRIMARY KEY, state text);
      INSERT INTO public.jobs SELECT n, CASE WHEN n % 4 = 0 THEN 'failed' ELSE 'done' END FROM generate_series(1, 12) n;
      GRANT ALL ON public.jobs TO PUBLIC;`),
  );
  const { databases } = testProfile(home);
  context = testContext(home, {
    profile: {
      databases: {
        ...databases,
        production: { ...databases.production, backup: { kind: 'file', path: 'backup-url' } },
      },
    },
  });
});

const measure = (name: string, source: Measure['source'], samples = 1): Measure => ({
  name,
  source,
  limit: { ratio: 1, absolute: 0 },
  samples,
});
const sql = (query: string): Measure => measure('sql', { kind: 'sql', query });
const take = (...measures: readonly Measure[]) => takeMeasures(measures, { every: 10 }, context);
const failureOf = (work: Promise<unknown>): Promise<StepError> =>
  work.then(
    () => {
      throw new Error('it succeeded');
    },
    (error: StepError) => error,
  );

describe('a measure by SQL', () => {
  test('is the first value of a query, whatever its type of number', async () => {
    const { values } = await take(
      measure('failed', { kind: 'sql', query: "SELECT count(*) FROM jobs WHERE state = 'failed'" }, 3),
      measure('ratio', { kind: 'sql', query: "SELECT avg((state = 'failed')::int) FROM public.jobs" }),
      measure('float', { kind: 'sql', query: 'SELECT 1.5::float8' }),
    );
    expect(values).toEqual([
      { name: 'failed', value: 3, samples: [3, 3, 3] },
      { name: 'ratio', value: 0.25, samples: [0.25] },
      { name: 'float', value: 1.5, samples: [1.5] },
    ]);
  });

  test.each([
    ['writes', 'INSERT INTO jobs VALUES (99) RETURNING id', 'read-only transaction'],
    ['ends the transaction to write', 'COMMIT; INSERT INTO jobs VALUES (99)', 'cannot insert multiple commands'],
    ['is wrong', 'SELECT nothing FROM jobs', 'column "nothing" does not exist'],
    ['has no row', 'SELECT 1 WHERE false', 'no data'],
    ['gives NULL', 'SELECT sum(id) FROM jobs WHERE false', 'no data'],
    ['gives text', "SELECT 'many'", 'not a number'],
    ['gives NaN', "SELECT 'NaN'::float8", 'not a number'],
    ['gives infinity', "SELECT 'Infinity'::float8", 'infinite'],
  ])('that %s is refused', async (_name, query, expected) => {
    const failure = await failureOf(take(sql(query)));
    expect(failure.message).toContain('measure "sql": ');
    expect(failure.message).toContain(expected);
    const { rows } = await withClient(database.url, (client) =>
      client.query('SELECT count(*)::int AS n FROM public.jobs'),
    );
    expect(rows).toEqual([{ n: 12 }]);
  });

  test('that fails keeps none of the others from being read, and all that failed are named', async () => {
    const failure = await failureOf(
      take(
        measure('one', { kind: 'sql', query: 'SELECT nothing' }),
        sql('SELECT 1'),
        measure('two', { kind: 'sql', query: 'SELECT 1 WHERE false' }),
      ),
    );
    expect(failure.details['findings']).toHaveLength(2);
    expect(failure.message).toMatch(/measure "one".*measure "two"/);
  });
});

test('deadlocks are those PostgreSQL counted for the database', async () => {
  const before = await take(measure('deadlocks', { kind: 'deadlocks' }));
  await withClient(database.url, (one) =>
    withClient(database.url, async (other) => {
      await one.query("SET deadlock_timeout = '100ms'");
      await other.query("SET deadlock_timeout = '10s'");
      const { rows } = await other.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      const waits = 'SELECT FROM pg_locks WHERE pid = $1 AND NOT granted';
      await one.query('BEGIN; UPDATE public.jobs SET state = state WHERE id = 1');
      await other.query('BEGIN; UPDATE public.jobs SET state = state WHERE id = 2');
      const blocked = other.query('UPDATE public.jobs SET state = state WHERE id = 1');
      // A session looks for a deadlock once in a wait: the one that looks early has to come second.
      await expect.poll(() => query(database.url, waits, [rows[0]?.pid])).toHaveLength(1);
      await expect(one.query('UPDATE public.jobs SET state = state WHERE id = 2')).rejects.toThrow('deadlock detected');
      await one.query('ROLLBACK');
      await blocked;
      await other.query('ROLLBACK');
      await one.query('SELECT pg_stat_force_next_flush()');
      await one.query('SELECT 1');
    }),
  );
  const measures = [measure('deadlocks', { kind: 'deadlocks' })];
  // Sessions report their counts when they end, a moment later.
  await expect.poll(async () => (await take(...measures)).values[0]?.value).toBe((before.values[0]?.value ?? 0) + 1);
  expect(compareWithBaseline(measures, before, await take(...measures)).values[0]?.verdict).toBe('exceeded');
});

describe('a measure by HTTP', () => {
  test('is the latency, or a number of the answer', async () => {
    await using server = await serve(() => ({ body: { queue: { depth: 7, text: '8.5' } } }));
    const http = (name: string, pointer?: string): Measure =>
      measure(name, { kind: 'http', url: server.url, headers: {}, ...(pointer === undefined ? {} : { pointer }) });
    const { values } = await take(http('latency'), http('depth', '/queue/depth'), http('text', '/queue/text'));
    expect(values.map(({ value }) => value).slice(1)).toEqual([7, 8.5]);
    expect(values[0]?.value).toBeGreaterThanOrEqual(0);
    expect((await failureOf(take(http('x', '/queue/missing')))).type).toBe(STEP_ERRORS.checkFailed);
  });

  test('is not the latency of an error', async () => {
    await using server = await serve(() => ({ status: 500 }));
    const failure = await failureOf(take(measure('latency', { kind: 'http', url: server.url, headers: {} })));
    expect(failure.message).toContain('status 500');
  });
});

describe('a measure by Prometheus, from answers as its documentation shows them', () => {
  const ask = async (answer: Answer) => {
    await using server = await serve(() => answer);
    const source = {
      kind: 'prometheus',
      url: `${server.url}/prometheus`,
      query: 'sum(rate(x{code=~"5.."}[5m]))',
      headers: {},
    } as const;
    const result = await take(measure('rate', source)).then(
      ({ values }) => values[0]?.value,
      (error: StepError) => error,
    );
    expect(server.seen[0]?.path).toBe(
      '/prometheus/api/v1/query?query=sum%28rate%28x%7Bcode%3D%7E%225..%22%7D%5B5m%5D%29%29',
    );
    return result;
  };
  const success = (resultType: string, result: unknown): Answer => ({
    body: { status: 'success', data: { resultType, result } },
  });

  test('is a scalar or a vector of one series', async () => {
    expect(await ask(success('scalar', [1435781451.781, '1.25']))).toBe(1.25);
    expect(await ask(success('vector', [{ metric: { job: 'api' }, value: [1435781451.781, '3'] }]))).toBe(3);
  });

  test.each<[string, Answer, string, string]>([
    ['without data', success('vector', []), STEP_ERRORS.checkFailed, 'the query has no data'],
    ['NaN', success('vector', [{ metric: {}, value: [1, 'NaN'] }]), STEP_ERRORS.checkFailed, 'not a number'],
    ['infinite', success('scalar', [1, '+Inf']), STEP_ERRORS.checkFailed, 'infinite'],
    [
      'several series',
      success('vector', [
        { metric: {}, value: [1, '1'] },
        { metric: {}, value: [1, '2'] },
      ]),
      STEP_ERRORS.refused,
      '2 series instead of one',
    ],
    [
      'a histogram',
      success('vector', [{ metric: {}, histogram: [1, { count: '6' }] }]),
      STEP_ERRORS.refused,
      'a histogram instead of a number',
    ],
    ['a range', success('matrix', []), STEP_ERRORS.refused, 'gives a matrix instead of one number'],
    [
      'a wrong query',
      {
        status: 400,
        body: { status: 'error', errorType: 'bad_data', error: 'parse error: unclosed left parenthesis' },
      },
      STEP_ERRORS.refused,
      'parse error: unclosed left parenthesis',
    ],
    [
      'a time-out',
      { status: 503, body: { status: 'error', errorType: 'timeout', error: 'query timed out' } },
      STEP_ERRORS.unavailable,
      'query timed out',
    ],
    [
      'something else',
      { status: 200, body: '<html>login</html>' },
      STEP_ERRORS.unavailable,
      'without an answer of Prometheus',
    ],
  ])('is refused when it is %s', async (_name, answer, type, expected) => {
    const failure = (await ask(answer)) as StepError;
    expect(failure.type).toBe(type);
    expect(failure.message).toContain(expected);
  });
});

const prometheus = await findOnPath('prometheus');

describe('a real Prometheus', () => {
  test.skipIf(prometheus === undefined)(
    'answers instant queries (skipped where no program prometheus is on PATH)',
    async () => {
      const port = 20_000 + Math.floor(Math.random() * 20_000);
      await writeFile(
        join(home, 'prometheus.yml'),
        `scrape_configs: [{ job_name: self, scrape_interval: 1s, static_configs: [{ targets: ['127.0.0.1:${port}'] }] }]`,
      );
      const child = spawn(
        prometheus ?? '',
        [
          `--config.file=${join(home, 'prometheus.yml')}`,
          `--storage.tsdb.path=${join(home, 'tsdb')}`,
          `--web.listen-address=127.0.0.1:${port}`,
        ],
        { stdio: 'ignore' },
      );
      try {
        const url = `http://127.0.0.1:${port}`;
        const value = async (query: string): Promise<number | string> =>
          take(measure('x', { kind: 'prometheus', url, query, headers: {} })).then(
            ({ values }) => values[0]?.value ?? Number.NaN,
            (error: StepError) => error.message,
          );
        await expect.poll(() => value('sum(up{job="self"})'), { timeout: 30_000, interval: 500 }).toBe(1);
        expect(await value('scalar(vector(2.5))')).toBe(2.5);
        expect(await value('up{job="none"}')).toContain('the query has no data');
        expect(await value('up{')).toContain('parse error');
        expect(await value('up[5m]')).toContain('gives a matrix');
      } finally {
        child.kill('SIGKILL');
        await delay(100);
      }
    },
  );
});

async function findOnPath(name: string): Promise<string | undefined> {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, name);
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return undefined;
}

describe('a comparison with the baseline', () => {
  const compare = (was: number, is: number, limit: Measure['limit']): string | undefined =>
    compareWithBaseline(
      [{ ...sql(''), limit }],
      { takenAt: '', values: [{ name: 'sql', value: was, samples: [was] }] },
      { takenAt: '', values: [{ name: 'sql', value: is, samples: [is] }] },
    ).values[0]?.verdict;

  test.each([
    [100, 150, { ratio: 1.5, absolute: 0 }, 'within'],
    [100, 150.1, { ratio: 1.5, absolute: 0 }, 'exceeded'],
    [0, 5, { ratio: 2, absolute: 5 }, 'within'],
    [0, 0, { ratio: 1.5, absolute: 0 }, 'within'],
    [0, 0.1, { ratio: 1.5, absolute: 0 }, 'exceeded'],
    [Number.NaN, 0, { ratio: 1, absolute: 10 }, 'exceeded'],
    [-5, -5, { ratio: 1, absolute: 10 }, 'exceeded'],
  ] as const)('of %d before and %d after with %o is %s', (was, is, limit, verdict) => {
    expect(compare(was, is, limit)).toBe(verdict);
  });

  test('finds a measure that the baseline lacks exceeded', () => {
    const after = { takenAt: '', values: [{ name: 'sql', value: 1, samples: [1] }] };
    expect(compareWithBaseline([sql('')], { takenAt: '', values: [] }, after).values[0]?.verdict).toBe('exceeded');
  });

  test('looks at the median, so that one outlier decides nothing', () => {
    expect(median([5, 1, 900])).toBe(5);
    expect(median([4, 2])).toBe(3);
    expect(median([])).toBeNaN();
  });
});

describe('a check by SQL', () => {
  const check = (query: string, expect: Check & { kind: 'sql' } extends { expect: infer E } ? E : never) =>
    runCheck({ name: 'c', kind: 'sql', query, expect, timeout: 5_000 }, context).catch(
      (error: StepError) => error.message,
    );

  test('compares the first value', async () => {
    expect(await check('SELECT count(*) > 10 FROM jobs', true)).toBe('true, as expected');
    expect(await check('SELECT count(*) FROM jobs', 12)).toBe('"12", as expected');
    expect(await check('SELECT state FROM jobs WHERE id = 4', 'failed')).toBe('"failed", as expected');
    expect(await check('SELECT count(*) FROM jobs', 13)).toBe('the query gave "12" instead of 13');
    expect(await check('SELECT 1 WHERE false', 1)).toBe('the query gave no row instead of 1');
    expect(await check('DELETE FROM jobs', 1)).toContain('read-only transaction');
  });
});
