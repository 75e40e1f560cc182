/** What the demo can show: a release, what people do, and how it has to end. */
import type { RecoveryAction } from '../../src/contract/messages.ts';
import type { Outcome } from '../../src/contract/profile.ts';
import type { ProfileChanges } from './profile.ts';

export interface Scenario {
  readonly name: string;
  readonly sentence: string;
  readonly releaseTag: string;
  readonly expected: Outcome;
  readonly changes: ProfileChanges;
  /** What `--yes` does at the gate `production`; `nothing`: nobody answers. */
  readonly atProduction: 'approve' | 'reject' | 'abort' | 'nothing';
  /** Puts the rows into production that make the release's defect show, right after the approval. */
  readonly defectRows: 'add' | 'none';
  /** Abort once this many revisions of the upgrade have committed. */
  readonly abortAfterRevisions?: number;
  /** What `--yes` chooses at the gate `recovery`, in order of preference. */
  readonly recover: readonly RecoveryAction[];
}

const common = { changes: {}, atProduction: 'approve', defectRows: 'none', recover: ['accept'] } as const;

export const SCENARIOS: readonly Scenario[] = [
  {
    ...common,
    name: 'success',
    sentence: 'a good release is migrated',
    releaseTag: 'v1.1.0',
    expected: 'succeeded',
  },
  {
    ...common,
    name: 'reject',
    sentence: 'the approver says no',
    releaseTag: 'v1.1.0',
    expected: 'aborted',
    atProduction: 'reject',
  },
  {
    ...common,
    name: 'abort-before',
    sentence: 'somebody aborts before production is touched',
    releaseTag: 'v1.1.0',
    expected: 'aborted',
    atProduction: 'abort',
  },
  {
    ...common,
    name: 'abort-during',
    sentence: 'somebody aborts after the first of three revisions has committed',
    releaseTag: 'v1.5.0-long',
    expected: 'rolled-back',
    defectRows: 'add',
    abortAfterRevisions: 1,
  },
  {
    ...common,
    name: 'fails',
    sentence: 'the third revision fails on rows that staging does not have',
    releaseTag: 'v1.2.0-fails',
    expected: 'rolled-back',
    defectRows: 'add',
  },
  {
    ...common,
    name: 'corrupts',
    sentence: 'the migration damages data, its downgrade raises, a person chooses restore',
    releaseTag: 'v1.3.0-corrupts',
    expected: 'restored',
    defectRows: 'add',
    recover: ['restore'],
  },
  {
    ...common,
    name: 'slow',
    sentence: 'the upgrade would outlast the change window',
    releaseTag: 'v1.4.0-slow',
    expected: 'aborted',
    defectRows: 'add',
    changes: { window: { length: '20s' } },
  },
  {
    ...common,
    name: 'no-approval',
    sentence: 'nobody approves in time',
    releaseTag: 'v1.1.0',
    expected: 'aborted',
    atProduction: 'nothing',
    changes: { approvals: { timeout: '5s', remindEvery: '2s' } },
  },
];

export function scenarioNamed(name: string): Scenario {
  const found = SCENARIOS.find((scenario) => scenario.name === name);
  if (!found) {
    throw new Error(
      `there is no scenario "${name}"; there are ${SCENARIOS.map((scenario) => scenario.name).join(', ')}`,
    );
  }
  return found;
}
