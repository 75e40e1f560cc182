/** Announcements, ticket entries, notices and the profile's own steps. */
import type { Action, JsonValue, OwnStep } from '../profile.ts';
import type { StepInput } from './step.ts';

export interface ActionsInput extends StepInput {
  readonly actions: readonly Action[];
  readonly message: Announcement;
}

/** What is handed to announcers, tickets and notifiers, as JSON and as Markdown text. */
export interface Announcement {
  readonly kind:
    | 'window-announced'
    | 'backup-recorded'
    | 'gate-opened'
    | 'gate-reminder'
    | 'gate-escalation'
    | 'stakeholders-informed'
    | 'outcome-recorded'
    | 'retrospective-scheduled';
  readonly title: string;
  readonly text: string;
  readonly facts: { readonly [key: string]: JsonValue };
}

export interface ActionsEvidence {
  /** One entry for each configured action: its kind and what the other side said (a status, an exit code, a line count). */
  readonly delivered: readonly { readonly to: string; readonly answer: string }[];
}

export interface OwnStepInput extends StepInput {
  readonly step: OwnStep;
}

export interface OwnStepEvidence {
  readonly answer: string;
}
