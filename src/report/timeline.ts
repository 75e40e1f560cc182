/** The timeline of a run as people read it: steps by section of the document, with durations and the waits between them. */
import type { StepRecord, StepStatus } from '../contract/status.ts';
import { durationText } from './quantity.ts';

export type TimelineEntry =
  | {
      readonly kind: 'step';
      readonly step: StepRecord;
      /** Undefined for a step that has not ended. */
      readonly milliseconds: number | undefined;
    }
  /** Nothing ran: the run waited for people or for its window. */
  | { readonly kind: 'wait'; readonly since: string; readonly milliseconds: number };

/** Steps of one section in a row. A section that is entered twice, as recovery may be, is there twice. */
export interface TimelineSection {
  readonly title: string;
  readonly startedAt: string;
  readonly milliseconds: number;
  readonly entries: readonly TimelineEntry[];
}

/** Shorter gaps are the workflow's own turns. */
const SHORTEST_WAIT = 2000;

const TITLES: Readonly<Record<string, string>> = {
  preconditions: '1 Preconditions',
  tooling: '2 Tooling',
  backup: '3 Backup',
  'dry-run': '4 Dry run',
  'gate.production': '5 Approval',
  apply: '5 Apply in production',
  validation: '6 Validation',
  'gate.qa': '6 Hand-off to QA',
  recovery: '7 Rollback and restoration',
  'gate.recovery': '7 Decision of a person',
  closeout: '8 Closeout',
};

export function sectionTitle(stepId: string): string {
  const [section = '', gate = ''] = stepId.split(/[./#]/);
  return TITLES[section === 'gate' ? `gate.${gate}` : section] ?? section;
}

export const STATUS_SYMBOLS: Readonly<Record<StepStatus, string>> = {
  running: '…',
  done: '✓',
  failed: '✗',
  stopped: '■',
  overruled: '!',
};

/** What went wrong in a step, beyond what its status says. */
export const errorOf = ({ error, status }: StepRecord): string | undefined => (error === status ? undefined : error);

/** How long a step took; the step that archives the report cannot know. */
export function tookText({ step, milliseconds }: Extract<TimelineEntry, { kind: 'step' }>): string {
  if (milliseconds !== undefined) return durationText(milliseconds);
  return step.id.startsWith('closeout.record/report') ? 'writes this report' : 'not ended';
}

/** @param steps in the order in which they began */
export function timelineSections(steps: readonly StepRecord[]): readonly TimelineSection[] {
  const sections: (TimelineSection & { entries: TimelineEntry[]; milliseconds: number })[] = [];
  let quietSince: number | undefined;
  for (const step of steps) {
    const started = Date.parse(step.startedAt);
    const ended = step.endedAt === undefined ? undefined : Date.parse(step.endedAt);
    const title = sectionTitle(step.id);
    let section = sections.at(-1);
    const waited = quietSince === undefined ? 0 : started - quietSince;
    if (section && quietSince !== undefined && waited >= SHORTEST_WAIT) {
      section.entries.push({ kind: 'wait', since: new Date(quietSince).toISOString(), milliseconds: waited });
      section.milliseconds = started - Date.parse(section.startedAt);
    }
    if (section?.title !== title) {
      section = { title, startedAt: step.startedAt, milliseconds: 0, entries: [] };
      sections.push(section);
    }
    section.entries.push({ kind: 'step', step, milliseconds: ended === undefined ? undefined : ended - started });
    const last = ended ?? started;
    section.milliseconds = Math.max(section.milliseconds, last - Date.parse(section.startedAt));
    quietSince = Math.max(quietSince ?? last, last);
  }
  return sections;
}
