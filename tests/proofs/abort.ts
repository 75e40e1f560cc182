/** Upgrades are aborted while they wait, build, sleep and loop; what is left is looked for from outside. */
import type { WorkflowHandle } from '@temporalio/client';
import type { ProofCase } from '../../scripts/proof.ts';
import { atGate, endWithoutDecision, startMigration, until } from '../../scripts/scenarios/driving.ts';
import { compareWithReality, onProduction, takePicture } from '../../scripts/scenarios/reality.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { resetExample } from '../../scripts/stack/example.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import type { GraphEvidence } from '../../src/contract/evidence/tooling.ts';
import type { SealedPlan } from '../../src/contract/plan.ts';
import type { Outcome } from '../../src/contract/profile.ts';
import { writeBriefProfile } from './interruption/brief-profile.ts';
import { watchFromOutside } from './interruption/outside.ts';
import { eventually } from './interruption/progress.ts';
import { judgeEvaluation, readStanding } from './interruption/standing.ts';
import { buildTrialBundle } from './interruption/trial-bundle.ts';
import {
  environmentOf,
  hold,
  markedEnvironment,
  OLD_SNAPSHOT,
  reach,
  startTrial,
  type TrialOptions,
  WAITS_FOR_LOCK,
  WAITS_IN_BUILD,
} from './interruption/trial-run.ts';
import { createTrialService, type TrialService } from './interruption/trial-service.ts';
import type { UpgradeTrialResult } from './interruption/upgrade-trial.ts';

export const sentence =
  'an upgrade aborted in any situation, with any driver: within 2 s nothing of it is left, and what it left is told right';

/** Milliseconds from the signal to the last session and process, for 95 of 100. */
const LIMIT = 2_000;
const ROUNDS = 4;
/** At a time: each has a service of its own. */
const LANES = 2;

const DRIVERS = ['psycopg2', 'psycopg', 'asyncpg'] as const;

interface Situation {
  readonly name: string;
  readonly target: string;
  /** What is held meanwhile, by a session of its own. */
  readonly hold?: string;
  /** Is the migration there? Asked with its role. */
  readonly reached: string;
}

const SITUATIONS: readonly Situation[] = [
  {
    name: 'waits for a lock',
    target: 'r2_lock',
    hold: 'LOCK TABLE public.door IN ACCESS SHARE MODE',
    reached: WAITS_FOR_LOCK,
  },
  {
    name: 'builds an index concurrently',
    target: 'r2_index',
    hold: OLD_SNAPSHOT,
    reached: WAITS_IN_BUILD,
  },
  {
    name: 'runs pg_sleep',
    target: 'r2_sleep',
    reached: `SELECT FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'PgSleep'`,
  },
  {
    name: 'loops in Python, SIGTERM ignored',
    target: 'r2_loop',
    reached: `SELECT FROM pg_stat_activity WHERE usename = $1 AND state = 'idle in transaction' AND query LIKE '%counts%'`,
  },
];

interface Trial extends Pick<TrialOptions, 'driver' | 'perRevision' | 'mark'> {
  readonly situation: Situation;
}

interface Aborted {
  readonly name: string;
  /** Milliseconds from the signal to nothing left. */
  readonly took: number;
  readonly seen: string;
  readonly findings: readonly string[];
}

export const run = (say: (line: string) => void): Promise<readonly ProofCase[]> =>
  withSession({ name: 'proof-abort', bundle: buildTrialBundle, say }, async (session) => {
    const trials = Array.from({ length: ROUNDS }, (_, round) =>
      SITUATIONS.flatMap((situation) =>
        DRIVERS.map(
          (driver): Trial => ({
            driver,
            situation,
            perRevision: round % 2 === 0 ? 'yes' : 'no',
            mark: `${situation.target}-${driver}-${round}`,
          }),
        ),
      ),
    ).flat();
    const aborted: Aborted[] = [];
    const tell = (one: Aborted): void => {
      aborted.push(one);
      say(`${one.name}: ${Math.round(one.took)} ms; ${[one.seen, ...one.findings].join('; ')}`);
    };
    const queue = [...trials];
    const lane = async (number: number): Promise<void> => {
      const service = await createTrialService(session.example, `abort-${number}`);
      try {
        for (let trial = queue.shift(); trial !== undefined; trial = queue.shift())
          tell(await abortTrial(session, service, trial));
      } finally {
        await service.drop();
      }
    };
    await Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)));
    for (const whole of WHOLE_RUNS) tell(await abortWholeRun(session, whole));
    return [...Map.groupBy(aborted, ({ name }) => name)].map(asCase).concat(inTime(aborted));
  });

