/** Between sections 4 and 5 of the document: people read the plan and decide. */
import type { AccessEvidence, Announcement, ChangeReview, GraphEvidence } from '../../contract/evidence.ts';
import { messageCommands } from '../../contract/commands.ts';
import { DIGEST_PREFIX, type MigrationPlan, type SealedPlan } from '../../contract/plan.ts';
import { nextRuling } from '../gate.ts';
import { takeLease } from '../lease.ts';
import { StoppedAtGate } from '../failure.ts';
import type { MigrationRun } from '../run.ts';
import { LOOK } from '../step-policies.ts';
import { tell } from '../telling.ts';
import type { DryRun } from './dry-run.ts';
import type { Tooling } from './tooling.ts';

export interface Reviewed {
  readonly review: ChangeReview;
  readonly access: AccessEvidence;
  readonly tooling: Tooling;
  readonly dryRun: DryRun;
}

/** @throws StoppedAtGate on rejection or when nobody approves in time */
export async function productionGate(run: MigrationRun, reviewed: Reviewed): Promise<void> {
  for (;;) {
    const sealed = await sealPlan(run, reviewed);
    await awaitApprovals(run, sealed);
    const identity = await run.step(
      'gate.production/run',
      'This execution is the one the plan was made for',
      LOOK,
      (activities) => activities.identifyRun(),
    );
    if (identity.currentRunId === sealed.plan.runId) return;
    // A reset of the workflow copies the history, approvals included, into another execution: ask again there.
    run.refuse(
      'approve',
      'the workflow was reset: approvals given to the earlier execution are void, the plan was made anew',
    );
    await takeLease(run, reviewed.access.production);
  }
}

async function sealPlan(run: MigrationRun, reviewed: Reviewed): Promise<SealedPlan> {
  const { currentRunId } = await run.step(
    'gate.production/identity',
    'The run id, as the server tells it',
    LOOK,
    (activities) => activities.identifyRun(),
  );
  const plan = composePlan(run, reviewed, currentRunId);
  const sealed = await run.step('gate.production/plan', 'The plan, its digest, archived', LOOK, (activities) =>
    activities.sealPlan({ ...run.input(), plan }),
  );
  run.state.plan = sealed;
  return sealed;
}

function composePlan(run: MigrationRun, { review, access, tooling, dryRun }: Reviewed, runId: string): MigrationPlan {
  const { profile, request } = run;
  const { graph, tools } = tooling;
  const automatic = profile.recovery.rollback === 'automatic' && graph.downgrade.kind === 'planned';
  return {
    format: 'migration-runbook/plan/1',
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
    objectMapDigest: run.state.latestBackup?.objectMapDigest ?? '',
    schemaChange: { added: dryRun.diff.added, removed: dryRun.diff.removed, changed: dryRun.diff.changed },
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
    predictions: run.state.predictions,
    window: {
      start: request.windowStart ?? null,
      end: request.windowEnd ?? null,
      length: profile.window.length,
    },
    recovery: {
      rollback: automatic ? 'automatic' : profile.recovery.rollback === 'never' ? 'never' : 'ask',
      downgrade: graph.downgrade.kind === 'planned' ? graph.downgrade.commands : null,
      restore: 'by decision',
      restoreLoses: LOSSES[profile.fence.kind],
    },
    checks: [...profile.checks.smoke, ...profile.checks.smokeWrites].map(({ name }) => name),
    approvals: { required: profile.approvals.required, approvers: profile.approvals.approvers },
    warnings: warningsOf(run, graph, dryRun),
    tools: { ...tools.programs, alembic: tools.alembic, sqlalchemy: tools.sqlalchemy },
  };
}

const LOSSES: Record<MigrationPlan['fence'], string> = {
  none: 'whatever is written to production after the backup: there is no fence, production stays writable',
  'read-only': 'nothing until the fence is lifted, before the smoke tests that write; from then on what is written',
  maintenance:
    'nothing while the maintenance mode is on; from its end on, before the smoke tests that write, what is written',
};

const warningsOf = (run: MigrationRun, graph: GraphEvidence, { staging }: DryRun): readonly string[] => [
  ...(run.profile.fence.kind === 'none' ? ['no fence: what is written after the backup can be lost by a restore'] : []),
  ...(run.profile.restore.capacity.kind === 'waiver'
    ? [`room for a second copy was not measured: ${run.profile.restore.capacity.reason}`]
    : []),
  ...graph.risks,
  ...(graph.downgrade.kind === 'impossible' ? [`no rollback by downgrade: ${graph.downgrade.why}`] : []),
  ...(!staging.nothingToDo && staging.before.join() !== graph.startRevisions.join()
    ? [
        `staging began at ${staging.before.join(', ') || 'no revision'}, production stands at ${graph.startRevisions.join(', ') || 'no revision'}: the dry run was another upgrade`,
      ]
    : []),
  ...(staging.nothingToDo ? ['staging stood at the target already: the dry run upgraded nothing'] : []),
];

