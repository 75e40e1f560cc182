/** What is switched for the migration and switched back after it: the two halves of an obligation. */
import type { JsonValue, Switch } from '../profile.ts';
import type { StepInput } from './step.ts';

export interface SwitchInput extends StepInput {
  readonly switch: Switch;
}

/** `before` is registered by the workflow ahead of engaging. `detail` is the mechanism's own note, e.g. which queues which workers consumed. */
export interface SwitchState {
  readonly state: 'engaged' | 'released' | 'unknown';
  readonly detail: { readonly [key: string]: JsonValue };
}

export interface ReleaseSwitchInput extends SwitchInput {
  readonly before: SwitchState;
}