const asCase = ([name, cases]: [string, readonly Aborted[]]): ProofCase => ({
  name,
  passed: cases.every(({ findings }) => findings.length === 0),
  detail: `${cases.map(({ took }) => `${Math.round(took)} ms`).join(', ')}; ${[
    ...new Set(cases.flatMap(({ seen, findings }) => [seen, ...findings])),
  ].join('; ')}`,
});

function inTime(aborted: readonly Aborted[]): ProofCase {
  const times = aborted.map(({ took }) => took).sort((one, other) => one - other);
  const at = (share: number): number => Math.round(times[Math.ceil(times.length * share) - 1] ?? Number.NaN);
  return {
    name: `p95 of ${times.length} aborts`,
    passed: times.length >= 50 && at(0.95) < LIMIT,
    detail: `${at(0.95)} ms, to be below ${LIMIT} ms; median ${at(0.5)} ms, longest ${at(1)} ms`,
  };
}

const graphs = new Map<string, GraphEvidence>();

async function abortTrial(session: Session, service: TrialService, trial: Trial): Promise<Aborted> {
  const { situation, driver, perRevision } = trial;
  await service.reset();
  const look = () => withClient(service.superuserUrl, readStanding);
  const before = await look();
  return withClient(service.superuserUrl, async (observer) => {
    if (situation.hold !== undefined) await hold(observer, situation.hold);
    const graph = graphs.get(situation.target);
    const handle = await startTrial(session.client, service, {
      ...trial,
      targetRevision: situation.target,
      afterTrouble: 'evaluate',
      ...(graph && { graph }),
    });
    await withClient(service.superuserUrl, (client) => reach(client, situation.reached, service.migratorRole));
    const took = await abortAndWatch(
      handle,
      { superuserUrl: service.superuserUrl, role: service.migratorRole, mark: environmentOf(trial.mark) },
      async () => {
        await eventually('the upgrade has stopped', async () =>
          (await handle.query<string>('stage')) === 'stopped' ? true : undefined,
        );
      },
    );
    const stopped = await look();
    if (situation.hold !== undefined) await observer.query('ROLLBACK');
    await handle.signal('evaluate');
    const { upgrade, evaluation, ...told } = (await handle.result()) as UpgradeTrialResult;
    graphs.set(situation.target, told.graph);
    const path = told.graph.path.map(({ revision }) => revision);
    const wasCancelled = 'trouble' in upgrade && upgrade.trouble === 'cancelled';
    return {
      name: `${driver}: ${situation.name}`,
      took,
      seen: `${evaluation?.reality.kind}${evaluation?.leftovers.map((leftover) => `, ${leftover}`).join('') ?? ''}`,
      findings: [
        ...(wasCancelled ? [] : [`the upgrade was not cancelled: ${JSON.stringify(upgrade).slice(0, 300)}`]),
        ...('stopped' in upgrade && !hasProof(upgrade.stopped)
          ? [`there is no proof of the stop: ${JSON.stringify(upgrade.stopped)}`]
          : []),
        ...(evaluation
          ? judgeEvaluation(evaluation, { before, stopped, after: await look(), path })
          : ['not evaluated']),
        ...(perRevision === 'yes' && stopped.versionRows.join() !== 'r1' ? ['revision r1 was not committed'] : []),
      ],
    };
  });
}

