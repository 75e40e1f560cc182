/** The plan that is approved, composed from what the run has found out. Pure but for the run it reads. */
import type { AccessEvidence, ChangeReview } from '../contract/evidence/preconditions.ts';
import type { GraphEvidence, ToolingEvidence } from '../contract/evidence/tooling.ts';
import type { MigrationPlan, PlannedRehearsal } from '../contract/plan.ts';
import { type RollbackOffer, rollbackOffer } from '../contract/rehearsal-offer.ts';
import type { Rehearsal } from '../contract/evidence/rehearsal.ts';
import type { MigrationRun } from './run.ts';
import type { DryRun } from './sections/dry-run.ts';
import type { Rehearsed } from './sections/rehearsal.ts';
import type { Tooling } from './sections/tooling.ts';

/** Everything the approvers' plan is made from. */
export interface Reviewed {
  readonly review: ChangeReview;
  readonly access: AccessEvidence;
  readonly tooling: Tooling;
  readonly dryRun: DryRun;
  readonly rehearsed: Rehearsed;
}

export function composePlan(run: MigrationRun, reviewed: Reviewed, runId: string): MigrationPlan {
  const { review, access, tooling, rehearsed } = reviewed;
  const { rehearsal } = rehearsed;
  const { profile, request } = run;
  const { graph, tools } = tooling;
  return {
    format: 'migration-runbook/plan/2',
    opening: run.state.openings,
    runId,
    workflowId: run.runFacts.workflowId,
    service: request.service,
    releaseTag: request.releaseTag,
    commit: review.commit,
    changeTicket: request.changeTicket,
    requestedBy: request.requestedBy,
    profileDigest: run.profileDigest,
    production: { systemIdentifier: access.production.systemIdentifier, database: access.production.database },
    startRevisions: graph.startRevisions,
    targetRevision: graph.targetRevision,
    revisions: graph.path.map(({ revision, file, sha256, transactional, downgrade }) => ({
      revision,
      file,
      sha256,
      transactional,
      downgrade,
    })),
    objectMapDigest: rehearsed.production.objectMapDigest,
    schemaChange: rehearsal.trial.schemaChange,
    backupPolicy: {
      bucket: profile.backup.bucket,
      recipients: profile.backup.recipients,
      maximumAge: profile.backup.maximumAge,
    },
    fence: profile.fence.kind,
    recoveryPoint: {
      restorePoint: profile.recoveryPoint.restorePoint,
      snapshot: profile.recoveryPoint.snapshot !== undefined,
    },
    capacity: access.capacity,
    rehearsal: plannedRehearsal(rehearsal),
    predictions: run.state.predictions,
    guard: {
      lockTimeout: profile.guard.lockTimeout,
      concurrentLockTimeout: profile.guard.concurrentLockTimeout,
      statementTimeout: profile.guard.statementTimeout,
      tries: profile.guard.tries,
      endBlockersAfter: profile.guard.endBlockersAfter,
      keptBy: guardKeeper(reviewed),
    },
    findings: rehearsal.trial.findings,
    window: {
      start: request.windowStart ?? null,
      end: request.windowEnd ?? null,
      length: profile.window.length,
    },
    recovery: plannedRecovery(run, graph, rehearsal),
    checks: [...profile.checks.smoke, ...profile.checks.smokeWrites].map(({ name }) => name),
    thresholds: profile.monitoring.measures.map(({ name, limit }) => ({ name, ...limit })),
    approvals: {
      required: profile.approvals.required,
      approvers: profile.approvals.approvers,
      signatures: profile.approvals.signatures,
      signers: profile.approvals.signers.map(({ name }) => name),
    },
    warnings: warningsOf(run, reviewed),
    tools: toolVersions(tools),
  };
}

export const toolVersions = ({ programs, alembic, sqlalchemy, python }: ToolingEvidence): MigrationPlan['tools'] => ({
  ...programs,
  alembic,
  sqlalchemy,
  python,
});

