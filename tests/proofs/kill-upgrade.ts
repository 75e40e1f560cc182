/** Worker or Alembic are killed at ten points of an upgrade by five revisions, one of them outside of any transaction. */
import { setTimeout as delay } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import type { ProofCase } from '../../scripts/proof.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { isAlive } from '../../scripts/stack/process-identity.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import type { GraphEvidence } from '../../src/contract/evidence/tooling.ts';
import { alembicProcess, watchFromOutside } from './interruption/outside.ts';
import { eventually, stepsUnderWay, whereabouts, within } from './interruption/progress.ts';
import { readStanding, type Standing } from './interruption/standing.ts';
import { buildTrialBundle } from './interruption/trial-bundle.ts';
import {
  environmentOf,
  hold,
  OLD_SNAPSHOT,
  reach,
  startTrial,
  WAITS_FOR_LOCK,
  WAITS_IN_BUILD,
} from './interruption/trial-run.ts';
import { createTrialService, type TrialService } from './interruption/trial-service.ts';
import type { UpgradeTrialResult } from './interruption/upgrade-trial.ts';

export const sentence =
  'SIGKILL of worker or Alembic at ten points of five revisions: none applied twice, the end is all of them or none';

const START = 'r0';
const CHAIN = ['k1', 'k2', 'k3', 'k4', 'k5'] as const;
/** The one that runs outside of any transaction, and so can write nothing down by itself. */
const INDEX_ONLY = 'k3';

interface Point {
  readonly name: string;
  readonly perRevision: 'yes' | 'no';
  readonly victim: 'worker' | 'alembic';
  /** Keeps the upgrade from passing this point; held by a session of its own until the victim is dead. */
  readonly hold?: string;
  /** Is the upgrade there? Asked with the migrator's role. */
  readonly reached: string;
  /** The worker is frozen here and the hold lifted, so that Alembic alone goes on to this version. */
  readonly until?: (typeof CHAIN)[number];
}

const inside = (revision: number) =>
  ({ hold: `LOCK TABLE public.door_${revision} IN ACCESS SHARE MODE`, reached: WAITS_FOR_LOCK }) as const;
const inBuild = { hold: OLD_SNAPSHOT, reached: WAITS_IN_BUILD } as const;

const POINTS: readonly Point[] = [
  {
    name: 'as Alembic connects',
    perRevision: 'yes',
    victim: 'worker',
    reached: 'SELECT FROM pg_stat_activity WHERE usename = $1',
  },
  { name: 'inside the first revision', perRevision: 'yes', victim: 'alembic', ...inside(1) },
  { name: 'inside the second, the first committed', perRevision: 'yes', victim: 'worker', ...inside(2) },
  { name: 'inside the concurrent build', perRevision: 'yes', victim: 'alembic', ...inBuild },
  { name: 'inside the concurrent build', perRevision: 'yes', victim: 'worker', ...inBuild },
  { name: 'inside the fourth, three committed', perRevision: 'yes', victim: 'alembic', ...inside(4) },
  {
    name: 'after the last commit, before the reply',
    perRevision: 'yes',
    victim: 'worker',
    ...inside(5),
    until: 'k5',
  },
  { name: 'inside the second, nothing committed', perRevision: 'no', victim: 'worker', ...inside(2) },
  { name: 'inside the concurrent build', perRevision: 'no', victim: 'alembic', ...inBuild },
  { name: 'inside the fifth', perRevision: 'no', victim: 'worker', ...inside(5) },
];

export const run = (say: (line: string) => void): Promise<readonly ProofCase[]> =>
  withSession({ name: 'proof-kill-upgrade', bundle: buildTrialBundle, say }, async (session) => {
    const service = await createTrialService(session.example, 'killed');
    try {
      const cases: ProofCase[] = [];
      for (const [index, point] of POINTS.entries()) {
        const found = await killAt(session, service, point, `kill-${index}`);
        say(`${found.name}: ${found.detail}`);
        cases.push(found);
      }
      return cases;
    } finally {
      await service.drop();
    }
  });

/** The same for every point. */
let known: GraphEvidence | undefined;

async function killAt(session: Session, service: TrialService, point: Point, mark: string): Promise<ProofCase> {
  const name = `${point.victim} ${point.name}, ${point.perRevision === 'yes' ? 'a transaction each' : 'one transaction'}`;
  await service.reset();
  const look = () => withClient(service.superuserUrl, readStanding);
  const before = await look();
  const handle = await withClient(service.superuserUrl, async (holder) => {
    if (point.hold !== undefined) await hold(holder, point.hold);
    const started = await startTrial(session.client, service, {
      ...(known && { graph: known }),
      driver: 'psycopg',
      perRevision: point.perRevision,
      mark,
      targetRevision: CHAIN[4],
      afterTrouble: 'recover',
    });
    await eventually('the upgrade has begun', async () =>
      (await stepsUnderWay(started)).find(({ step }) => step === 'apply.upgrade'),
    );
    await withClient(service.superuserUrl, (client) => reach(client, point.reached, service.migratorRole));
    await kill(session, service, point, mark, () => holder.query('ROLLBACK'));
    return started;
  });
  if (!isAlive(session.worker.server)) await session.restartWorker();
  const result = (await within(handle.result(), () => whereabouts(handle))) as UpgradeTrialResult;
  const { graph } = result;
  known = graph;
  const findings = [
    ...judge(before, await look(), await witnesses(service)),
    ...(graph.path.map(({ revision }) => revision).join() === CHAIN.join() ? [] : ['the path was another one']),
    ...(await leftOver(service, mark)),
    ...(await attemptsOf(handle, point.victim)),
  ];
  const { upgrade, rollback } = result;
  const end = 'trouble' in upgrade ? (rollback ? 'rolled back' : 'stopped') : upgrade.how;
  const walk = (await witnesses(service)).versions.join(' -> ') || 'none';
  return { name, passed: findings.length === 0, detail: [`${end}; versions ${walk}`, ...findings].join('; ') };
}

