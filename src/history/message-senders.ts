/** Who sent what, by the events of the workflow's history. */
import type { WorkflowHandle } from '@temporalio/client';
import type { Payload } from '@temporalio/common';
import { MESSAGE_NAMES } from '../contract/messages.ts';
import { payloadConverter } from '../contract/payload-converter.ts';
import type { MessageSender } from '../contract/report.ts';
import { isoTime } from './timestamp.ts';

type History = Awaited<ReturnType<WorkflowHandle['fetchHistory']>>;
export type HistoryEvent = NonNullable<History['events']>[number];

/** Whoever floods a run with messages does not flood its report. */
const KEPT = 500;
const TEXT_LIMIT = 200;

/**
 * Signals, updates and cancel requests in the order in which the server received them, the last 500. Updates that a
 * validator rejected left no event.
 */
export function messageSenders(events: readonly HistoryEvent[]): readonly MessageSender[] {
  const senders: Growing[] = [];
  const started = new Map<string, string>();
  let unhandled: { readonly eventId: number; readonly sender: Growing }[] = [];
  for (const event of events) {
    const task = event.workflowTaskCompletedEventAttributes;
    if (event.workflowTaskStartedEventAttributes) {
      started.set(String(event.eventId), timeOf(event));
    } else if (task) {
      // Signals that came before the task started are handled at its start, which is the workflow's time for all of it.
      const startedAt = started.get(String(task.startedEventId));
      for (const { eventId, sender } of unhandled) {
        if (eventId < Number(task.startedEventId) && startedAt !== undefined) sender.handledAt = startedAt;
      }
      unhandled = unhandled.filter(({ sender }) => sender.handledAt === undefined);
    }
    const sender = senderOf(event);
    if (!sender) continue;
    senders.push(sender);
    if (sender.via === 'update') {
      // An update's acceptance is written at the end of the task that handled it.
      const startedAt = [...started.values()].at(-1);
      if (startedAt !== undefined) sender.handledAt = startedAt;
    } else {
      unhandled.push({ eventId: Number(event.eventId), sender });
    }
  }
  return senders.slice(-KEPT);
}

/** A sender whose message has not been handled yet. */
type Growing = { -readonly [key in keyof MessageSender]: MessageSender[key] };

/** Names of signals that nobody handles: typing errors, most likely. */
export const unknownSignals = (senders: readonly MessageSender[]): readonly MessageSender[] =>
  senders.filter(({ via, name }) => via === 'signal' && !(MESSAGE_NAMES as readonly string[]).includes(name));

function senderOf(event: HistoryEvent): Growing | undefined {
  const signal = event.workflowExecutionSignaledEventAttributes;
  if (signal) {
    return sender(event, signal.signalName, 'signal', signal.identity, signal.input?.payloads);
  }
  const update = event.workflowExecutionUpdateAcceptedEventAttributes?.acceptedRequest;
  if (update) {
    return sender(event, update.input?.name, 'update', update.meta?.identity, update.input?.args?.payloads);
  }
  const cancel = event.workflowExecutionCancelRequestedEventAttributes;
  return cancel ? sender(event, 'cancel', 'cancel', cancel.identity, []) : undefined;
}

function sender(
  event: HistoryEvent,
  name: string | null | undefined,
  via: MessageSender['via'],
  identity: string | null | undefined,
  payloads: readonly Payload[] | null | undefined,
): Growing {
  const [payload] = payloads ?? [];
  const fields: unknown = payload ? payloadConverter.fromPayload(payload) : undefined;
  const by = typeof fields === 'object' && fields !== null && 'by' in fields ? fields.by : undefined;
  const { principal } = event;
  return {
    name: bounded(name ?? ''),
    via,
    identity: bounded(identity ?? ''),
    sentAt: timeOf(event),
    ...(typeof by === 'string' && { claimed: bounded(by.trim()) }),
    ...(principal?.name && { principal: bounded(`${principal.type ?? ''}:${principal.name}`) }),
  };
}

const bounded = (text: string): string => text.slice(0, TEXT_LIMIT);

const timeOf = ({ eventTime }: HistoryEvent): string => isoTime(eventTime) ?? '';
