/** The report of a run, read from its history: needs neither a worker nor the object store. */
import type { ArchivedReport } from '../contract/evidence/closeout.ts';
import { payloadConverter } from '../contract/payload-converter.ts';
import type { RunReport } from '../contract/report.ts';
import { type HistoryEvent, messageSenders } from './message-senders.ts';

export interface ReportInHistory {
  /** As it was handed to the last archiving, with the senders of its messages. */
  readonly report: RunReport;
  /** Where it was stored; undefined where no archiving succeeded. */
  readonly archived: ArchivedReport | undefined;
}

/** Name of the activity: what it was given is the report, what it returned is where it lies. */
const ACTIVITY = 'archiveReport';

/** Undefined for a run that was refused before there was anything to report on, or that has not come to its end. */
export function reportInHistory(events: readonly HistoryEvent[]): ReportInHistory | undefined {
  let report: RunReport | undefined;
  let archived: ArchivedReport | undefined;
  const archivings = new Set<string>();
  for (const event of events) {
    const scheduled = event.activityTaskScheduledEventAttributes;
    if (scheduled?.activityType?.name === ACTIVITY) {
      archivings.add(String(event.eventId));
      const [payload] = scheduled.input?.payloads ?? [];
      if (payload) report = payloadConverter.fromPayload<{ readonly report?: RunReport }>(payload).report ?? report;
    }
    const completed = event.activityTaskCompletedEventAttributes;
    if (completed && archivings.has(String(completed.scheduledEventId))) {
      const [payload] = completed.result?.payloads ?? [];
      if (payload) archived = payloadConverter.fromPayload<ArchivedReport>(payload);
    }
  }
  return report && { report: { ...report, senders: messageSenders(events) }, archived };
}
