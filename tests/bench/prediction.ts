/** What the rehearsal says an upgrade and the way back will take, against what they then take in production. */
import { readFile } from 'node:fs/promises';
import type { WorkflowHandle } from '@temporalio/client';
import type { BenchMeasure } from '../../scripts/bench.ts';
import { atGate, endOf, startMigration, until } from '../../scripts/scenarios/driving.ts';
import { writeProfile } from '../../scripts/scenarios/profile.ts';
import { onProduction } from '../../scripts/scenarios/reality.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { resetExample } from '../../scripts/stack/example.ts';
import type { Predictions, SealedPlan } from '../../src/contract/plan.ts';
import type { StepRecord } from '../../src/contract/status.ts';

export const sentence =
  'upgrade, rollback and restore as predicted by the rehearsal against production, 100 MB and 1 GB';

const RELEASE = 'v1.1.0';
/** Predicted and measured may differ by this factor, */
const FACTOR = 1.5;
/** or by so many milliseconds: what is over at once is not worth a prediction. */
const SLACK = 2_000;

interface Size {
  readonly name: string;
  readonly scale: number;
  /** Bytes of a recording: they are most of the database, and take no time to make. */
  readonly audioSize: number;
  readonly smallest: number;
}

const SIZES: readonly Size[] = [
  { name: '100 MB', scale: 1, audioSize: 24_576, smallest: 100e6 },
  { name: '1 GB', scale: 4, audioSize: 65_536, smallest: 1_000e6 },
];

/** `BENCH_SIZE="100 MB"`: one of them alone. */
export async function run(say: (line: string) => void): Promise<readonly BenchMeasure[]> {
  const wanted = process.env['BENCH_SIZE'];
  const sizes = SIZES.filter(({ name }) => wanted === undefined || wanted === name);
  const measures: BenchMeasure[] = [];
  for (const size of sizes) measures.push(...(await measure(size, say)));
  return measures;
}

const measure = (size: Size, say: (line: string) => void): Promise<BenchMeasure[]> =>
  withSession({ name: 'bench-prediction', example: size, say }, async (session) => {
    const bytes = await onProduction(session.example, async (client) => {
      const { rows } = await client.query<{ size: string }>('SELECT pg_database_size(current_database()) AS size');
      return Number(rows[0]?.size);
    });
    if (bytes < size.smallest) throw new Error(`the database has ${bytes} bytes, ${size.smallest} are wanted`);
    say(`database of ${Math.round(bytes / 1e6)} MB`);
    const rolledBack = await migrateAndUndo(session, 'rollback', say);
    const restored = await migrateAndUndo(session, 'restore', say);
    const pairs: readonly (readonly [what: string, predicted: number | null, measured: number])[] = [
      ['upgrade', rolledBack.predicted.upgrade, rolledBack.took('apply.upgrade')],
      ['upgrade, second run', restored.predicted.upgrade, restored.took('apply.upgrade')],
      ['rollback', rolledBack.predicted.rollback, rolledBack.took('recovery.rollback')],
      [
        'restore, comparison and swap',
        restored.predicted.restore,
        restored.took('recovery.restore') + restored.took('recovery.restore/swap'),
      ],
    ];
    return pairs.map(([what, predicted, measured]) => judged(`${size.name}: ${what}`, predicted, measured, say));
  });

function judged(
  measure: string,
  predicted: number | null,
  measured: number,
  say: (line: string) => void,
): BenchMeasure {
  if (predicted === null) throw new Error(`${measure}: nothing was predicted`);
  const factor = Math.max(predicted / measured, measured / predicted);
  const seconds = (milliseconds: number): number => Math.round(milliseconds) / 1000;
  say(`${measure}: predicted ${seconds(predicted)} s, measured ${seconds(measured)} s`);
  return {
    measure: `${measure}, predicted against measured`,
    value: Math.round(factor * 1000) / 1000,
    target: FACTOR,
    met: factor <= FACTOR || Math.abs(predicted - measured) <= SLACK,
    runs: [seconds(predicted), seconds(measured)],
  };
}

/** Steps whose whole time counts: the window has to hold it, whatever of it is Alembic's or pg_restore's. */
const MEASURED = ['apply.upgrade', 'recovery.rollback', 'recovery.restore', 'recovery.restore/swap'];

interface Undone {
  readonly predicted: Predictions;
  /** Milliseconds of a step, by the workflow's clock. */
  readonly took: (step: string) => number;
}

/** The whole workflow, with a smoke test that says no as long as the upgrade is there. */
async function migrateAndUndo(
  session: Session,
  action: 'rollback' | 'restore',
  say: (line: string) => void,
): Promise<Undone> {
  await resetExample(session.example);
  const before = await onProduction(session.example, async (client) => {
    const { rows } = await client.query<{ version: string }>(
      'SELECT version_num AS version FROM public.alembic_version',
    );
    return rows[0]?.version ?? '';
  });
  await writeProfile(session.example, {
    switches: [],
    monitoring: { settle: '0s', measures: [{ name: 'deadlocks', deadlocks: true }] },
    recovery: { rollback: 'ask', restore: 'ask' },
    edit: (document) => ({
      ...document,
      checks: {
        smoke: [
          {
            name: 'as before the upgrade',
            sql: 'SELECT version_num FROM public.alembic_version',
            expect: before,
          },
        ],
        smokeWrites: [],
      },
    }),
  });
  const handle = await startMigration(session, { releaseTag: RELEASE });
  try {
    const { waiting } = await until(handle, atGate('approval'));
    const planDigest = waiting?.for === 'approval' ? waiting.planDigest : '';
    const { plan } = await handle.query<SealedPlan>('plan');
    say(`rehearsed and planned; ${action}: ${JSON.stringify(plan.predictions)}`);
    await handle.executeUpdate('approve', { args: [{ by: 'erin@example.com', planDigest }] });
    await until(handle, atGate('recovery'));
    await handle.executeUpdate('recover', { args: [{ by: 'erin@example.com', action, reason: 'to be measured' }] });
    const { outcome } = await endOf(handle);
    const wanted = action === 'rollback' ? 'rolled-back' : 'restored';
    if (outcome !== wanted) throw new Error(`the workflow ended ${outcome}, wanted was ${wanted}`);
    const timeline = await handle.query<readonly StepRecord[]>('timeline');
    for (const { id, evidence } of timeline) {
      const own = (evidence as { readonly milliseconds?: number } | undefined)?.milliseconds;
      if (MEASURED.includes(id)) say(`${id}: ${durationOf(timeline, id)} ms, of its own ${own ?? 'unknown'} ms`);
    }
    return { predicted: plan.predictions, took: (step) => durationOf(timeline, step) };
  } catch (error) {
    throw await withLog(session, handle, error);
  }
}

function durationOf(timeline: readonly StepRecord[], step: string): number {
  const done = timeline.find(({ id, status }) => id === step && status !== 'running');
  if (done?.endedAt === undefined) throw new Error(`step ${step} is not in the timeline`);
  return Date.parse(done.endedAt) - Date.parse(done.startedAt);
}

async function withLog(session: Session, handle: WorkflowHandle, error: unknown): Promise<Error> {
  await handle.terminate('the bench failed').catch(() => undefined);
  const log = await readFile(session.worker.logFile, 'utf8').catch(() => '');
  return new Error(
    `${error instanceof Error ? error.message : String(error)}; end of the worker's log:\n${log.slice(-2000)}`,
  );
}
