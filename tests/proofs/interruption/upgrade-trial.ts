/** The upgrade and its recovery alone: activities, time limits, retries and cancellation are those of the run itself. */
import {
  type ActivityOptions,
  CancellationScope,
  condition,
  defineQuery,
  defineSignal,
  isCancellation,
  proxyActivities,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { MigrationActivities } from '../../../src/contract/activities.ts';
import type { ProductionState } from '../../../src/contract/evidence/production.ts';
import type { Evaluation, RollbackEvidence } from '../../../src/contract/evidence/rollback.ts';
import type { RunFacts, StoredDocument } from '../../../src/contract/evidence/step.ts';
import type { GraphEvidence } from '../../../src/contract/evidence/tooling.ts';
import type { UpgradeEvidence } from '../../../src/contract/evidence/upgrade.ts';
import type { Profile } from '../../../src/contract/profile.ts';
import { CHANGE, LOOK, PUT_BACK } from '../../../src/workflows/step-policies.ts';

export interface UpgradeTrialInput {
  readonly run: Omit<RunFacts, 'runId' | 'workflowId'>;
  readonly profile: Profile;
  readonly targetRevision: string;
  /** Read anew where it is not given. */
  readonly graph?: GraphEvidence;
  readonly footprint: StoredDocument;
  /** After an upgrade that did not go through: `evaluate` it once asked to, or `recover` as an automatic rollback does. */
  readonly afterTrouble: 'evaluate' | 'recover';
}

export interface UpgradeTrialResult {
  readonly graph: GraphEvidence;
  readonly before: ProductionState;
  readonly upgrade: UpgradeEvidence | { readonly trouble: string; readonly stopped: unknown };
  readonly evaluation?: Evaluation;
  readonly rollback?: RollbackEvidence;
  /** After the rollback. */
  readonly evaluationAfter?: Evaluation;
}

export const abortTrial = defineSignal('abort');
/** Asks for the evaluation. */
export const evaluateTrial = defineSignal('evaluate');
export const trialStage = defineQuery<'upgrading' | 'stopped' | 'evaluating'>('stage');

const activities = (options: ActivityOptions, activityId: string): MigrationActivities =>
  proxyActivities<MigrationActivities>({ ...options, activityId });

export async function upgradeTrial(input: UpgradeTrialInput): Promise<UpgradeTrialResult> {
  const scope = new CancellationScope();
  let stage: 'upgrading' | 'stopped' | 'evaluating' = 'upgrading';
  let asked = input.afterTrouble === 'recover';
  setHandler(abortTrial, () => scope.cancel());
  setHandler(evaluateTrial, () => {
    asked = true;
  });
  setHandler(trialStage, () => stage);

  const { workflowId, runId } = workflowInfo();
  const { profile, targetRevision, footprint } = input;
  const run = { ...input.run, workflowId, runId };
  const graph =
    input.graph ?? (await activities(LOOK, 'tooling.graph').readMigrationGraph({ run, profile, targetRevision }));
  const before = await activities(LOOK, 'apply.refresh-backup/state').inspectProduction({ run, profile });
  const known = { run, profile, graph, before };

  const upgrade = await scope
    .run(() => activities(CHANGE, 'apply.upgrade').upgradeProduction({ ...known, footprint, planRunId: runId }))
    .catch((error: unknown) => troubleOf(error));
  if (!('trouble' in upgrade)) return { graph, before, upgrade };
  stage = 'stopped';
  await condition(() => asked);
  stage = 'evaluating';
  const evaluation = await activities(PUT_BACK, 'recovery.evaluate').evaluateProduction(known);
  const { reality } = evaluation;
  const isUndoable = reality.kind === 'fully-applied' || (reality.kind === 'partly-applied' && reality.clean === 'yes');
  if (input.afterTrouble === 'evaluate' || !isUndoable) return { graph, before, upgrade, evaluation };
  const rollback = await activities(CHANGE, 'recovery.rollback').rollBackProduction({
    ...known,
    expectedLeftovers: [],
    dropped: [],
    arrivals: null,
  });
  const evaluationAfter = await activities(PUT_BACK, 'recovery.evaluate#2').evaluateProduction(known);
  return { graph, before, upgrade, evaluation, rollback, evaluationAfter };
}

function troubleOf(error: unknown): { readonly trouble: string; readonly stopped: unknown } {
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  const details = typeof cause === 'object' && cause !== null && 'details' in cause ? cause.details : undefined;
  const message = cause instanceof Error ? cause.message : String(cause);
  return {
    trouble: isCancellation(error) ? 'cancelled' : message.slice(0, 500),
    stopped: Array.isArray(details) ? details[0] : undefined,
  };
}
