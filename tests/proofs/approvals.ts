/** An approval counts once: by somebody who may give it, for the plan of now, signed over it; everything else is refused. */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type WorkflowHandle, WorkflowUpdateFailedError } from '@temporalio/client';
import type { ProofCase } from '../../scripts/proof.ts';
import { atGate, endOf, startMigration, until } from '../../scripts/scenarios/driving.ts';
import { writeProfile } from '../../scripts/scenarios/profile.ts';
import { compareWithReality, type Picture, takePicture } from '../../scripts/scenarios/reality.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { sha256 } from '../../src/archive/canonical.ts';
import type { SealedPlan } from '../../src/contract/plan.ts';
import type { RunStatus, StepRecord } from '../../src/contract/status.ts';
import { createSshKey, signText, type SshKey } from '../ssh-keys.ts';

export const sentence =
  'stale, by the requester, twice, badly signed, too late, replayed by a reset: refused, and sender and status say why';

const RELEASE = 'v1.1.0';
const [DANA, ERIN, FRANK, GINA] = ['dana', 'erin', 'frank', 'gina'].map((name) => `${name}@example.com`) as [
  string,
  string,
  string,
  string,
];

interface Keys {
  readonly erin: SshKey;
  readonly frank: SshKey;
  readonly dana: SshKey;
  readonly stranger: SshKey;
}

interface Approval {
  readonly by: string;
  readonly planDigest: string;
  readonly signature?: string;
}

