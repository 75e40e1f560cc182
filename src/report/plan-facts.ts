import type { MigrationPlan } from '../contract/plan.ts';
import { durationText, timeText } from './quantity.ts';

/** The plan in lines of a name and a text, the same in every form of the report. */
export function planFacts(plan: MigrationPlan): readonly (readonly [string, string])[] {
  const { recovery, window, approvals } = plan;
  return [
    ['Revisions', `${plan.startRevisions.join(', ') || 'none'} to ${plan.targetRevision}`],
    [
      'Window',
      window.start !== null && window.end !== null
        ? `${timeText(window.start)} to ${timeText(window.end)}`
        : `from the approval on, ${durationText(window.length)}`,
    ],
    [
      'Way back',
      recovery.downgrade
        ? `alembic downgrade ${recovery.downgrade.join('; ')} (${recovery.rollback}), restore ${recovery.restore}`
        : `restore ${recovery.restore}; no downgrade`,
    ],
    ['A restore loses', recovery.restoreLoses],
    [
      'Predicted',
      `backup ${durationText(plan.predictions.backup)}, restore ${durationText(plan.predictions.restore)} (by the last ${plan.predictions.restoreFrom})`,
    ],
    ['Fence', plan.fence === 'none' ? 'none: production stays writable' : plan.fence],
    [
      'Faster ways back',
      [plan.recoveryPoint.restorePoint ? 'restore point' : '', plan.recoveryPoint.snapshot ? 'snapshot' : '']
        .filter((text) => text !== '')
        .join(', ') || 'none',
    ],
    ['Room for a second copy', plan.capacity],
    [
      'Backup policy',
      `encrypted into ${plan.backupPolicy.bucket}, at most ${durationText(plan.backupPolicy.maximumAge)} old`,
    ],
    ['Checks', plan.checks.join(', ') || 'none'],
    [
      'Approvals',
      `${approvals.required} of ${approvals.approvers.length > 0 ? approvals.approvers.join(', ') : 'anybody but the requester'}`,
    ],
    ['Database', `${plan.production.database} (system identifier ${plan.production.systemIdentifier})`],
    [
      'Tools',
      Object.entries(plan.tools)
        .map(([program, version]) => `${program} ${version}`)
        .join(', ') || 'none',
    ],
  ];
}

/** Objects that the migration adds, removes and changes, as the dry run showed it. */
export const schemaChanges = (plan: MigrationPlan): readonly string[] =>
  (['added', 'removed', 'changed'] as const).flatMap((kind) =>
    plan.schemaChange[kind].map((name) => `${kind}: ${name}`),
  );