async function awaitApprovals(run: MigrationRun, sealed: SealedPlan): Promise<void> {
  const { approvals } = run.profile;
  const until = Math.min(
    Date.now() + approvals.timeout,
    run.state.windowEnd === undefined ? Number.POSITIVE_INFINITY : Date.parse(run.state.windowEnd),
  );
  run.open(
    {
      gate: 'production',
      planDigest: sealed.digest,
      requestedBy: run.request.requestedBy,
      required: approvals.required,
      approvers: approvals.approvers,
      approvedBy: [],
      until,
    },
    {
      for: 'approval',
      gate: 'production',
      planDigest: sealed.digest,
      missing: approvals.required,
      approvedBy: [],
      until: new Date(until).toISOString(),
    },
  );
  let announce: (() => Promise<void>) | undefined = async () => {
    await tell(run, 'gate.production/notify', approvals.notify, gateMessage(run, sealed, 'gate-opened', until));
  };
  const remind = async (): Promise<void> => {
    await tell(run, 'gate.production/remind', approvals.notify, gateMessage(run, sealed, 'gate-reminder', until));
  };
  for (let approved = 0; approved < approvals.required; ) {
    const ruling = await nextRuling(run, {
      until,
      remindEvery: approvals.remindEvery,
      remind,
      ...(announce && { announce }),
    });
    announce = undefined;
    if (ruling === 'timed-out') {
      run.close();
      throw new StoppedAtGate({
        kind: 'no-approval',
        message: `${approved} of ${approvals.required} approvals by ${new Date(until).toISOString()}`,
      });
    }
    if (ruling.kind === 'rejected') {
      run.close();
      throw new StoppedAtGate({ kind: 'rejected', by: ruling.by, reason: ruling.reason });
    }
    if (ruling.kind === 'approved') approved += 1;
  }
  run.close();
}

function gateMessage(
  run: MigrationRun,
  { plan, digest, uri }: SealedPlan,
  kind: 'gate-opened' | 'gate-reminder',
  until: number,
): Announcement {
  const short = digest.slice(0, DIGEST_PREFIX);
  const approve = messageCommands(plan.service, 'approve', { by: 'you@example.com', planDigest: digest });
  const reject = messageCommands(plan.service, 'reject', { by: 'you@example.com', reason: 'why' });
  const backup = run.state.latestBackup;
  const text = [
    `${plan.requestedBy} asks to migrate ${plan.service} to ${plan.releaseTag} (${plan.changeTicket}).`,
    `Revisions: ${plan.startRevisions.join(', ') || 'none'} -> ${plan.targetRevision} (${plan.revisions.length}).`,
    `Way back: ${wayBack(plan)}`,
    `A restore loses: ${plan.recovery.restoreLoses}.`,
    `Predicted: backup ${seconds(plan.predictions.backup)}, restore ${seconds(plan.predictions.restore)} (by the last ${plan.predictions.restoreFrom}).`,
    ...plan.warnings.map((warning) => `Warning: ${warning}`),
    `Backup: ${backup ? `${backup.uri}, ${backup.capturedAt}` : 'none'}`,
    `Plan: ${uri}, digest ${digest}`,
    `Needed: ${plan.approvals.required} approval(s), not by the requester, until ${new Date(until).toISOString()}.`,
    `Approve: ${approve.runbook}`,
    `     or: ${approve.temporal}`,
    `     or: ${approve.tctl}`,
    `Reject:  ${reject.runbook}`,
  ].join('\n');
  return {
    kind,
    title: `${kind === 'gate-opened' ? 'Approval needed' : 'Reminder: approval needed'}: ${plan.service} ${plan.releaseTag} (plan ${short})`,
    text,
    facts: {
      service: plan.service,
      releaseTag: plan.releaseTag,
      changeTicket: plan.changeTicket,
      planDigest: digest,
      plan: uri,
      until: new Date(until).toISOString(),
      commands: { runbook: approve.runbook, temporal: approve.temporal, tctl: approve.tctl },
    },
  };
}

const seconds = (milliseconds: number): string => `${Math.ceil(milliseconds / 1000)} s`;

const wayBack = (plan: MigrationPlan): string =>
  plan.recovery.downgrade
    ? `alembic downgrade ${plan.recovery.downgrade.join('; ')} (${plan.recovery.rollback}), or restore by decision`
    : 'restore by decision only';