async function kill(
  session: Session,
  { superuserUrl }: TrialService,
  { victim, until }: Point,
  mark: string,
  lift: () => Promise<unknown>,
): Promise<void> {
  if (victim === 'alembic') {
    const pid = await alembicProcess(environmentOf(mark));
    if (pid === undefined) throw new Error('there is no Alembic to be killed');
    process.kill(pid, 'SIGKILL');
  } else {
    const { server } = session.worker;
    if (until !== undefined) {
      process.kill(server.pid, 'SIGSTOP');
      await lift();
      await withClient(superuserUrl, (client) =>
        reach(client, `SELECT FROM public.alembic_version WHERE version_num = '${until}'`, ''),
      );
    }
    process.kill(server.pid, 'SIGKILL');
    await eventually('the worker is dead', async () => (isAlive(server) ? undefined : true));
  }
  // What the dead have left goes on for a moment before anybody comes.
  await delay(300);
  await lift();
}

interface Witnesses {
  /** Revisions by what they wrote themselves, committed. */
  readonly applied: readonly string[];
  /** Every committed change of the version rows. */
  readonly versions: readonly string[];
}

const witnesses = ({ superuserUrl }: TrialService): Promise<Witnesses> =>
  withClient(superuserUrl, async (client) => {
    const list = async (table: string): Promise<readonly string[]> =>
      (await client.query<{ revision: string }>(`SELECT revision FROM public.${table} ORDER BY id`)).rows.map(
        ({ revision }) => revision,
      );
    return { applied: await list('applied'), versions: await list('version_changes') };
  });

function judge(before: Standing, after: Standing, { applied, versions }: Witnesses): string[] {
  const ups = CHAIN.filter((revision) => versions.includes(revision));
  const height = ups.length;
  // Up, each once; and, after a rollback, down the same way.
  const down = [START, ...CHAIN].slice(0, height).toReversed();
  const isComplete = after.versionRows.join() === CHAIN[4];
  const walk = isComplete ? CHAIN : [...CHAIN.slice(0, height), ...(height > 0 ? down : [])];
  const written = CHAIN.slice(0, height).filter((revision) => revision !== INDEX_ONLY);
  const missing = CHAIN.map((revision, index) =>
    revision === INDEX_ONLY ? 'items_amount' : `door_${index + 1}.opened`,
  );
  return [
    ...(versions.join() === walk.join()
      ? []
      : [`the version rows went ${versions.join(' -> ')}, not ${walk.join(' -> ')}`]),
    ...(applied.join() === written.join()
      ? []
      : [`written by ${applied.join(', ')}, to be written by ${written.join(', ')}`]),
    ...(isComplete || after.versionRows.join() === START ? [] : [`it ended at ${after.versionRows.join(', ')}`]),
    ...(isComplete
      ? missing.filter((name) => !after.shape.split(',').includes(name)).map((name) => `${name} is missing`)
      : []),
    ...(!isComplete && after.shape !== before.shape ? ['objects are not as before'] : []),
    ...after.invalidIndexes.map((name) => `${name} is invalid`),
  ];
}

/** Sessions and processes of the migration. */
async function leftOver({ superuserUrl, migratorRole }: TrialService, mark: string): Promise<string[]> {
  const watch = await watchFromOutside({ superuserUrl, role: migratorRole, mark: environmentOf(mark) });
  await delay(200);
  try {
    await watch.leave();
    return [];
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  }
}

/** A worker's death must have been met by another attempt, Alembic's by none: it is not started again without a decision. */
async function attemptsOf(handle: WorkflowHandle, victim: Point['victim']): Promise<string[]> {
  const { events } = await handle.fetchHistory();
  const upgrade = events?.find(
    ({ activityTaskScheduledEventAttributes: scheduled }) => scheduled?.activityId === 'apply.upgrade',
  );
  const started = events?.find(
    ({ activityTaskStartedEventAttributes: attributes }) =>
      attributes?.scheduledEventId?.toString() === upgrade?.eventId?.toString(),
  );
  const attempt = started?.activityTaskStartedEventAttributes?.attempt ?? 0;
  const expected = victim === 'worker' ? attempt > 1 : attempt === 1;
  return expected ? [] : [`the upgrade took ${attempt} attempts`];
}
