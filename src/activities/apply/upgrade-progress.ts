import type { Blocker, UpgradeProgress } from '../../contract/evidence/upgrade.ts';
import type { BlockingSession } from '../../postgres/lock-waits.ts';
import type { StepTools } from '../activity-step.ts';

const BLOCKERS_SHOWN = 10;

/** The heartbeat of the upgrade, and of a downgrade, changed part by part; a part that becomes undefined is left out. */
export class UpgradeTelling {
  private readonly progress: StepTools['progress'];
  private readonly now: UpgradeProgress;

  constructor(progress: StepTools['progress'], phase: string, target: string) {
    this.progress = progress;
    this.now = { phase, target, revision: '', line: '' };
  }

  tell(change: { readonly [Part in keyof UpgradeProgress]?: UpgradeProgress[Part] | undefined }): void {
    Object.assign(this.now, change);
    const { blockers, versionRows, ...rest } = this.now;
    const parts = {
      ...rest,
      ...(versionRows && versionRows.length > 0 && { versionRows }),
      ...(blockers && blockers.length > 0 && { blockers: blockers.map((blocker) => ({ ...blocker })) }),
    };
    this.progress(Object.fromEntries(Object.entries(parts).filter(([, value]) => value !== undefined)));
  }
}

/** What people need to know of whoever stands in the way. */
export const asBlockers = (sessions: readonly BlockingSession[]): readonly Blocker[] =>
  sessions.slice(0, BLOCKERS_SHOWN).map(({ pid, role, application, state, transactionAge, queryAge, waitedFor }) => ({
    pid,
    role,
    application,
    state,
    transactionAge: Math.round(transactionAge),
    queryAge: Math.round(queryAge),
    waitedFor,
  }));
