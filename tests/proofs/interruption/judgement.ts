/** A run that was interrupted, judged at its end. */
import type { WorkflowHandle } from '@temporalio/client';
import { endOf } from '../../../scripts/scenarios/driving.ts';
import { compareWithReality, type Picture } from '../../../scripts/scenarios/reality.ts';
import type { Session } from '../../../scripts/scenarios/session.ts';
import type { SealedPlan } from '../../../src/contract/plan.ts';
import type { Outcome } from '../../../src/contract/profile.ts';
import type { StepRecord } from '../../../src/contract/status.ts';
import {
  checkApplication,
  checkDatabases,
  backupNames,
  checkObjects,
  checkSessions,
  checkTemporaryFiles,
  checkUploads,
} from './aftermath.ts';
import { verifiesAgain } from './second-reading.ts';

export interface Expected {
  readonly outcome: Outcome;
  /** Production before the run. */
  readonly before: Picture;
  readonly runId: string;
}

export interface Judgement {
  readonly outcome: Outcome;
  readonly timeline: readonly StepRecord[];
  /** What is not as it has to be; empty when all is. */
  readonly findings: readonly string[];
}

export async function judge(
  { example, stack, profile, worker }: Session,
  handle: WorkflowHandle,
  { outcome: wanted, before, runId }: Expected,
): Promise<Judgement> {
  const { outcome, openItems = [] } = await endOf(handle);
  const [plan, timeline] = await Promise.all([
    handle.query<SealedPlan | null>('plan'),
    handle.query<readonly StepRecord[]>('timeline'),
  ]);
  // The second one is taken behind the fence, where the profile wants one.
  const captured = ['backup.capture', 'apply.refresh-backup/capture'].filter((step) =>
    timeline.some(({ id, status }) => id === step && status === 'done'),
  );
  const backups = await backupNames(stack, runId, captured);
  const targetRevision = plan?.plan.targetRevision ?? '';
  const findings = [
    ...(backups.length > 0 ? [] : ['no backup was taken']),
    ...(outcome === wanted ? [] : [`ended ${outcome}, not ${wanted}`]),
    ...openItems.map((item) => `open: ${item}`),
    ...(await compareWithReality(example, { outcome, before, loaded: before, targetRevision })),
    ...(await checkObjects(stack, runId, backups)),
    ...(await checkUploads(stack, runId)),
    ...(await verifiesAgain(stack, profile, runId, backups)),
    ...(await checkDatabases(example, wanted === 'restored' ? 1 : 0)),
    ...(await checkApplication(example)),
    ...(await checkSessions(stack)),
    ...(await checkTemporaryFiles(worker.temporaryFolder)),
  ];
  return { outcome, timeline, findings };
}

/** Seconds until the step was done, in words. */
export function secondsUntil(at: number, timeline: readonly StepRecord[], step: string): string {
  const done = timeline.findLast(({ id, status }) => id === step && status === 'done');
  return done?.endedAt === undefined ? 'never' : `${((Date.parse(done.endedAt) - at) / 1000).toFixed(1)} s`;
}
