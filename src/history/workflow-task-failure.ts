import { failureText } from './execution.ts';
import type { HistoryEvent } from './message-senders.ts';
import { isoTime } from './timestamp.ts';

export interface WorkflowTaskFailure {
  readonly since: string;
  readonly message: string;
}

/** Workflow code that does not get through: the server tries for ever, and the run stands still meanwhile. */
export function workflowTaskFailure(events: readonly HistoryEvent[]): WorkflowTaskFailure | undefined {
  let failure: WorkflowTaskFailure | undefined;
  for (const event of events) {
    if (event.workflowTaskCompletedEventAttributes) failure = undefined;
    const failed = event.workflowTaskFailedEventAttributes;
    if (failed) {
      failure = {
        since: failure?.since ?? isoTime(event.eventTime) ?? '',
        message: failed.failure ? failureText(failed.failure) : 'without a message',
      };
    }
  }
  return failure;
}
