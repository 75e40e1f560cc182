/** What a profile says, in lines of a name and a text: for whoever reads it before a run does. Pure. */
import type { Action, ApprovalProfile, Profile } from '../contract/profile.ts';
import { durationText, sizeText } from '../report/quantity.ts';

/** Names of databases as far as their addresses could be read on this machine; never the addresses. */
export interface DatabaseNames {
  readonly production?: string;
  readonly staging?: string;
}

export type ProfileFact = readonly [name: string, text: string];

export function profileFacts(profile: Profile, names: DatabaseNames): readonly ProfileFact[] {
  const { service, description, approvals, qa, window, recovery, guard } = profile;
  return [
    ['service', description === '' ? service : `${service}: ${description}`],
    ['release', releaseText(profile)],
    ['databases', databasesText(profile, names)],
    ['backup', backupText(profile)],
    ['fence', fenceText(profile)],
    ['rehearsal', rehearsalText(profile)],
    [
      'gates',
      [
        `production: ${approvalText(approvals)}`,
        `qa: ${qa.required ? `within ${durationText(qa.timeout)}, then ${qa.onTimeout === 'keep' ? 'kept' : 'a person decides'}` : 'not asked for'}`,
        `recovery: reminders every ${durationText(recovery.remindEvery)}, ${recovery.escalate.length === 0 ? 'told to nobody else' : `from the second on also by ${actionsText(recovery.escalate)}`}`,
      ].join('; '),
    ],
    ['window', `${durationText(window.length)} from the approval on, where the request names none`],
    [
      'guard',
      `locks waited for ${durationText(guard.lockTimeout)} (concurrent ones ${durationText(guard.concurrentLockTimeout)}), ${guard.tries} tries; blockers ${guard.endBlockersAfter === 'never' ? 'are never ended' : `are ended after ${durationText(guard.endBlockersAfter)}`}`,
    ],
    [
      'recovery',
      `rollback ${recovery.rollback}, restore ${recovery.restore}${recovery.restore === 'automatic' ? ' as long as it takes back nothing' : ''}; a replaced database is kept ${durationText(profile.restore.quarantine)}; room for it ${profile.restore.capacity.kind === 'waiver' ? `waived: ${profile.restore.capacity.reason}` : 'is measured by a command'}`,
    ],
    ['switches', listed(profile.switches.map(({ name, kind }) => `${name} (${kind})`))],
    [
      'checks',
      `smoke: ${listed(profile.checks.smoke.map(({ name }) => name))}; that write: ${listed(profile.checks.smokeWrites.map(({ name }) => name))}; monitoring: ${listed(profile.monitoring.measures.map(({ name }) => name))}`,
    ],
    ...(profile.steps.length === 0
      ? []
      : [['own steps', listed(profile.steps.map(({ id, section }) => `${section}.${id}`))] as const]),
    [
      'told',
      `announce by ${actionsText(profile.announce)}; ticket by ${actionsText(profile.ticket)}; approvers by ${actionsText(approvals.notify)}; stakeholders by ${actionsText(profile.stakeholders)}`,
    ],
  ];
}

function rehearsalText({ application, rehearsal }: Profile): string {
  const deployed = application.deployed
    ? `the deployed release is tried on the upgraded copy${application.deployed.required ? '' : ' (a failure is a warning only)'}`
    : 'the deployed release is not tried: application.deployed does not tell it';
  return `holds ${durationText(rehearsal.maximumAge)} and until production has grown by ${Math.round(rehearsal.maximumGrowth * 100)} %; ${deployed}`;
}

function releaseText({ repository, review }: Profile): string {
  const { source } = review;
  const from =
    source.kind === 'github'
      ? `GitHub, ${source.repository}`
      : source.kind === 'gitlab'
        ? `GitLab, ${source.project}`
        : `the command ${source.action.command[0] ?? ''}`;
  return `from ${repository.url}; review by ${from}, ${review.minimumReviewers} reviewer(s) at least`;
}

function databasesText({ databases }: Profile, { production, staging }: DatabaseNames): string {
  const { standbys, tls } = databases.production;
  return [
    `production ${production ?? '(name not known here)'}${tls === 'allow' ? ', TLS not demanded' : ''}`,
    `standbys ${listed(standbys.map(({ name }) => name))}`,
    `staging ${staging ?? '(name not known here)'}`,
    'rehearsed on the scratch server',
  ].join('; ');
}

function backupText({ backup }: Profile): string {
  const { bucket, prefix, recipients, maximumAge, sampleAbove, objectLock } = backup;
  return [
    `s3://${bucket}/${prefix === '' ? '' : `${prefix}/`}, encrypted for ${recipients.length} age recipient(s)`,
    `taken anew after ${durationText(maximumAge)}`,
    `tables above ${sizeText(sampleAbove)} checksummed by a sample`,
    ...(objectLock ? [`object lock ${objectLock.mode} for ${durationText(objectLock.retention)}`] : []),
  ].join('; ');
}

function fenceText({ fence }: Profile): string {
  switch (fence.kind) {
    case 'none':
      return 'none: what is written after the backup can be lost';
    case 'read-only':
      return 'read-only for everybody but the migration';
    case 'maintenance':
      return 'the maintenance mode of the service';
  }
}

function approvalText({ required, approvers, timeout, remindEvery, signatures, signers }: ApprovalProfile): string {
  const who = approvers.length === 0 ? 'anybody but the requester' : approvers.join(', ');
  const signed =
    signatures === 'required'
      ? 'signed (SSH)'
      : signers.length > 0
        ? 'signed by whoever wants to (SSH)'
        : 'not signed: there are no signers';
  return `${required} approval(s) of ${who}, ${signed}, within ${durationText(timeout)}, reminders every ${durationText(remindEvery)}`;
}

/** Kinds only: an address may be a secret, and a command's words are for the file. */
const actionsText = (actions: readonly Action[]): string =>
  listed(
    actions.map((action) =>
      action.kind === 'command' ? (action.command[0] ?? '') : action.kind === 'http' ? 'HTTP' : `file ${action.path}`,
    ),
  );

const listed = (names: readonly string[]): string => (names.length === 0 ? 'none' : names.join(', '));
