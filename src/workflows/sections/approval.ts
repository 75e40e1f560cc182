/** Between sections 4 and 5 of the document: people read the plan and decide. */
import type { Announcement } from '../../contract/evidence/actions.ts';
import { approveCommands, messageCommands } from '../../contract/commands.ts';
import { DIGEST_PREFIX, type MigrationPlan, type SealedPlan } from '../../contract/plan.ts';
import { predictionText, verdictText } from '../../contract/rehearsal-text.ts';
import { nextRuling } from '../gate.ts';
import { takeLease } from '../lease.ts';
import { composePlan, type Reviewed } from '../plan.ts';
import { StoppedAtGate } from '../failure.ts';
import type { MigrationRun } from '../run.ts';
import { LOOK } from '../step-policies.ts';
import { tell } from '../telling.ts';

/**
 * @returns `expired` when the rehearsal ceased to hold before enough people had approved
 * @throws StoppedAtGate on rejection or when nobody approves in time
 */
export async function productionGate(run: MigrationRun, reviewed: Reviewed): Promise<'approved' | 'expired'> {
  for (;;) {
    const sealed = await sealPlan(run, reviewed);
    if ((await awaitApprovals(run, sealed)) === 'expired') return 'expired';
    const identity = await run.step(
      'gate.production/run',
      'This execution is the one the plan was made for',
      LOOK,
      (activities) => activities.identifyRun(),
    );
    if (identity.currentRunId === sealed.plan.runId) return 'approved';
    // A reset of the workflow copies the history, approvals included, into another execution: ask again there.
    run.refuse(
      'approve',
      'the workflow was reset: approvals given to the earlier execution are void, the plan was made anew',
    );
    await takeLease(run, reviewed.access.production);
  }
}

async function sealPlan(run: MigrationRun, reviewed: Reviewed): Promise<SealedPlan> {
  run.state.openings += 1;
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

async function awaitApprovals(run: MigrationRun, sealed: SealedPlan): Promise<'approved' | 'expired'> {
  const { approvals } = run.profile;
  run.state.approvalsUntil ??= Date.now() + approvals.timeout;
  const noAnswer = Math.min(
    run.state.approvalsUntil,
    run.state.windowEnd === undefined ? Number.POSITIVE_INFINITY : Date.parse(run.state.windowEnd),
  );
  // An approval of what does not hold any more would be answered "counted", and be void.
  const until = Math.min(noAnswer, Date.parse(sealed.plan.rehearsal.expiresAt));
  run.open(
    {
      gate: 'production',
      planDigest: sealed.digest,
      requestedBy: run.request.requestedBy,
      required: approvals.required,
      approvers: approvals.approvers,
      signatures: approvals.signatures,
      approvedBy: [],
      until,
    },
    {
      for: 'approval',
      gate: 'production',
      planDigest: sealed.digest,
      signatures: approvals.signatures,
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
      if (until < noAnswer) return 'expired';
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
  return 'approved';
}

function gateMessage(
  run: MigrationRun,
  { plan, digest, uri }: SealedPlan,
  kind: 'gate-opened' | 'gate-reminder',
  until: number,
): Announcement {
  const short = digest.slice(0, DIGEST_PREFIX);
  const approve = approveCommands(plan.service, digest, plan.approvals.signatures);
  const reject = messageCommands(plan.service, 'reject', { by: 'you@example.com', reason: 'why' });
  const backup = run.state.latestBackup;
  const text = [
    `${plan.requestedBy} asks to migrate ${plan.service} to ${plan.releaseTag} (${plan.changeTicket}).`,
    `Revisions: ${plan.startRevisions.join(', ') || 'none'} -> ${plan.targetRevision} (${plan.revisions.length}).`,
    `Way back: ${wayBack(plan)}`,
    `A restore loses: ${plan.recovery.restoreLoses}.`,
    `Rehearsed ${plan.rehearsal.at} on the backup ${plan.rehearsal.backup.uri}: ${verdictText(plan.rehearsal.verdict)}; valid until ${plan.rehearsal.expiresAt}.`,
    `Predicted by it: ${predictionText(plan.predictions)}.`,
    ...plan.warnings.map((warning) => `Warning: ${warning}`),
    ...plan.findings
      .slice(0, 10)
      .map(({ rule, revision, message }) => `Linter: ${rule}${revision === null ? '' : ` in ${revision}`}: ${message}`),
    `Backup: ${backup ? `${backup.uri}, ${backup.capturedAt}` : 'none'}`,
    `Plan: ${uri}, digest ${digest}`,
    `Needed: ${plan.approvals.required} ${plan.approvals.signatures === 'required' ? 'signed ' : ''}approval(s), not by the requester, until ${new Date(until).toISOString()}.`,
    `Approve: ${Object.values(approve).join('\n     or: ')}`,
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
      commands: { ...approve },
    },
  };
}

const wayBack = ({ recovery }: MigrationPlan): string =>
  recovery.downgrade
    ? `${recovery.offered} first (${recovery.why}); alembic downgrade ${recovery.downgrade.join('; ')} (${recovery.rollback}), restore ${recovery.restore}`
    : `restore ${recovery.restore} only: ${recovery.why}`;