export const run = (say: (line: string) => void): Promise<readonly ProofCase[]> =>
  withSession({ name: 'proof-approvals', say }, async (session) => {
    const folder = await mkdtemp(path.join(tmpdir(), 'proof-approvals-'));
    try {
      const [erin, frank, dana, stranger] = await Promise.all(
        ['erin', 'frank', 'dana', 'stranger'].map((name) => createSshKey(folder, name)),
      );
      const keys: Keys = { erin: erin!, frank: frank!, dana: dana!, stranger: stranger! };
      // What an execution that was reset had switched, a person looks after before the next run: it comes last.
      const late = await afterItsTime(session, keys, say);
      return [...(await atTheGate(session, keys, say)), ...late];
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

/** Two signed approvals by named people are needed, and the requester is among those people. */
const policy = ({ erin, frank, dana }: Keys, timeout: string) => ({
  approvals: {
    required: 2,
    timeout,
    approvers: [DANA, ERIN, FRANK],
    signatures: 'required' as const,
    signers: [
      { name: DANA, key: dana.key },
      { name: ERIN, key: erin.key },
      { name: FRANK, key: frank.key },
    ],
  },
});

async function atTheGate(session: Session, keys: Keys, say: (line: string) => void): Promise<ProofCase[]> {
  await writeProfile(session.example, policy(keys, '15m'));
  const before = await takePicture(session.example);
  const handle = await startMigration(session, { releaseTag: RELEASE, requestedBy: DANA });
  say('waiting for the gate production');
  await until(handle, atGate('approval'));
  await approversTold(handle);
  const resetPoint = await lastTaskCompleted(handle);
  const digest = await digestOf(handle);
  const cases: ProofCase[] = [];
  const refused = async (name: string, approval: Approval, why: RegExp): Promise<void> => {
    cases.push(await refusal(handle, name, approval, why));
    say(`${name}: ${cases.at(-1)?.detail ?? ''}`);
  };

  const stale = sha256('the plan of yesterday');
  const good = { by: ERIN, planDigest: digest, signature: await signText(keys.erin, digest) };
  await refused(
    'stale digest',
    { ...good, planDigest: stale, signature: await signText(keys.erin, stale) },
    /read the plan of now/,
  );
  await refused('fewer than 12 digits', { ...good, planDigest: digest.slice(0, 11) }, /at least 12 digits/);
  await refused(
    'by the requester, otherwise spelled',
    { by: ' Dana@EXAMPLE.com', planDigest: digest, signature: await signText(keys.dana, digest) },
    /requested this run/,
  );
  await refused('by somebody who may not', { ...good, by: GINA }, /not among the approvers/);
  await refused('without a signature', { by: ERIN, planDigest: digest }, /are signed/);
  await refused('an empty signature', { ...good, signature: '' }, /no SSH signature|are signed/);
  await refused('garbage for a signature', { ...good, signature: 'approved!' }, /no SSH signature/);
  await refused(
    'signed with a key nobody knows',
    { ...good, signature: await signText(keys.stranger, digest) },
    /does not know \(SHA256:/,
  );
  await refused(
    'signed with somebody else’s key',
    { ...good, signature: await signText(keys.frank, digest) },
    /key of frank@example\.com, not of erin@example\.com/,
  );
  await refused(
    'signed over another digest',
    { ...good, signature: await signText(keys.erin, stale) },
    /not over this plan/,
  );
  await refused(
    'signed for another purpose',
    { ...good, signature: await signText(keys.erin, digest, 'git') },
    /namespace "git"/,
  );
  await refused('signature cut short', { ...good, signature: damaged(good.signature) }, /damaged|not over this plan/);

  cases.push(await refusedSignal(handle, { by: ERIN, planDigest: digest, signature: 'approved!' }, /no SSH signature/));
  cases.push(await counted(handle, 'a good signature counts', good, 1));
  await refused(
    'twice by one person, otherwise spelled',
    { ...good, by: 'ERIN@example.com' },
    /has approved already; 2 different people/,
  );

  say('resetting the workflow to the moment before the first approval');
  cases.push(...(await afterReset(session, handle, keys, resetPoint, good, say)));
  cases.push(await undone(session, handle, before));
  return cases;
}

/** The server itself replays what came after the point: approvals of before must not let the new execution pass. */
async function afterReset(
  session: Session,
  handle: WorkflowHandle,
  keys: Keys,
  resetPoint: number,
  earlier: Approval & { readonly signature: string },
  say: (line: string) => void,
): Promise<ProofCase[]> {
  const { client, temporal } = session;
  const { runId: first } = await handle.describe();
  await client.workflowService.resetWorkflowExecution({
    namespace: temporal.namespace,
    workflowExecution: { workflowId: handle.workflowId, runId: first },
    reason: 'proof approvals',
    requestId: randomUUID(),
    workflowTaskFinishEventId: resetPoint as never,
  });
  const replayed = await until(handle, (status) => isWaiting(status) && status.waiting.approvedBy.length === 1);
  const { runId: second } = await handle.describe();
  // The one that was replayed and this one are all that the earlier plan asked for.
  await handle
    .executeUpdate('approve', {
      args: [
        { by: FRANK, planDigest: earlier.planDigest, signature: await signText(keys.frank, earlier.planDigest) },
      ] as never,
    })
    .catch(() => undefined);
  const anew = await until(handle, (status) => isWaiting(status) && status.waiting.planDigest !== earlier.planDigest);
  const { plan } = await handle.query<SealedPlan>('plan');
  const said = anew.refusals.last.find(({ why }) => /workflow was reset/.test(why));
  const cases: ProofCase[] = [
    {
      name: 'replayed by a reset: void',
      passed:
        first !== second &&
        replayed !== undefined &&
        said !== undefined &&
        isWaiting(anew) &&
        anew.waiting.missing === 2,
      detail: said === undefined ? 'status does not say why' : `status: ${said.why}`,
    },
    {
      name: 'the gate opens anew, with another plan',
      passed: plan.opening === 2 && plan.runId === second,
      detail: `opening ${plan.opening}, plan of run ${plan.runId}`,
    },
    await refusal(handle, 'approval of the opening before, sent again', earlier, /read the plan of now/),
    await refusal(
      handle,
      'old signature under the new digest',
      { ...earlier, planDigest: await digestOf(handle) },
      /not over this plan/,
    ),
  ];
  const digest = await digestOf(handle);
  for (const [by, key, missing] of [
    [ERIN, keys.erin, 1],
    [FRANK, keys.frank, 0],
  ] as const) {
    const approval = { by, planDigest: digest.slice(0, 12), signature: await signText(key, digest) };
    cases.push(await counted(handle, `signed anew by ${by}`, approval, missing));
  }
  say('the gate has let it pass');
  return cases;
}

/** The run is stopped where it stands; what happened to production is compared with what it says of itself. */
async function undone(session: Session, handle: WorkflowHandle, before: Picture): Promise<ProofCase> {
  await handle.signal('abort', { by: ERIN, reason: 'the proof is done' });
  // Another execution than the one that was started: the handle of that would tell its end only.
  const { outcome } = await endOf(session.client.workflow.getHandle(handle.workflowId));
  const findings = await compareWithReality(session.example, {
    outcome,
    before,
    loaded: before,
    targetRevision: (await handle.query<SealedPlan>('plan')).plan.targetRevision,
  });
  return {
    name: 'the run goes on with them, and can be stopped',
    passed: findings.length === 0 && (outcome === 'aborted' || outcome === 'rolled-back'),
    detail: findings.length === 0 ? `ended ${outcome}, production as before` : findings.slice(0, 3).join('; '),
  };
}

/** The gate closes by the clock, even where nobody looked when it did. */
async function afterItsTime(session: Session, keys: Keys, say: (line: string) => void): Promise<ProofCase[]> {
  await writeProfile(session.example, policy(keys, '8s'));
  const before = await takePicture(session.example);
  const handle = await startMigration(session, { releaseTag: RELEASE, requestedBy: DANA });
  say('waiting for the gate production, which closes after 8 s');
  const { waiting } = await until(handle, atGate('approval'));
  const digest = waiting?.for === 'approval' ? waiting.planDigest : '';
  const closes = waiting?.for === 'approval' ? Date.parse(waiting.until) : 0;
  const { pid } = session.worker.server;
  // Both messages and the end of the time come to a worker that was away.
  process.kill(pid, 'SIGSTOP');
  const late = { by: ERIN, planDigest: digest, signature: await signText(keys.erin, digest) };
  await delay(Math.max(0, closes - Date.now()) + 1_000);
  await handle.signal('approve', { ...late, by: FRANK, signature: await signText(keys.frank, digest) });
  const sender = refusalOf(handle, late);
  await delay(500);
  process.kill(pid, 'SIGCONT');
  const told = await sender;
  const { outcome } = await endOf(handle);
  const status = await handle.query<RunStatus>('status');
  const shown = status.refusals.last.filter(({ message, why }) => message === 'approve' && /no gate is open/.test(why));
  const findings = await compareWithReality(session.example, { outcome, before, loaded: before, targetRevision: '' });
  return [
    {
      name: 'after expiry',
      passed: /no gate is open/.test(told) && shown.length === 2,
      detail: `the sender sees: ${told}; status shows ${shown.length} of 2`,
    },
    {
      name: 'nobody approved in time',
      passed: outcome === 'aborted' && status.openObligations === 0 && findings.length === 0,
      detail: findings.length === 0 ? `ended ${outcome}: ${status.trouble ?? ''}` : findings.slice(0, 3).join('; '),
    },
  ];
}

/** Refused to the sender of an update, and in `status`, with the same reason; and the gate is as it was. */
async function refusal(handle: WorkflowHandle, name: string, approval: Approval, why: RegExp): Promise<ProofCase> {
  const before = await handle.query<RunStatus>('status');
  const told = await refusalOf(handle, approval);
  const after = await handle.query<RunStatus>('status');
  const shown = after.refusals.last.at(-1);
  const isSame =
    isWaiting(before) &&
    isWaiting(after) &&
    after.waiting.planDigest === before.waiting.planDigest &&
    after.waiting.missing === before.waiting.missing;
  return {
    name,
    passed: why.test(told) && shown?.why === told && after.refusals.count === before.refusals.count + 1 && isSame,
    detail: shown?.why === told ? told : `the sender sees: ${told}; status: ${shown?.why ?? 'nothing'}`,
  };
}

async function refusedSignal(handle: WorkflowHandle, approval: Approval, why: RegExp): Promise<ProofCase> {
  const { refusals } = await handle.query<RunStatus>('status');
  await handle.signal('approve', approval);
  const status = await until(handle, (now) => now.refusals.count > refusals.count);
  const shown = status.refusals.last.at(-1)?.why ?? '';
  return {
    name: 'badly signed, as a signal',
    passed: why.test(shown) && isWaiting(status) && status.waiting.approvedBy.length === 0,
    detail: `status: ${shown}`,
  };
}

async function counted(handle: WorkflowHandle, name: string, approval: Approval, missing: number): Promise<ProofCase> {
  try {
    const { answer } = await handle.executeUpdate<{ answer: string }, [Approval]>('approve', { args: [approval] });
    const status = await handle.query<RunStatus>('status');
    const decision = status.decisions.at(-1);
    const left = isWaiting(status) ? status.waiting.missing : 0;
    return {
      name,
      passed: /counted/.test(answer) && left === missing && decision?.by === approval.by && decision.key !== undefined,
      detail: `${answer}, key ${decision?.key ?? 'unknown'}, ${left} missing`,
    };
  } catch (error) {
    return { name, passed: false, detail: `refused: ${reasonOf(error)}` };
  }
}

/** What the sender of an update is told; `counted: ...` when it was not refused. */
async function refusalOf(handle: WorkflowHandle, approval: Approval): Promise<string> {
  try {
    const { answer } = await handle.executeUpdate<{ answer: string }, [Approval]>('approve', { args: [approval] });
    return `counted: ${answer}`;
  } catch (error) {
    return reasonOf(error);
  }
}

const reasonOf = (error: unknown): string =>
  error instanceof WorkflowUpdateFailedError ? (error.cause?.message ?? error.message) : String(error);

type AtTheGate = RunStatus & { readonly waiting: Extract<RunStatus['waiting'], { readonly for: 'approval' }> };
const isWaiting = (status: RunStatus): status is AtTheGate => status.waiting?.for === 'approval';

async function digestOf(handle: WorkflowHandle): Promise<string> {
  const { digest } = await handle.query<SealedPlan>('plan');
  return digest;
}

/** Twenty bytes of its end are missing. */
function damaged(signature: string): string {
  const blob = Buffer.from(signature.replaceAll(/-----.*-----/g, ''), 'base64').subarray(0, -20);
  return `-----BEGIN SSH SIGNATURE-----\n${blob.toString('base64')}\n-----END SSH SIGNATURE-----`;
}

/** From then on the run only waits, with its gate open: the moment that it is reset to. */
async function approversTold(handle: WorkflowHandle): Promise<void> {
  for (;;) {
    const timeline = await handle.query<readonly StepRecord[]>('timeline');
    if (timeline.some(({ id, endedAt }) => id.startsWith('gate.production/notify') && endedAt !== undefined)) return;
    await delay(100);
  }
}

/** `temporal.api.enums.v1.EventType` */
const WORKFLOW_TASK_COMPLETED = 7;

async function lastTaskCompleted(handle: WorkflowHandle): Promise<number> {
  const { events } = await handle.fetchHistory();
  const last = events?.findLast(({ eventType }) => eventType === WORKFLOW_TASK_COMPLETED);
  return Number(last?.eventId ?? 0);
}
