import { ApplicationFailure, defineQuery, defineSignal, defineUpdate, setHandler } from '@temporalio/workflow';
import {
  type Message,
  MESSAGE_MALFORMED,
  MESSAGE_NAMES,
  MESSAGE_REFUSED,
  type MessageName,
  parseMessage,
} from '../contract/messages.ts';
import type { SealedPlan } from '../contract/plan.ts';
import type { RunStatus, StepRecord } from '../contract/status.ts';
import type { Ruling } from './message-policy.ts';
import type { MigrationRun } from './run.ts';

export const statusQuery = defineQuery<RunStatus>('status');
export const planQuery = defineQuery<SealedPlan | null>('plan');
export const timelineQuery = defineQuery<readonly StepRecord[]>('timeline');

/** What an update answers. */
export interface MessageAnswer {
  readonly answer: string;
}

const DESCRIPTIONS: Record<MessageName, string> = {
  approve:
    'Approve the open gate: {"by":"you@example.com","planDigest":"<12 or more digits>"}, with "signature" where approvals are signed',
  reject: 'Reject the open gate: {"by":"you@example.com","reason":"..."}',
  abort: 'Stop the run and put everything back: {"by":"you@example.com","reason":"..."}',
  recover:
    'Decide at the gate recovery: {"by":"you@example.com","action":"retry|continue|rollback|restore|accept","reason":"..."}',
};

/**
 * Every message as a signal and as an update of the same name. Signals are there for tools that know nothing else (tctl,
 * simple UIs): their handler never throws, for that would fail the run. Updates tell the sender.
 */
export function handleMessages(run: MigrationRun): void {
  for (const name of MESSAGE_NAMES) {
    const description = DESCRIPTIONS[name];
    setHandler(defineSignal<unknown[]>(name), (...args) => receiveSignal(run, name, args), { description });
    setHandler(defineUpdate<MessageAnswer, unknown[]>(name), (...args) => answerUpdate(run, name, args), {
      description,
      validator: (...args) => {
        const parsed = parseMessage(name, args);
        if (parsed.kind === 'malformed') throw ApplicationFailure.nonRetryable(parsed.why, MESSAGE_MALFORMED);
      },
    });
  }
  setHandler(statusQuery, () => run.state.status(), { description: 'Where the run stands, and what it waits for' });
  setHandler(planQuery, () => run.state.plan ?? null, { description: 'The plan to be approved, and its digest' });
  setHandler(timelineQuery, () => [...run.state.timeline], { description: 'Every step with times and evidence' });
}

/**
 * Whatever comes in together, signals are judged first, then updates, and nothing is scheduled before all are taken in. A
 * reset makes the server hand in again what came later, and a replay of that meets signals and updates in another order than
 * the first execution did. Turns are taken in microtasks, which run when everything has been handed in.
 */
const TURN = { signal: 1, update: 2 } as const;
async function inTurn(of: keyof typeof TURN): Promise<void> {
  for (let turn = 0; turn < TURN[of]; turn += 1) await Promise.resolve();
}

async function receiveSignal(run: MigrationRun, name: MessageName, args: readonly unknown[]): Promise<void> {
  await inTurn('signal');
  run.stopIfHistoryIsFull();
  const parsed = parseMessage(name, args);
  if (parsed.kind === 'malformed') run.refuse(name, parsed.why);
  else await receive(run, parsed.message);
}

async function answerUpdate(run: MigrationRun, name: MessageName, args: readonly unknown[]): Promise<MessageAnswer> {
  await inTurn('update');
  run.stopIfHistoryIsFull();
  const parsed = parseMessage(name, args);
  // The validator has passed these arguments, but a replay does not run validators.
  if (parsed.kind === 'malformed') throw ApplicationFailure.nonRetryable(parsed.why, MESSAGE_MALFORMED);
  const ruling = await receive(run, parsed.message);
  if (ruling.kind === 'refused') throw ApplicationFailure.nonRetryable(ruling.why, MESSAGE_REFUSED);
  return { answer: answerText(ruling) };
}

/** At once, but for approvals that are signed. */
const receive = (run: MigrationRun, message: Message): Ruling | Promise<Ruling> =>
  message.name === 'approve' && message.signature !== undefined ? run.receiveSigned(message) : run.receive(message);

function answerText(ruling: Exclude<Ruling, { kind: 'refused' }>): string {
  switch (ruling.kind) {
    case 'approved':
      return `approval of the gate ${ruling.gate} by ${ruling.by} counted`;
    case 'rejected':
      return `gate ${ruling.gate} rejected by ${ruling.by}`;
    case 'abort':
      return 'the run stops and puts everything back';
    case 'recover':
      return `the run goes on with: ${ruling.action}`;
    case 'noted':
      return `recorded, not acted on: ${ruling.why}`;
  }
}
