/** The object store and production's server go away in the middle of backup and verification, and come back. */
import { setTimeout as delay } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import type { Client } from 'pg';
import type { ProofCase } from '../../scripts/proof.ts';
import { endOf, startMigration } from '../../scripts/scenarios/driving.ts';
import { takePicture } from '../../scripts/scenarios/reality.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { withClient } from '../../scripts/stack/postgres-cluster.ts';
import { type StoppablePart, takeDown } from '../../scripts/stack/outage.ts';
import { dumpOf, isOfStep, objectsOf, unfinishedUploads } from './interruption/aftermath.ts';
import { writeBriefProfile } from './interruption/brief-profile.ts';
import { copying } from './interruption/frozen.ts';
import { judge, secondsUntil } from './interruption/judgement.ts';
import {
  answerGates,
  eventually,
  type StepUnderWay,
  stepsUnderWay,
  whereabouts,
  within,
} from './interruption/progress.ts';

export const sentence =
  'the store gone for 20 s mid-upload and mid-verify, production restarted mid-dump: the run goes on by itself';

const RELEASE = 'v1.1.0';
const MEGABYTE = 1024 * 1024;

interface Scene {
  readonly session: Session;
  readonly runId: string;
  readonly handle: WorkflowHandle;
}

interface Outage {
  readonly name: string;
  /** Id of the step it falls into. */
  readonly step: string;
  readonly part: StoppablePart;
  /** Milliseconds from the end of its process until it is started again. */
  readonly lasts: number;
  /** Undefined as long as the step is not in its middle; then what is seen. */
  readonly middle: (scene: Scene, step: StepUnderWay, superuser: Client) => Promise<string | undefined>;
  /** What shows that it was not in its middle. */
  readonly doubts: (scene: Scene) => Promise<readonly string[]>;
}

const notWhole = async ({ session, runId }: Scene): Promise<readonly string[]> =>
  (await objectsOf(session.stack, runId)).some((name) => isOfStep(name, dumpOf, 'backup.capture'))
    ? ['the dump was whole already']
    : [];

const OUTAGES: readonly Outage[] = [
  {
    name: 'PostgreSQL restarted mid-dump',
    step: 'backup.capture',
    part: 'primary',
    lasts: 0,
    middle: async ({ session }, _step, superuser) => {
      const wanted = { command: 'COPY TO', database: session.example.databases.production, bytes: MEGABYTE } as const;
      const found = await copying(superuser, wanted);
      return found && `pg_dump had read ${megabytes(found.bytes)} of a table`;
    },
    doubts: notWhole,
  },
  {
    name: 'S3 gone for 20 s mid-upload',
    step: 'backup.capture',
    part: 's3',
    lasts: 20_000,
    middle: async ({ session, runId }) => {
      const uploads = await unfinishedUploads(session.stack);
      const upload = uploads.find(({ key, parts }) => key.includes(runId) && parts > 0);
      return upload && `the store had ${upload.parts} parts`;
    },
    doubts: notWhole,
  },
  {
    name: 'S3 gone for 20 s mid-verify',
    step: 'backup.verify',
    part: 's3',
    lasts: 20_000,
    middle: async (_scene, { details }) => {
      const { read, of } = details as { readonly read?: number; readonly of?: number };
      return read !== undefined && of !== undefined && read > 0 && read < of
        ? `${megabytes(read)} of ${megabytes(of)} were read`
        : undefined;
    },
    doubts: async () => [],
  },
];

const megabytes = (bytes: number): string => `${Math.round(bytes / MEGABYTE)} MB`;

export const run = (say: (line: string) => void): Promise<readonly ProofCase[]> =>
  withSession({ name: 'proof-outages', say, example: { scale: 4, audioSize: 7904 } }, async (session) => {
    try {
      return await undergo(session, say);
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      return OUTAGES.map(({ name }) => ({ name, passed: false, detail }));
    }
  });

async function undergo(session: Session, say: (line: string) => void): Promise<ProofCase[]> {
  const { example, stack } = session;
  await writeBriefProfile(example, stack.s3?.endpoint ?? '');
  const before = await takePicture(example);
  const handle = await startMigration(session, { releaseTag: RELEASE });
  const { runId } = await handle.describe();
  const scene: Scene = { session, handle, runId };
  const stopAnswering = answerGates(handle, example, RELEASE);
  const struck: Struck[] = [];
  try {
    for (const outage of OUTAGES) {
      struck.push(await strike(scene, outage));
      say(`${outage.name}: ${struck.at(-1)?.seen ?? ''}; it is back`);
    }
    await within(endOf(handle), () => whereabouts(handle));
  } finally {
    await stopAnswering();
  }
  say('the run ended; looking at what is left');
  const expected = { outcome: 'succeeded', before, runId } as const;
  const { outcome, timeline, findings } = await judge(session, handle, expected);
  return struck.map(({ outage, backAt, seen, doubts }) => ({
    name: outage.name,
    passed: doubts.length === 0 && findings.length === 0,
    detail: [
      `${seen}; step done ${secondsUntil(backAt, timeline, outage.step)} after it was back; run ${outcome}`,
      ...doubts,
      ...findings,
    ].join('; '),
  }));
}

interface Struck {
  readonly outage: Outage;
  readonly backAt: number;
  readonly seen: string;
  readonly doubts: readonly string[];
}

async function strike(scene: Scene, outage: Outage): Promise<Struck> {
  const { stack } = scene.session;
  const seen = await within(middleOf(scene, outage), async () => `${outage.name}: ${await whereabouts(scene.handle)}`);
  const bringBack = await takeDown(stack, outage.part);
  const isUnderWay = (await stepsUnderWay(scene.handle)).some(({ step }) => step === outage.step);
  const doubts = [...(isUnderWay ? [] : ['the step had ended before']), ...(await outage.doubts(scene))];
  await delay(outage.lasts);
  await bringBack();
  return { outage, backAt: Date.now(), seen, doubts };
}

function middleOf(scene: Scene, outage: Outage): Promise<string> {
  const { primary } = scene.session.stack.postgres;
  if (!primary) throw new Error('the stack runs without its primary');
  return withClient(primary.superuserUrl, (superuser) =>
    eventually(
      `the middle of ${outage.step}`,
      async () => {
        const step = (await stepsUnderWay(scene.handle)).find((one) => one.step === outage.step);
        const seen = step && (await outage.middle(scene, step, superuser));
        return seen && `attempt ${step.attempt}, ${seen}`;
      },
      5,
    ),
  );
}
