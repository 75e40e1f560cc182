import type { WayBackCost } from './evidence/restore.ts';
import type { SwitchState } from './evidence/switches.ts';
import type { GateName, RecoveryAction } from './messages.ts';
import type { Outcome, Switch } from './profile.ts';

/** Where a run stands, as the table of messages distinguishes it. */
export type Stage = 'before-upgrade' | 'upgrade' | 'validation' | 'gate-recovery' | 'recovery' | 'closeout' | 'ended';

export type StepStatus = 'running' | 'done' | 'failed' | 'stopped' | 'overruled';

/** One line of the timeline. Times are ISO 8601 in UTC by the workflow's clock. */
export interface StepRecord {
  /** Dotted step id, with `/part` and `#2` for a repetition; the activity's id is the same. */
  readonly id: string;
  readonly summary: string;
  readonly startedAt: string;
  readonly endedAt?: string;
  readonly status: StepStatus;
  readonly evidence?: unknown;
  readonly error?: string;
}

/** A decision a person made, as they claimed to be. The server's own record of the sender stands in the history. */
export interface DecisionRecord {
  readonly at: string;
  readonly by: string;
  readonly what: string;
  readonly gate?: GateName;
  readonly reason?: string;
  /** Of a signed approval: fingerprint of the key whose signature was verified. */
  readonly key?: string;
}

export interface Refusal {
  readonly at: string;
  readonly message: string;
  readonly by?: string;
  readonly why: string;
}

export interface Obligation {
  readonly name: string;
  /** `scratch`: copies on the scratch server. */
  readonly kind: Switch['kind'] | 'fence' | 'scratch';
  readonly since: string;
  readonly before: SwitchState;
  /** `kept`: left engaged on purpose, by the profile's policy for the outcome. `open`: could not be put back. */
  readonly status: 'engaging' | 'engaged' | 'released' | 'kept' | 'open';
  readonly note?: string;
}

export type Waiting =
  | {
      readonly for: 'approval';
      readonly gate: 'production';
      readonly planDigest: string;
      /** Absent where a run was begun before it was told. */
      readonly signatures?: 'optional' | 'required';
      readonly missing: number;
      readonly approvedBy: readonly string[];
      readonly until: string;
    }
  | { readonly for: 'qa'; readonly gate: 'qa'; readonly until: string }
  | { readonly for: 'window'; readonly until: string }
  | {
      readonly for: 'recovery';
      readonly gate: 'recovery';
      readonly actions: readonly RecoveryAction[];
      readonly why: string;
    };

/** Answer of the query `status`: facts of the workflow. What a running activity reports is in its heartbeat, not here. */
export interface RunStatus {
  readonly service: string;
  readonly releaseTag: string;
  readonly changeTicket: string;
  readonly requestedBy: string;
  readonly stage: Stage;
  readonly step?: { readonly id: string; readonly summary: string; readonly since: string };
  readonly waiting?: Waiting;
  /** When the change window closes: the deadline of the upgrade. */
  readonly windowEnd?: string;
  /** The last moment at which the upgrade is stopped so that the way back ends inside the window, ISO. */
  readonly pointOfNoReturn?: string;
  readonly planDigest?: string;
  readonly obligations: readonly Obligation[];
  readonly openObligations: number;
  readonly decisions: readonly DecisionRecord[];
  readonly refusals: { readonly count: number; readonly last: readonly Refusal[] };
  readonly actions: readonly RecoveryAction[];
  readonly trouble?: string;
  /** What a restore would take back, as far as it is known. */
  readonly wayBack?: WayBackCost;
  readonly outcome?: Outcome;
}
