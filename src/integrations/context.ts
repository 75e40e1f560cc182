/** What integrations need from their caller. They know nothing of Temporal. */
import type { RunFacts } from '../contract/evidence/step.ts';
import type { ConfiguredValue, Profile, SecretReference } from '../contract/profile.ts';
import type { Redactor } from '../process/redactor.ts';
import type { TemplateValues } from './template.ts';

/** Resolves references of one profile and remembers the values, only to strike them out of texts. */
export interface SecretAccess {
  resolve(reference: SecretReference): Promise<string>;
  resolveValue(value: ConfiguredValue): Promise<string>;
  resolveAll(values: Readonly<Record<string, ConfiguredValue>>): Promise<Record<string, string>>;
  /** Knows every value resolved so far. */
  readonly redactor: Redactor;
}

export interface IntegrationContext {
  readonly run: RunFacts;
  readonly profile: Profile;
  readonly secrets: SecretAccess;
  /** Makes sure the release's working tree is there and tells its folder. Called only where it is needed. */
  readonly checkout: () => Promise<string>;
  readonly signal: AbortSignal;
  /** Id of the step, its repetition included: the same for each attempt. Part of keys and of application names of sessions. */
  readonly step: string;
  /** Throws where a later attempt has begun: asked right before something outside is switched. */
  readonly requireCurrent?: () => Promise<void>;
}

/** Placeholder values that the run itself gives. */
export function runValues(run: RunFacts): TemplateValues {
  return {
    service: run.service,
    releaseTag: run.releaseTag,
    changeTicket: run.changeTicket,
    requestedBy: run.requestedBy,
    runId: run.runId,
    workflowId: run.workflowId,
    commit: run.commit,
    outcome: run.outcome,
    windowStart: run.windowStart,
    windowEnd: run.windowEnd,
  };
}
