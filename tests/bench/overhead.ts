/** What the workflow costs on top of the document's own commands, typed one after the other by a script that never waits. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { BenchMeasure } from '../../scripts/bench.ts';
import { atGate, endOf, startMigration, until } from '../../scripts/scenarios/driving.ts';
import { onProduction } from '../../scripts/scenarios/reality.ts';
import { writeProfile } from '../../scripts/scenarios/profile.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { runCommand } from '../../scripts/stack/command.ts';
import { resetExample } from '../../scripts/stack/example.ts';
import { programs, root } from '../../scripts/stack/layout.ts';

export const sentence = 'the workflow against a plain shell script with the document’s commands, 500 MB database';

const RELEASE = 'v1.1.0';
const TARGET = 1.1;
const PAIRS = 3;
const SMALLEST = 500 * 1000 ** 2;

export const run = (say: (line: string) => void): Promise<readonly BenchMeasure[]> =>
  withSession({ name: 'bench-overhead', example: { scale: 4, audioSize: 32_768 }, say }, async (session) => {
    const size = await onProduction(session.example, async (client) => {
      const { rows } = await client.query<{ size: string }>('SELECT pg_database_size(current_database()) AS size');
      return Number(rows[0]?.size);
    });
    if (size < SMALLEST) throw new Error(`the database has ${size} bytes, ${SMALLEST} are wanted`);
    say(`database of ${Math.round(size / 1e6)} MB, ${PAIRS} pairs of runs`);
    const ratios: number[] = [];
    for (let pair = 1; pair <= PAIRS; pair += 1) {
      // In turn, so that what else the machine does meets both.
      const script = await timed(session, () => byHand(session));
      const workflow = await timed(session, () => byWorkflow(session));
      say(`pair ${pair}: script ${script.toFixed(1)} s, workflow ${workflow.toFixed(1)} s`);
      ratios.push(workflow / script);
    }
    const value = median(ratios);
    const rounded = (number: number): number => Math.round(number * 1000) / 1000;
    return [
      {
        measure: 'workflow / script',
        value: rounded(value),
        target: TARGET,
        met: value <= TARGET,
        runs: ratios.map(rounded),
      },
    ];
  });

async function timed(session: Session, work: () => Promise<void>): Promise<number> {
  await resetExample(session.example);
  const began = performance.now();
  await work();
  return (performance.now() - began) / 1000;
}

/** Sections 3, 4 and 5 of the document, as one would type them. */
async function byHand({ example, stack }: Session): Promise<void> {
  const { s3 } = stack;
  const { primary } = stack.postgres;
  if (!s3 || !primary || example.apiUrl === undefined) throw new Error('the bench needs S3, the primary and the API');
  await runCommand('/bin/sh', [path.join(root, 'tests', 'bench', 'overhead.sh')], {
    directory: example.directory,
    environment: {
      PATH: `${stack.venv.bin}:${primary.binDirectory}:${process.env.PATH ?? ''}`,
      BACKUP_URL: example.urls.production.backup,
      DATABASE_URL_PRODUCTION: alembicUrl(example.urls.production.migrator),
      DATABASE_URL_STAGING: alembicUrl(example.urls.staging.migrator),
      REDIS_URL: example.redis.production,
      REDIS_URL_STAGING: example.redis.staging,
      ADMIN_PASSWORD_STAGING: example.passwords.staging.admin,
      API_URL: example.apiUrl,
      REPOSITORY: example.repository,
      RELEASE,
      RCLONE: programs.rclone,
      BUCKET: s3.bucket,
      RCLONE_CONFIG_STORE_TYPE: 's3',
      RCLONE_CONFIG_STORE_PROVIDER: 'Rclone',
      RCLONE_CONFIG_STORE_ENDPOINT: s3.endpoint,
      RCLONE_CONFIG_STORE_ACCESS_KEY_ID: s3.accessKeyId,
      RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY: s3.secretAccessKey,
    },
  });
}

const alembicUrl = (url: string): string => url.replace(/^postgresql:/, 'postgresql+psycopg:');

/** The same steps: nothing is paused or silenced, one quick measure stands for the dashboards. */
async function byWorkflow(session: Session): Promise<void> {
  const profile = await writeProfile(session.example, {
    switches: [],
    monitoring: { settle: '0s', measures: [{ name: 'deadlocks', deadlocks: true }] },
  });
  const handle = await startMigration(session, { releaseTag: RELEASE });
  const { waiting } = await until(handle, atGate('approval'));
  const planDigest = waiting?.for === 'approval' ? waiting.planDigest : '';
  await handle.signal('approve', { by: 'erin@example.com', planDigest });
  const { outcome } = await endOf(handle);
  if (outcome !== 'succeeded') {
    const log = await readFile(session.worker.logFile, 'utf8');
    throw new Error(
      `the workflow ended ${outcome}; outbox in ${profile.outbox}; end of the worker's log:\n${log.slice(-2000)}`,
    );
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
