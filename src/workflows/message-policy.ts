/**
 * The table of design "Contract with people": which message is acted on, noted or refused at which stage. Pure, so every
 * cell of the table is a unit test.
 */
import {
  type GateName,
  type Message,
  type RecoveryAction,
  samePerson,
  SIGNATURE_NAMESPACE,
} from '../contract/messages.ts';
import { DIGEST_PREFIX, digestMatches } from '../contract/plan.ts';
import type { Stage } from '../contract/status.ts';

/** The gate that is open, with what it needs to judge a message. */
export type OpenGate =
  | {
      readonly gate: 'production';
      readonly planDigest: string;
      readonly requestedBy: string;
      readonly required: number;
      /** Empty: anybody but the requester. */
      readonly approvers: readonly string[];
      readonly signatures: 'optional' | 'required';
      readonly approvedBy: readonly string[];
      /** Milliseconds since the epoch; a message that comes later meets no gate. */
      readonly until?: number;
    }
  | { readonly gate: 'qa'; readonly planDigest: string; readonly until?: number }
  | { readonly gate: 'recovery'; readonly actions: readonly RecoveryAction[]; readonly until?: undefined };

export type Ruling =
  | {
      readonly kind: 'approved';
      readonly gate: 'production' | 'qa';
      readonly by: string;
      readonly comment: string | undefined;
    }
  | { readonly kind: 'rejected'; readonly gate: 'production' | 'qa'; readonly by: string; readonly reason: string }
  | { readonly kind: 'abort'; readonly by: string; readonly reason: string }
  | { readonly kind: 'recover'; readonly by: string; readonly action: RecoveryAction; readonly reason: string }
  /** Recorded, not acted on. */
  | { readonly kind: 'noted'; readonly by: string; readonly why: string }
  | { readonly kind: 'refused'; readonly by: string; readonly why: string };

export function rule(stage: Stage, open: OpenGate | undefined, message: Message): Ruling {
  switch (message.name) {
    case 'approve':
      return ruleApproval(open, message);
    case 'reject':
      return ruleRejection(open, message);
    case 'abort':
      return ruleAbort(stage, message);
    case 'recover':
      return ruleRecovery(open, message);
  }
}

function ruleApproval(open: OpenGate | undefined, message: Extract<Message, { name: 'approve' }>): Ruling {
  const refused = (why: string): Ruling => ({ kind: 'refused', by: message.by, why });
  if (!open || open.gate === 'recovery') return refused(noGate(open, 'approve'));
  if (isOtherGate(open.gate, message.gate)) return refused(otherGate(open.gate, message.gate));
  const digest = message.planDigest;
  if (digest !== undefined && !digestMatches(open.planDigest, digest)) {
    return refused(
      digest.length < DIGEST_PREFIX
        ? `"planDigest" needs at least ${DIGEST_PREFIX} digits`
        : `the plan to be approved is ${open.planDigest.slice(0, DIGEST_PREFIX)}, not ${digest.slice(0, DIGEST_PREFIX)}: read the plan of now and approve that`,
    );
  }
  if (open.gate === 'production') {
    if (digest === undefined) return refused('"planDigest" is missing: an approval names the plan it is given to');
    if (samePerson(message.by, open.requestedBy))
      return refused(`${message.by} requested this run and cannot approve it`);
    if (open.approvers.length > 0 && !open.approvers.some((name) => samePerson(name, message.by))) {
      return refused(`${message.by} is not among the approvers of this service`);
    }
    if (open.approvedBy.some((name) => samePerson(name, message.by))) {
      return refused(`${message.by} has approved already; ${open.required} different people are needed`);
    }
    if (open.signatures === 'required' && message.signature === undefined) {
      return refused(
        `approvals of this service are signed: runbook approve ... --sign ~/.ssh/id_ed25519, or ssh-keygen -Y sign -n ${SIGNATURE_NAMESPACE} over the whole digest`,
      );
    }
  }
  return { kind: 'approved', gate: open.gate, by: message.by, comment: message.comment };
}

function ruleRejection(open: OpenGate | undefined, message: Extract<Message, { name: 'reject' }>): Ruling {
  if (!open || open.gate === 'recovery') return { kind: 'refused', by: message.by, why: noGate(open, 'reject') };
  if (isOtherGate(open.gate, message.gate))
    return { kind: 'refused', by: message.by, why: otherGate(open.gate, message.gate) };
  return { kind: 'rejected', gate: open.gate, by: message.by, reason: message.reason };
}

function ruleAbort(stage: Stage, message: Extract<Message, { name: 'abort' }>): Ruling {
  const { by, reason } = message;
  switch (stage) {
    case 'before-upgrade':
    case 'upgrade':
    case 'validation':
      return { kind: 'abort', by, reason };
    case 'gate-recovery':
    case 'recovery':
      return { kind: 'noted', by, why: 'the run is undoing already; undoing cannot be cancelled' };
    case 'closeout':
    case 'ended':
      return { kind: 'noted', by, why: 'the run is closing out; nothing is left to abort' };
  }
}

function ruleRecovery(open: OpenGate | undefined, message: Extract<Message, { name: 'recover' }>): Ruling {
  const { by, action, reason } = message;
  if (open?.gate !== 'recovery') return { kind: 'refused', by, why: 'the gate recovery is not open' };
  if (!open.actions.includes(action)) {
    return { kind: 'refused', by, why: `"${action}" is not possible now; possible: ${open.actions.join(', ')}` };
  }
  return { kind: 'recover', by, action, reason };
}

const isOtherGate = (open: GateName, named: GateName | undefined): boolean => named !== undefined && named !== open;

const otherGate = (open: GateName, named: GateName | undefined): string =>
  `the open gate is ${open}, not ${named ?? ''}`;

const noGate = (open: OpenGate | undefined, name: string): string =>
  open
    ? `at the gate recovery a person sends "recover", not "${name}"`
    : `no gate is open that could be decided by "${name}"`;
