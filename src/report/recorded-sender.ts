import type { MessageSender } from '../contract/report.ts';
import type { DecisionRecord, Refusal } from '../contract/status.ts';

/** The workflow's clock has milliseconds, the history's events have nanoseconds. */
const TOLERANCE = 2;

/** Who sent the message that a decision or refusal came of, by the history; undefined where nothing in it fits. */
export function recordedSender(
  record: DecisionRecord | Refusal,
  senders: readonly MessageSender[],
): MessageSender | undefined {
  const name = 'what' in record ? (/^\w+/.exec(record.what)?.[0] ?? '') : record.message;
  const at = Date.parse(record.at);
  return senders.find(
    (sender) =>
      sender.name === name &&
      (sender.via === 'cancel' || record.by === undefined || sender.claimed === record.by) &&
      sender.handledAt !== undefined &&
      Math.abs(Date.parse(sender.handledAt) - at) <= TOLERANCE,
  );
}

/** `erin@laptop (update)`, with the authenticated principal where the server knows one. */
export const senderText = (sender: MessageSender): string =>
  `${sender.principal ? `${sender.principal}, ` : ''}${sender.identity || 'unnamed client'} (${sender.via})`;
