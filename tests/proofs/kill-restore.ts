/** The worker is killed at points of backup and restore, and started again. */
import type { WorkflowHandle } from '@temporalio/client';
import { Client } from 'pg';
import type { ProofCase } from '../../scripts/proof.ts';
import { endOf, startMigration } from '../../scripts/scenarios/driving.ts';
import { takePicture } from '../../scripts/scenarios/reality.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { resetExample } from '../../scripts/stack/example.ts';
import { isAlive } from '../../scripts/stack/process-identity.ts';
import type { Outcome } from '../../src/contract/profile.ts';
import { writeBriefProfile } from './interruption/brief-profile.ts';
import { judge, secondsUntil } from './interruption/judgement.ts';
import { watchDoor } from './interruption/door.ts';
import * as moments from './interruption/moments.ts';
import {
  answerGates,
  eventually,
  type StepUnderWay,
  stepsUnderWay,
  whereabouts,
  within,
} from './interruption/progress.ts';
import { openStoreGateway, type StoreGateway } from './interruption/store-gateway.ts';

export const sentence =
  'SIGKILL of the worker around backup and restore: one good object or one good database each, nothing left over';

interface Point {
  readonly name: string;
  /** Id of the step that is to be interrupted. */
  readonly step: string;
  readonly arm: moments.Arm;
}

/** One run, with the worker killed at each of these points, one after the other. */
interface Ordeal {
  readonly releaseTag: string;
  readonly outcome: Outcome;
  readonly points: readonly Point[];
}

const SWAP = 'recovery.restore/swap';

/** Each attempt inherits what the one killed before it has left: two runs show more than one for each point would. */
const ORDEALS: readonly Ordeal[] = [
  {
    releaseTag: 'v1.1.0',
    outcome: 'succeeded',
    points: [
      { name: 'mid-dump', step: 'backup.capture', arm: moments.midDump },
      { name: 'mid-upload', step: 'backup.capture', arm: moments.midUpload },
      { name: 'after upload, before its record', step: 'backup.capture', arm: moments.uploadedNotRecorded },
      { name: 'mid-verify', step: 'backup.verify', arm: moments.midVerify },
    ],
  },
  {
    releaseTag: 'v1.3.0-corrupts',
    outcome: 'restored',
    points: [
      { name: 'after its record, before the reply', step: 'backup.capture', arm: moments.recordedNotReplied },
      { name: 'mid-restore, at the rows', step: 'recovery.restore', arm: moments.midRestore },
      { name: 'mid-restore, at the indexes', step: 'recovery.restore', arm: moments.midIndexes },
      { name: 'after compare', step: 'recovery.restore', arm: moments.compared },
      { name: 'between shut-out and rename', step: SWAP, arm: moments.shutOut },
      { name: 'after rename, before the reply', step: SWAP, arm: moments.renamedNotReplied },
    ],
  },
];

export const run = (say: (line: string) => void): Promise<readonly ProofCase[]> =>
  withSession({ name: 'proof-kill-restore', say, example: { audioSize: 7904 } }, async (session) => {
    const gateway = await openStoreGateway(session.stack.s3?.endpoint ?? '');
    try {
      await writeBriefProfile(session.example, gateway.endpoint);
      const cases: ProofCase[] = [];
      for (const ordeal of ORDEALS) {
        try {
          cases.push(...(await undergo(session, gateway, ordeal, say)));
        } catch (error) {
          // A run that is stuck stands in the way of the next one.
          const detail = error instanceof Error ? error.message : String(error);
          cases.push(...ordeal.points.map(({ name }) => ({ name, passed: false, detail })));
          break;
        }
      }
      return cases;
    } finally {
      gateway.close();
    }
  });

async function undergo(
  session: Session,
  gateway: StoreGateway,
  ordeal: Ordeal,
  say: (line: string) => void,
): Promise<ProofCase[]> {
  const { example, stack } = session;
  const { primary } = stack.postgres;
  if (!primary) throw new Error('the stack runs without its primary');
  if (!isAlive(session.worker.server)) await session.restartWorker();
  await resetExample(example);
  const before = await takePicture(example);
  const observer = new Client({ connectionString: primary.superuserUrl, application_name: 'observer' });
  await observer.connect();
  try {
    const handle = await startMigration(session, { releaseTag: ordeal.releaseTag });
    const { runId } = await handle.describe();
    const { temporaryFolder } = session.worker;
    const scene: moments.Scene = { example, gateway, primary, observer, runId, temporaryFolder };
    const stopAnswering = answerGates(handle, example, ordeal.releaseTag);
    const door = await watchDoor(primary, example.databases.production);
    const killed: Killed[] = [];
    let shut: readonly number[] = [];
    try {
      for (const point of ordeal.points) {
        killed.push(await killAt(session, scene, handle, point));
        say(`killed ${point.name}: ${killed.at(-1)?.seen ?? ''}`);
      }
      await session.restartWorker();
      await within(endOf(handle), () => whereabouts(handle));
    } finally {
      shut = await door.leave();
      await stopAnswering();
    }
    say(
      `the run ended; nobody could connect to production for ${shut.map((time) => `${time} ms`).join(', ') || '0 ms'}; looking at what is left`,
    );
    const { outcome } = ordeal;
    const left = await judge(session, handle, { outcome, before, runId });
    return killed.map(({ point, at, seen, doubts }) => ({
      name: point.name,
      passed: doubts.length === 0 && left.findings.length === 0,
      detail: [
        `${seen}; step done ${secondsUntil(at, left.timeline, point.step)} after the kill; run ${left.outcome}`,
        ...doubts,
        ...left.findings,
      ].join('; '),
    }));
  } finally {
    await observer.end();
  }
}

interface Killed {
  readonly point: Point;
  readonly at: number;
  readonly seen: string;
  /** What speaks against the kill having hit this point. */
  readonly doubts: readonly string[];
}

/** The next moment is prepared before the worker is started that may come to it. */
async function killAt(session: Session, scene: moments.Scene, handle: WorkflowHandle, point: Point): Promise<Killed> {
  const underWay = async (): Promise<StepUnderWay | undefined> =>
    (await stepsUnderWay(handle)).find(({ step }) => step === point.step);
  const moment = point.arm(scene, {
    id: point.step,
    underWay,
    begins: () => eventually(`the step ${point.step} is under way`, underWay, 100),
  });
  try {
    if (!isAlive(session.worker.server)) await session.restartWorker();
    const { server } = session.worker;
    const seen = await within(moment.reached, async () => `${point.name}: ${await whereabouts(handle)}`);
    process.kill(server.pid, 'SIGKILL');
    const at = Date.now();
    await eventually('the worker is dead', async () => (isAlive(server) ? undefined : true));
    const step = await underWay();
    const doubts = [...(step ? [] : [`the step ${point.step} was not under way`]), ...(await moment.doubts())];
    return { point, at, seen: `attempt ${step?.attempt ?? '?'}, ${seen}`, doubts };
  } finally {
    await moment.release();
  }
}
