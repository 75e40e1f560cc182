/** Sessions stand in the way of the upgrade: they are named, the application does not wait behind it, and it comes through by itself. */
import { setTimeout as delay } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import type { Client } from 'pg';
import type { ProofCase } from '../../scripts/proof.ts';
import { atGate, endOf, startMigration, until } from '../../scripts/scenarios/driving.ts';
import { type ProfileChanges, writeProfile } from '../../scripts/scenarios/profile.ts';
import { compareWithReality, onProduction, type Picture, takePicture } from '../../scripts/scenarios/reality.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { resetExample } from '../../scripts/stack/example.ts';
import type { UpgradeEvidence } from '../../src/contract/evidence/upgrade.ts';
import type { SealedPlan } from '../../src/contract/plan.ts';
import type { Outcome } from '../../src/contract/profile.ts';
import type { RunStatus, StepRecord } from '../../src/contract/status.ts';
import {
  type Awaited,
  openTransaction,
  type OpenTransaction,
  type Readings,
  runbookStatus,
  startReader,
  watchHeld,
  waitingSince,
} from './blockers/witness.ts';

export const sentence =
  'sessions in the way of an upgrade: named in `runbook status` within 3 s, no reader waits longer than lock_timeout, it succeeds once they end';

const RELEASE = 'v1.1.0';
const LOCK_TIMEOUT = 2_000;
/** For the server to end a wait and let the next in. Milliseconds. */
const SLACK = 50;
/** From the beginning of the wait to the output of the command. */
const NAMED_WITHIN = 3_000;

/** What `v1.1.0` waits for: its column needs ACCESS EXCLUSIVE on `transcripts`, its foreign key SHARE ROW EXCLUSIVE on `recordings`. */
const READ_TRANSCRIPTS = 'SELECT count(*) FROM public.transcripts';
const CHANGE_RECORDINGS = 'LOCK TABLE public.recordings IN ROW EXCLUSIVE MODE';
const OLD_SNAPSHOT = 'SELECT count(*) FROM pg_catalog.pg_class';

export const run = (say: (line: string) => void): Promise<readonly ProofCase[]> =>
  withSession({ name: 'proof-blockers', say }, async (session) => {
    const cases: ProofCase[] = [];
    for (const proven of [heldAndBehindSnapshot, fromOutside, neverEnding, endedByProfile]) {
      for (const one of await proven(session)) {
        say(`${one.name}: ${one.passed ? 'passed' : 'FAILED'}: ${one.detail}`);
        cases.push(one);
      }
    }
    return cases;
  });

/** An idle transaction holds the table, then an old snapshot holds up the index. */
async function heldAndBehindSnapshot(session: Session): Promise<readonly ProofCase[]> {
  const world = await begin(session, {});
  const snapshot = await openTransaction(session.example.urls.production.application, 'old snapshot', OLD_SNAPSHOT);
  const table = await heldTable(session, world);
  const index = await namedInStatus(session, snapshot, 'virtualxid');
  await delay(LOCK_TIMEOUT * 2);
  const stillBuilding = (await world.handle.query<RunStatus>('status')).step?.id === 'apply.upgrade';
  await snapshot.end();
  const end = await ended(session, world, 'succeeded');
  return [
    judgeNamed('an idle transaction that holds the table', table.named, table.held),
    judgeReaders('readers of that table', await table.readers()),
    judgeThrough('comes through by itself after it has ended', end),
    judgeNamed('an old snapshot that holds up CREATE INDEX CONCURRENTLY', index, snapshot),
    {
      name: 'the index waits longer than lock_timeout, and is built',
      passed: stillBuilding && end.findings.length === 0,
      detail: stillBuilding ? `still waiting after ${LOCK_TIMEOUT * 2} ms, then built` : 'it did not wait',
    },
  ];
}

/** The service's own command, into which our part cannot be loaded: limits are kept from outside. */
async function fromOutside(session: Session): Promise<readonly ProofCase[]> {
  const { python } = session.example.stack.venv;
  const world = await begin(session, {
    alembic: { commands: { upgrade: [python, '-I', '-m', 'alembic', 'upgrade', '{{revision}}'] } },
  });
  const table = await heldTable(session, world);
  const end = await ended(session, world, 'succeeded');
  return [
    judgeNamed('a wrapped Alembic without our part', table.named, table.held),
    judgeReaders('readers, with limits kept from outside', await table.readers()),
    judgeThrough('a wrapped Alembic comes through too', end),
  ];
}