const hasProof = (stopped: unknown): boolean =>
  typeof stopped === 'object' && stopped !== null && 'endedSessions' in stopped;

/** @returns milliseconds from the signal, as it leaves the client, to the first look that sees nothing any more */
async function abortAndWatch(
  handle: WorkflowHandle,
  view: Parameters<typeof watchFromOutside>[0],
  ended: () => Promise<unknown>,
): Promise<number> {
  const watch = await watchFromOutside(view);
  const began = performance.now();
  await handle.signal('abort', { by: 'frank@example.com', reason: 'proof' });
  await ended();
  return (await watch.leave()) - began;
}

interface WholeRun {
  readonly name: string;
  readonly driver: 'psycopg' | 'psycopg2';
  readonly hold: string;
  readonly reached: string;
  readonly outcome: Outcome;
}

const RELEASE = 'v1.1.0';
const MIGRATOR = 'whisper_migrator';

/** The run as a whole, by the example service: from the request to the outcome. */
const WHOLE_RUNS: readonly WholeRun[] = [
  {
    name: 'whole run, psycopg: waits for a lock in the first revision',
    driver: 'psycopg',
    hold: 'LOCK TABLE public.recordings IN ROW EXCLUSIVE MODE',
    reached: WAITS_FOR_LOCK,
    outcome: 'aborted',
  },
  {
    name: 'whole run, psycopg2: waits for a lock in the second revision',
    driver: 'psycopg2',
    hold: 'LOCK TABLE public.transcripts IN ACCESS SHARE MODE',
    reached: `${WAITS_FOR_LOCK} AND EXISTS (SELECT FROM public.alembic_version WHERE version_num = '0003_speakers')`,
    outcome: 'rolled-back',
  },
  {
    name: 'whole run, psycopg: builds an index concurrently',
    driver: 'psycopg',
    hold: OLD_SNAPSHOT,
    reached: WAITS_IN_BUILD,
    outcome: 'rolled-back',
  },
];

async function abortWholeRun(
  session: Session,
  { name, driver, hold: held, reached, outcome }: WholeRun,
): Promise<Aborted> {
  const { example, stack } = session;
  const { primary } = stack.postgres;
  if (!primary) throw new Error('the stack runs without its primary');
  await resetExample(example);
  const mark = `whole-${outcome}-${driver}`;
  await writeBriefProfile(example, stack.s3?.endpoint ?? '', {
    urlScheme: `postgresql+${driver}`,
    environment: markedEnvironment(mark),
  });
  const before = await takePicture(example);
  const handle = await startMigration(session, { releaseTag: RELEASE });
  const { waiting } = await until(handle, atGate('approval'));
  const planDigest = waiting?.for === 'approval' ? waiting.planDigest : '';
  const url = new URL(primary.superuserUrl);
  url.pathname = `/${encodeURIComponent(example.databases.production)}`;
  await handle.signal('approve', { by: 'erin@example.com', planDigest });
  // Not before: the fence suffers no superuser.
  await until(handle, ({ step }) => step?.id === 'apply.upgrade');
  const took = await withClient(url.href, async (observer) => {
    await hold(observer, held);
    await onProduction(example, (client) => reach(client, reached, MIGRATOR));
    const view = { superuserUrl: url.href, role: MIGRATOR, mark: environmentOf(mark) };
    const milliseconds = await abortAndWatch(handle, view, () =>
      // What the way back starts after this is no longer the upgrade's.
      until(handle, ({ step }) => step?.id === 'recovery.evaluate'),
    );
    await observer.query('ROLLBACK');
    return milliseconds;
  });
  const ended = await endWithoutDecision(handle);
  const plan = await handle.query<SealedPlan | null>('plan');
  const findings = await compareWithReality(example, {
    outcome: ended.outcome,
    before,
    loaded: before,
    targetRevision: plan?.plan.targetRevision ?? '',
  });
  if (ended.outcome !== outcome) findings.push(`ended ${ended.outcome}, to end ${outcome}`);
  return { name, took, seen: ended.outcome, findings };
}
