import { condition } from '@temporalio/workflow';
import type { Ruling } from './message-policy.ts';
import type { MigrationRun } from './run.ts';

export interface GateClock {
  /** Milliseconds since the epoch; absent: the gate stays open until somebody decides. */
  readonly until?: number;
  readonly remindEvery: number;
  /** @param count 1 for the first reminder */
  readonly remind: (count: number) => Promise<void>;
}

/** Waits for the next ruling at the open gate, reminding people at intervals. */
export async function nextRuling(run: MigrationRun, clock: GateClock): Promise<Ruling | 'timed-out'> {
  for (let reminders = 0; ; reminders += 1) {
    const left = clock.until === undefined ? Number.POSITIVE_INFINITY : clock.until - Date.now();
    if (!run.hasRuling && left <= 0) return 'timed-out';
    const wait = Math.min(left, clock.remindEvery);
    if (await condition(() => run.hasRuling, wait)) {
      const ruling = run.nextRuling();
      if (ruling) return ruling;
    }
    const stillOpen = clock.until === undefined || Date.now() < clock.until;
    if (stillOpen) await clock.remind(reminders + 1);
  }
}