interface HeldTable {
  readonly held: OpenTransaction;
  readonly named: Named;
  /** Once the run has ended. */
  readers(): Promise<ReadersSeen>;
}

/** An idle transaction holds the table from before the approval until the upgrade has given way to it; readers come and go. */
async function heldTable(session: Session, world: World): Promise<HeldTable> {
  const { production } = session.example.urls;
  const held = await openTransaction(production.application, 'forgotten report', READ_TRANSCRIPTS);
  const reader = await startReader(production.application, 'transcripts');
  const control = await startReader(production.application, 'users');
  const migration = await watchHeld(production.administrator, 'transcripts');
  await approve(world);
  const named = await namedInStatus(session, held, 'relation');
  // Longer than one try, so that it has given way at least once.
  await delay(LOCK_TIMEOUT * 2);
  const behind = reader.soFar();
  await held.end();
  return {
    held,
    named,
    readers: async () => ({
      behind,
      whole: await reader.stop(),
      noise: await control.stop(),
      work: await migration.stop(),
    }),
  };
}

async function neverEnding(session: Session): Promise<readonly ProofCase[]> {
  const world = await begin(session, { guard: { lockTimeout: '2s', tries: 3, patience: '4s' } });
  const held = await openTransaction(
    session.example.urls.production.application,
    'forgotten report',
    CHANGE_RECORDINGS,
  );
  await approve(world);
  const { step, findings } = await ended(session, world, 'aborted');
  await held.end();
  const why = step?.error ?? '';
  const isNamed = why.includes(`pid ${held.pid} (forgotten report)`) && why.includes('ShareRowExclusiveLock');
  return [
    {
      name: 'one that never ends: given up, production unchanged, named in the failure',
      passed: isNamed && findings.length === 0,
      detail: [why, ...findings].join('; '),
    },
  ];
}

async function endedByProfile(session: Session): Promise<readonly ProofCase[]> {
  const world = await begin(session, { guard: { lockTimeout: '2s', endBlockersAfter: '1s' } });
  const held = await openTransaction(
    session.example.urls.production.application,
    'forgotten report',
    CHANGE_RECORDINGS,
  );
  await approve(world);
  const { evidence, findings } = await ended(session, world, 'succeeded');
  await held.end();
  const words = evidence?.blockers.join('; ') ?? '';
  return [
    {
      name: 'guard.endBlockersAfter: its session is ended, the upgrade comes through',
      passed: findings.length === 0 && words.includes('its session was ended'),
      detail: [words, ...findings].join('; '),
    },
  ];
}

interface World {
  readonly handle: WorkflowHandle;
  readonly before: Picture;
}

/** A run that waits for its approval. What is not looked at here is cut short. */
async function begin(session: Session, changes: ProfileChanges): Promise<World> {
  const { example } = session;
  await resetExample(example);
  await writeProfile(example, {
    guard: { lockTimeout: `${LOCK_TIMEOUT}ms`, tries: 20, patience: '5m' },
    // A fence would end the sessions that are to stand in the way.
    fence: 'none',
    recovery: { rollback: 'ask' },
    monitoring: { settle: '0s', sampleEvery: '200ms', measures: [{ name: 'deadlocks', deadlocks: true }] },
    ...changes,
    edit: (document) => ({
      ...document,
      databases: {
        ...document.databases,
        // They are to be met as they hold a lock, not before.
        production: { ...document.databases.production, maximumTransactionAge: '1h' },
      },
      switches: [],
      staging: { ...document.staging, tests: [example.stack.venv.python, '--version'] },
      application: { ...document.application, flows: document.application.flows.slice(0, 1) },
      checks: { ...document.checks, smokeWrites: [] },
    }),
  });
  const before = await takePicture(example);
  const handle = await startMigration(session, { releaseTag: RELEASE });
  await until(handle, atGate('approval'));
  return { handle, before };
}

async function approve({ handle }: World): Promise<void> {
  const { waiting } = await handle.query<RunStatus>('status');
  const planDigest = waiting?.for === 'approval' ? waiting.planDigest : '';
  await handle.signal('approve', { by: 'erin@example.com', planDigest });
}

interface Named {
  /** Milliseconds from the beginning of the wait to the output that names the session; null when it never did. */
  readonly after: number | null;
  readonly line: string;
}

const PATIENCE = 120_000;

