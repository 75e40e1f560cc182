/** A backup until it is "verified in the store", against the same done step by step with files; what it takes of the worker. */
import { execFile } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import type { BenchMeasure } from '../../scripts/bench.ts';
import { programs, stackRoot } from '../../scripts/stack/layout.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { attachStack, type Stack, startStack, stopStack } from '../../scripts/stack/stack.ts';
import { libpqEnvironment, parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import type { BackupCost, BackupTask } from './backup/capture-and-verify.ts';

export const sentence = 'a backup of 2 GB until verified in the store against the serial way; memory; bytes on disk';

const LARGE = 2_000_000_000;
const SMALL = 100_000_000;
const PAIRS = 3;
const TARGET = { ratio: 0.6, memory: 60, written: 0 } as const;

const run = promisify(execFile);

export { bench as run };

async function bench(say: (line: string) => void): Promise<readonly BenchMeasure[]> {
  const large = Number(process.env['BENCH_BYTES'] ?? LARGE);
  const directory = path.join(stackRoot, 'bench-backup');
  if (await attachStack(directory)) await stopStack(directory);
  const stack = await startStack({ directory, parts: ['primary', 's3'], data: 'fresh', onProgress: say });
  const files = path.join(directory, 'files');
  await mkdir(files, { recursive: true });
  try {
    const databases = {
      small: await fillDatabase(stack, 'bench_small', SMALL, say),
      large: await fillDatabase(stack, 'bench_large', large, say),
    };
    const costs: BackupCost[] = [];
    const ratios: number[] = [];
    for (let pair = 1; pair <= PAIRS; pair += 1) {
      // In turn, so that what else the machine does meets both.
      const serial = await timed(() => bySteps(stack, databases.large, files));
      const cost = await byStream(stack, databases.large, `large-${pair}`);
      const stream = (cost.capture + cost.verify) / 1000;
      say(
        `pair ${pair}: step by step ${serial.toFixed(1)} s; stream ${stream.toFixed(1)} s (taken ${(cost.capture / 1000).toFixed(1)}, verified ${(cost.verify / 1000).toFixed(1)}; processor ${cost.processor.toFixed(1)} s; ${megabytes(cost.dumpBytes)} MB dumped, ${megabytes(cost.bytes)} stored)`,
      );
      ratios.push(stream / serial);
      costs.push(cost);
    }
    const small = [
      await byStream(stack, databases.small, 'small-1'),
      await byStream(stack, databases.small, 'small-2'),
    ];
    const peak = (of: readonly BackupCost[]): number => Math.max(...of.map(({ memory }) => memory));
    say(
      `peak memory: ${megabytes(peak(costs))} MB for the large database, ${megabytes(peak(small))} MB for the small one`,
    );
    const least = Math.max(...small.map(({ memory }) => memory));
    const growth = costs.map(({ memory }) => (memory - least) / 1e6);
    const written = [...costs, ...small].map((cost) => cost.written);
    return [
      measure('verified in the store / serial way', median(ratios), TARGET.ratio, ratios),
      measure('MB of memory more than for 100 MB', Math.max(...growth), TARGET.memory, growth),
      measure('bytes the worker wrote to its disk', Math.max(...written), TARGET.written, written),
    ];
  } finally {
    await stack.stop();
    await rm(files, { recursive: true, force: true });
  }
}

const measure = (name: string, value: number, target: number, runs: readonly number[]): BenchMeasure => ({
  measure: name,
  value: rounded(value),
  target,
  met: value <= target,
  runs: runs.map(rounded),
});

const rounded = (value: number): number => Math.round(value * 1000) / 1000;
const megabytes = (bytes: number): number => Math.round(bytes / 1e6);

async function timed(work: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await work();
  return (performance.now() - began) / 1000;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

// ---- the two ways -----------------------------------------------------------------------------------------------------

/** The document's own commands, with the object downloaded again and decoded whole: dump, upload, download, decode. */
async function bySteps(stack: Stack, url: string, files: string): Promise<void> {
  const { s3 } = stack;
  const { binDirectory } = stack.postgres.primary!;
  if (!s3) throw new Error('the bench needs S3');
  const [dump, copy] = [path.join(files, 'large.dump'), path.join(files, 'copy.dump')];
  const target = parseConnectionUrl(url);
  const environment = { PATH: process.env['PATH'] ?? '', ...libpqEnvironment(target) };
  const remote = `store:${s3.bucket}/serial/large.dump`;
  const store = {
    PATH: process.env['PATH'] ?? '',
    RCLONE_CONFIG: '/dev/null',
    RCLONE_CONFIG_STORE_TYPE: 's3',
    RCLONE_CONFIG_STORE_PROVIDER: 'Rclone',
    RCLONE_CONFIG_STORE_ENDPOINT: s3.endpoint,
    RCLONE_CONFIG_STORE_ACCESS_KEY_ID: s3.accessKeyId,
    RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY: s3.secretAccessKey,
  };
  await run(path.join(binDirectory, 'pg_dump'), ['-Fc', '-f', dump], { env: environment });
  await run(programs.rclone, ['copyto', dump, remote], { env: store });
  await run(programs.rclone, ['copyto', remote, copy], { env: store });
  await run(path.join(binDirectory, 'pg_restore'), ['-f', '/dev/null', copy], { env: environment });
  await Promise.all([dump, copy].map((file) => rm(file)));
}

const worker = path.join(import.meta.dirname, 'backup', 'capture-and-verify.ts');

async function byStream(stack: Stack, url: string, runId: string): Promise<BackupCost> {
  const identity = await generateX25519Identity();
  const task: BackupTask = {
    url,
    runId,
    binDirectory: stack.postgres.primary!.binDirectory,
    s3: stack.s3!,
    identity,
    recipient: await identityToRecipient(identity),
  };
  const running = run(process.execPath, [worker]);
  running.child.stdin?.end(JSON.stringify(task));
  const { stdout } = await running;
  return JSON.parse(stdout) as BackupCost;
}

// ---- the database -----------------------------------------------------------------------------------------------------

/** Rows of a service that keeps transcripts: text of words, numbers, times, digests. Compresses about as real text does. */
async function fillDatabase(stack: Stack, name: string, bytes: number, say: (line: string) => void): Promise<string> {
  const { superuserUrl } = stack.postgres.primary!;
  const url = new URL(superuserUrl);
  url.pathname = `/${name}`;
  await withClient(superuserUrl, (client) => client.query(`CREATE DATABASE ${name} TEMPLATE template0`));
  return withClient(url.href, async (client) => {
    await client.query(`
      CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
      INSERT INTO alembic_version VALUES ('a1b2c3');
      CREATE TABLE words (id int PRIMARY KEY, word text);
      INSERT INTO words SELECT n, left(translate(md5(n::text), '0123456789', 'ghijklmnop'), 3 + n % 7) FROM generate_series(0, 4095) n;
      CREATE TABLE phrase AS SELECT n AS id, (SELECT string_agg(word, ' ') FROM generate_series(1, 5) k JOIN words ON words.id = (n * 31 + k * 7919 * (n % 97 + 1)) % 4096) AS text
        FROM generate_series(0, 19999) n;
      CREATE TABLE recording (id bigint, owner_id int, title text, state text, created_at timestamptz, duration double precision);
      CREATE TABLE segment (id bigint, recording_id bigint, speaker text, starts_at double precision, body text, digest uuid);`);
    const size = async (): Promise<number> => {
      const { rows } = await client.query<{ size: string }>('SELECT pg_database_size(current_database()) AS size');
      return Number(rows[0]?.size);
    };
    const batch = Math.min(500_000, Math.ceil(bytes / 400));
    for (let from = 1; (await size()) < bytes; from += batch) {
      const to = from + batch - 1;
      await client.query(
        `INSERT INTO segment SELECT n, n / 7, 'speaker ' || n % 5, n * 0.73,
           a.text || ' ' || b.text || ' ' || c.text || '.', md5(n::text)::uuid
         FROM generate_series($1::bigint, $2::bigint) n
         JOIN phrase a ON a.id = n * 7919 % 20000 JOIN phrase b ON b.id = n * 104729 % 19997 JOIN phrase c ON c.id = n * 1299709 % 19993`,
        [from, to],
      );
      await client.query(
        `INSERT INTO recording SELECT n, n % 5000, 'Recording ' || n || ' ' || p.text, (ARRAY['queued', 'running', 'done', 'failed'])[n % 4 + 1],
           timestamptz '2026-01-01' + n * interval '37 seconds', n % 7200 + 0.25
         FROM generate_series($1::bigint, $2::bigint, 7) n JOIN phrase p ON p.id = n * 31 % 20000`,
        [from, to],
      );
    }
    await client.query('DROP TABLE phrase');
    await client.query('CHECKPOINT');
    await client.query('VACUUM ANALYZE');
    say(`${name}: ${megabytes(await size())} MB`);
    return url.href;
  });
}
