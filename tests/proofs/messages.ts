/** Whatever arrives as a signal or an update, the run works on; what is refused is shown. */
import { randomUUID } from 'node:crypto';
import type { WorkflowHandle } from '@temporalio/client';
import type { ProofCase } from '../../scripts/proof.ts';
import { atGate, endOf, startMigration, until } from '../../scripts/scenarios/driving.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import type { RunStatus } from '../../src/contract/status.ts';

export const sentence = 'no payload, wrong types, broken encodings, unknown names, 2,000 of them: the run works on';

const FLOOD = 2000;

interface RawPayload {
  readonly metadata?: Record<string, Uint8Array>;
  readonly data?: Uint8Array;
}

const bytes = (text: string): Uint8Array => Buffer.from(text);
const encoded = (encoding: string, data: string): RawPayload => ({
  metadata: { encoding: bytes(encoding) },
  data: bytes(data),
});
const json = (value: unknown): RawPayload => encoded('json/plain', JSON.stringify(value));

const fine = { by: 'erin@example.com', reason: 'x' };

/** Each is one signal nobody would call an approval. `counted`: it has a handler, so the run must show it as refused. */
const NASTY: readonly {
  readonly name: string;
  readonly signal: string;
  readonly payloads: RawPayload[];
  readonly counted: boolean;
}[] = [
  { name: 'no payload', signal: 'approve', payloads: [], counted: true },
  { name: 'null', signal: 'approve', payloads: [json(null)], counted: true },
  {
    name: 'binary/null, as tctl sends it',
    signal: 'approve',
    payloads: [{ metadata: { encoding: bytes('binary/null') } }],
    counted: true,
  },
  { name: 'array', signal: 'reject', payloads: [json([fine])], counted: true },
  { name: 'text', signal: 'abort', payloads: [json('stop')], counted: true },
  { name: 'number', signal: 'recover', payloads: [json(7)], counted: true },
  { name: 'wrong type of a field', signal: 'approve', payloads: [json({ by: 7, planDigest: ['a'] })], counted: true },
  { name: 'unknown field', signal: 'abort', payloads: [json({ ...fine, force: true })], counted: true },
  { name: 'two arguments', signal: 'abort', payloads: [json(fine), json(fine)], counted: true },
  {
    name: 'two arguments, the second broken',
    signal: 'abort',
    payloads: [json(fine), encoded('json/plain', '{"by":')],
    counted: true,
  },
  { name: 'unknown encoding', signal: 'approve', payloads: [encoded('application/x-unknown', 'x')], counted: true },
  {
    name: 'json/protobuf, as the UI offers',
    signal: 'abort',
    payloads: [encoded('json/protobuf', '{}')],
    counted: true,
  },
  { name: 'broken JSON', signal: 'abort', payloads: [encoded('json/plain', '{"by": "erin"')], counted: true },
  { name: 'no encoding', signal: 'reject', payloads: [{ data: bytes('x') }], counted: true },
  {
    name: 'very long text',
    signal: 'abort',
    payloads: [json({ ...fine, reason: 'x'.repeat(100_000) })],
    counted: true,
  },
  {
    name: 'recover with no gate recovery open',
    signal: 'recover',
    payloads: [json({ ...fine, action: 'restore' })],
    counted: true,
  },
  { name: 'unknown name', signal: 'aprove', payloads: [json(fine)], counted: false },
  { name: 'unknown name, unknown encoding', signal: 'whatever', payloads: [encoded('x/y', 'x')], counted: false },
];

export const run = (say: (line: string) => void): Promise<readonly ProofCase[]> =>
  withSession({ name: 'proof-messages', say }, async (session) => {
    const handle = await startMigration(session, { releaseTag: 'v1.1.0' });
    say('waiting for the gate production');
    const atStart = await until(handle, atGate('approval'));
    const cases: ProofCase[] = [];
    for (const { name, signal, payloads, counted } of NASTY)
      cases.push(await sendOne(session, handle, { name, signal, payloads, counted }));
    cases.push(await malformedUpdate(handle));
    cases.push(await flood(session, handle, say));

    const { waiting } = await until(handle, atGate('approval'));
    const digest = waiting?.for === 'approval' ? waiting.planDigest : '';
    await handle.signal('approve', { by: 'erin@example.com', planDigest: digest });
    const end = await endOf(handle);
    cases.push({ name: 'then a good approval', passed: end.outcome === 'succeeded', detail: `ended ${end.outcome}` });
    const status = await handle.query<RunStatus>('status');
    cases.push({
      name: 'refusals are shown',
      passed: status.refusals.count >= FLOOD && status.refusals.last.length === 20 && atStart.refusals.count === 0,
      detail: `${status.refusals.count} counted, the last ${status.refusals.last.length} with their reason`,
    });
    return cases;
  });

async function sendOne(session: Session, handle: WorkflowHandle, nasty: (typeof NASTY)[number]): Promise<ProofCase> {
  const before = await handle.query<RunStatus>('status');
  await signalRaw(session, handle, nasty.signal, nasty.payloads);
  const wanted = before.refusals.count + (nasty.counted ? 1 : 0);
  // A query is answered after the signals before it, so one answer is enough.
  const after = await handle.query<RunStatus>('status');
  const open = after.waiting?.for === 'approval' && after.stage === 'before-upgrade';
  return {
    name: nasty.name,
    passed: open && after.refusals.count === wanted,
    detail: nasty.counted ? (after.refusals.last.at(-1)?.why ?? 'nothing shown') : 'nobody handles it; the run goes on',
  };
}

async function malformedUpdate(handle: WorkflowHandle): Promise<ProofCase> {
  try {
    await handle.executeUpdate('approve', { args: ['yes'] as never });
    return { name: 'malformed update', passed: false, detail: 'was accepted' };
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : String(error);
    return { name: 'malformed update', passed: /JSON object/.test(cause), detail: `the sender sees: ${cause}` };
  }
}

async function flood(session: Session, handle: WorkflowHandle, say: (line: string) => void): Promise<ProofCase> {
  const before = (await handle.query<RunStatus>('status')).refusals.count;
  const batch = 100;
  for (let sent = 0; sent < FLOOD; sent += batch) {
    await Promise.all(
      Array.from({ length: batch }, (_, index) =>
        signalRaw(session, handle, 'approve', (sent + index) % 2 === 0 ? [] : [encoded('x/y', 'x')]),
      ),
    );
    if (sent % 500 === 0) say(`${sent} of ${FLOOD} sent`);
  }
  const status = await until(handle, ({ refusals }) => refusals.count >= before + FLOOD);
  return {
    name: `${FLOOD} of them`,
    passed: status.refusals.count === before + FLOOD,
    detail: `${status.refusals.count - before} counted`,
  };
}

async function signalRaw(
  { client, temporal }: Session,
  handle: WorkflowHandle,
  signalName: string,
  payloads: RawPayload[],
): Promise<void> {
  await client.workflowService.signalWorkflowExecution({
    namespace: temporal.namespace,
    workflowExecution: { workflowId: handle.workflowId },
    signalName,
    requestId: randomUUID(),
    identity: 'proof messages',
    input: { payloads },
  });
}