/** From the moment the migrator waits, `runbook status` is run twice a second until one run of it names the session. */
async function namedInStatus(session: Session, { pid }: OpenTransaction, awaited: Awaited): Promise<Named> {
  const began = await onProduction(session.example, (client) => firstWait(client, awaited));
  const found = Promise.withResolvers<Named>();
  let running = 0;
  const look = async (): Promise<void> => {
    running += 1;
    try {
      const text = await runbookStatus(session);
      const line = text.split('\n').find((one) => one.includes(`BLOCKED by pid ${pid} `));
      if (line !== undefined) found.resolve({ after: Math.round(Date.now() - began), line: line.trim() });
    } catch (error) {
      found.reject(error);
    } finally {
      running -= 1;
    }
  };
  const looks = [look()];
  const looking = setInterval(() => {
    // More at a time would only hold each other up.
    if (running < 2) looks.push(look());
  }, 500);
  const tooLate = setTimeout(() => found.resolve({ after: null, line: '' }), 30_000);
  try {
    return await found.promise;
  } finally {
    clearTimeout(tooLate);
    clearInterval(looking);
    await Promise.all(looks);
  }
}

async function firstWait(client: Client, awaited: Awaited): Promise<number> {
  for (const until = Date.now() + PATIENCE; Date.now() < until; ) {
    const since = await waitingSince(client, awaited);
    if (since !== undefined) return since;
    await delay(20);
  }
  throw new Error('the upgrade did not come to wait');
}

interface EndOfRun {
  readonly evidence: UpgradeEvidence | undefined;
  /** `apply.upgrade` in the timeline. */
  readonly step: StepRecord | undefined;
  /** What is not as it should be. */
  readonly findings: readonly string[];
}

async function ended(session: Session, { handle, before }: World, expected: Outcome): Promise<EndOfRun> {
  await until(handle, ({ stage, waiting }) => stage === 'ended' || waiting?.for === 'recovery');
  const status = await handle.query<RunStatus>('status');
  if (status.waiting?.for === 'recovery') throw new Error(`the run waits for a decision: ${status.waiting.why}`);
  const { outcome } = await endOf(handle);
  const timeline = await handle.query<readonly StepRecord[]>('timeline');
  const step = timeline.findLast(({ id }) => id === 'apply.upgrade');
  const plan = await handle.query<SealedPlan | null>('plan');
  const findings = await compareWithReality(session.example, {
    outcome,
    before,
    loaded: before,
    targetRevision: plan?.plan.targetRevision ?? '',
  });
  if (outcome !== expected) findings.unshift(`ended ${outcome}: ${status.trouble ?? 'no trouble'}`);
  return { evidence: step?.evidence as UpgradeEvidence | undefined, step, findings };
}

const judgeNamed = (name: string, { after, line }: Named, { pid }: OpenTransaction): ProofCase => ({
  name: `${name}: named in status`,
  passed: after !== null && after <= NAMED_WITHIN && line.includes('idle in transaction'),
  detail:
    after === null ? `pid ${pid} was not named` : `${after} ms after the wait began (${NAMED_WITHIN} allowed): ${line}`,
});

const judgeThrough = (name: string, { evidence, findings }: EndOfRun): ProofCase => ({
  name,
  passed: findings.length === 0 && (evidence?.tries ?? 0) > 1,
  detail: [`succeeded after ${evidence?.tries ?? 0} tries of Alembic`, ...findings].join('; '),
});

interface ReadersSeen {
  /** While the transaction stood in the way. */
  readonly behind: Readings;
  /** During the whole run. */
  readonly whole: Readings;
  /** Of another table: whatever else keeps this machine busy. */
  readonly noise: Readings;
  /** Milliseconds that the migration itself kept readers out, once it had its lock. */
  readonly work: number;
}

/** Nobody waits behind the waiting migration for longer than lock_timeout; while it works it holds what it has. */
const judgeReaders = (name: string, { behind, whole, noise, work }: ReadersSeen): ProofCase => ({
  name: `${name} wait no longer than lock_timeout`,
  passed:
    behind.reads > 100 &&
    behind.longest <= LOCK_TIMEOUT + SLACK + noise.longest &&
    whole.longest <= LOCK_TIMEOUT + SLACK + noise.longest + work,
  detail: `longest of ${behind.reads} reads behind it ${behind.longest} ms, of ${whole.reads} in all ${whole.longest} ms; allowed ${LOCK_TIMEOUT} ms, ${SLACK} ms to end a wait, ${noise.longest} ms as on a table that is left alone, and in all the ${work} ms of its own work`,
});