function plannedRehearsal({ restore, trial, swap, backup, databaseBytes, expiresAt }: Rehearsal): PlannedRehearsal {
  const { upgrade, deployed } = trial;
  return {
    backup,
    databaseBytes,
    expiresAt,
    at: trial.at,
    verdict: trial.verdict,
    upgradeMilliseconds: upgrade.milliseconds,
    downgradeMilliseconds: trial.downgrade?.milliseconds ?? null,
    restoreMilliseconds: restore.restored.milliseconds,
    swapMilliseconds: swap.milliseconds,
    locks: upgrade.locks,
    rewrites: upgrade.rewrites,
    walBytes: upgrade.walBytes,
    growthBytes: upgrade.growthBytes,
    reporter: upgrade.reporter,
    deployed: deployed.kind,
    deployedRelease: deployed.kind === 'not-tried' ? null : deployed.release,
    mapAfter: trial.mapAfter.sha256,
    unknown: trial.unknown,
  };
}

function plannedRecovery(run: MigrationRun, graph: GraphEvidence, { trial }: Rehearsal): MigrationPlan['recovery'] {
  const { rollback: wanted, restore } = run.profile.recovery;
  const offer = rollbackOffer(trial.verdict);
  const isOffered = wanted !== 'never' && offer.rollback !== 'not-offered' && graph.downgrade.kind === 'planned';
  const isFirst = isOffered && offer.rollback === 'as-profile';
  const isFenced = run.profile.fence.kind !== 'none';
  return {
    offered: isFirst ? 'rollback' : 'restore',
    why: wanted === 'never' ? 'the profile never rolls back by downgrade' : offer.why,
    rollback: !isOffered ? 'never' : isFirst && wanted === 'automatic' && isFenced ? 'automatic' : 'ask',
    downgrade: isOffered && graph.downgrade.kind === 'planned' ? graph.downgrade.commands : null,
    rollbackLoses: isOffered ? offer.loses.slice(0, 100) : [],
    restore: restore === 'automatic' ? 'automatic' : 'by decision',
    restoreBound: restore === 'automatic' ? { rowsLost: 0 } : null,
    restoreLoses: LOSSES[run.profile.fence.kind],
  };
}

/** The rehearsal's word on the rollback, under the profile's policy: what the gate `recovery` offers. */
export const rollbackOfferOf = (run: MigrationRun, { trial }: Rehearsal): RollbackOffer['rollback'] =>
  run.profile.recovery.rollback === 'never' ? 'not-offered' : rollbackOffer(trial.verdict).rollback;

const LOSSES: Record<MigrationPlan['fence'], string> = {
  none: 'whatever is written to production after the backup: there is no fence, production stays writable',
  'read-only': 'nothing until the fence is lifted, before the smoke tests that write; from then on what is written',
  maintenance:
    'nothing while the maintenance mode is on; from its end on, before the smoke tests that write, what is written',
};

function guardKeeper({ rehearsed: { rehearsal, production } }: Reviewed): string {
  if (rehearsal.trial.upgrade.reporter.kind === 'loaded') return 'set for each statement inside the service’s Python';
  const settings = production.migratorSettings.join(', ');
  return `a watchdog from outside, and the settings of the migrator’s role (${settings || 'it has none: ALTER ROLE ... SET lock_timeout'})`;
}

function warningsOf(
  run: MigrationRun,
  { tooling: { graph }, dryRun: { staging }, rehearsed }: Reviewed,
): readonly string[] {
  const { rehearsal } = rehearsed;
  const { deployed } = rehearsal.trial;
  return [
    ...(run.profile.fence.kind === 'none'
      ? ['no fence: what is written after the backup can be lost by a restore']
      : []),
    ...(run.profile.restore.capacity.kind === 'waiver'
      ? [`room for a second copy was not measured: ${run.profile.restore.capacity.reason}`]
      : []),
    ...graph.risks,
    ...graph.unknown,
    ...(graph.downgrade.kind === 'impossible' ? [`no rollback by downgrade: ${graph.downgrade.why}`] : []),
    ...rollbackOffer(rehearsal.trial.verdict)
      .loses.slice(0, 100)
      .map((loss) => `a rollback loses or leaves: ${loss}`),
    ...(deployed.kind === 'failed'
      ? [`the deployed release ${deployed.release} does not work on the upgraded copy: ${deployed.why}`]
      : []),
    ...rehearsal.trial.unknown,
    ...(!staging.nothingToDo && staging.before.join() !== graph.startRevisions.join()
      ? [
          `staging began at ${staging.before.join(', ') || 'no revision'}, production stands at ${graph.startRevisions.join(', ') || 'no revision'}: the dry run was another upgrade`,
        ]
      : []),
    ...(staging.nothingToDo ? ['staging stood at the target already: the dry run upgraded nothing'] : []),
  ];
}
