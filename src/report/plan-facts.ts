import type { MigrationPlan } from '../contract/plan.ts';
import { predictionText, verdictText } from '../contract/rehearsal-text.ts';
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
      `${recovery.offered} first: ${recovery.why}${recovery.downgrade ? `; alembic downgrade ${recovery.downgrade.join('; ')} (${recovery.rollback})` : ''}; restore ${recovery.restore}`,
    ],
    ...(recovery.rollbackLoses.length > 0
      ? [['A rollback loses or leaves', recovery.rollbackLoses.join('; ')] as const]
      : []),
    ['A restore loses', recovery.restoreLoses],
    ['Rehearsed', rehearsalFact(plan)],
    ['Predicted', predictionText(plan.predictions)],
    [
      'Locks',
      plan.rehearsal.locks
        .slice(0, 20)
        .map(({ relation, mode, milliseconds }) => `${relation} ${mode} ${durationText(milliseconds)}`)
        .join('; ') || 'none that keep somebody out',
    ],
    ['Rewritten', plan.rehearsal.rewrites.map(({ relation }) => relation).join(', ') || 'nothing'],
    [
      'Time limits',
      `lock ${durationText(plan.guard.lockTimeout)}, concurrent ${durationText(plan.guard.concurrentLockTimeout)}, ${plan.guard.tries} tries; ${plan.guard.keptBy}`,
    ],
    ...(plan.findings.length > 0
      ? [
          [
            'Linter',
            plan.findings.map(({ rule, revision }) => (revision === null ? rule : `${rule} in ${revision}`)).join('; '),
          ] as const,
        ]
      : []),
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
      'Thresholds',
      (plan.thresholds ?? [])
        .map(({ name, ratio, absolute }) => `${name}: at most ${ratio} times what it was before, plus ${absolute}`)
        .join('; ') || 'none',
    ],
    [
      'Approvals',
      `${approvals.required}${approvals.signatures === 'required' ? ' signed' : ''} of ${approvals.approvers.length > 0 ? approvals.approvers.join(', ') : 'anybody but the requester'}`,
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

const rehearsalFact = ({ rehearsal }: MigrationPlan): string =>
  `${timeText(rehearsal.at)} on ${rehearsal.backup.uri} (LSN ${rehearsal.backup.lsn}): ${verdictText(rehearsal.verdict)}; deployed release ${rehearsal.deployedRelease ?? ''} ${rehearsal.deployed}; valid until ${timeText(rehearsal.expiresAt)}`;

/** Objects that the migration adds, removes and changes, as the rehearsal showed it. */
export const schemaChanges = (plan: MigrationPlan): readonly string[] =>
  (['added', 'removed', 'changed'] as const).flatMap((kind) =>
    plan.schemaChange[kind].map((name) => `${kind}: ${name}`),
  );
