import { CancellationScope, condition } from '@temporalio/workflow';
import type { Ruling } from './message-policy.ts';
import type { MigrationRun } from './run.ts';

export interface GateClock {
  /** Milliseconds since the epoch; absent: the gate stays open until somebody decides. */
  readonly until?: number;
  readonly remindEvery: number;
  /** Tells people that the gate is open. */
  readonly announce?: () => Promise<void>;
  /** @param count 1 for the first reminder */
  readonly remind: (count: number) => Promise<void>;
}

const DAY = 24 * 3_600_000;

/**
 * Waits for the next ruling at the open gate, telling and reminding people meanwhile. A decision does not wait until a
 * notification has been delivered. From the third reminder on the interval doubles, up to a day: a gate may stay open for
 * weeks, and a history is not endless.
 */
export async function nextRuling(run: MigrationRun, clock: GateClock): Promise<Ruling | 'timed-out'> {
  if (clock.announce) await beside(run, clock.announce);
  for (let reminders = 0; ; reminders += 1) {
    const left = clock.until === undefined ? Number.POSITIVE_INFINITY : clock.until - Date.now();
    if (!run.hasRuling && left <= 0) return 'timed-out';
    const interval = Math.min(clock.remindEvery * 2 ** Math.max(0, reminders - 2), Math.max(DAY, clock.remindEvery));
    if (await condition(() => run.hasRuling, Math.min(left, interval))) {
      const ruling = run.nextRuling();
      if (ruling) return ruling;
    }
    const isOpen = clock.until === undefined || Date.now() < clock.until;
    if (isOpen) await beside(run, () => clock.remind(reminders + 1));
  }
}

/** Runs work until it is done or somebody has decided; then it is stopped. */
async function beside(run: MigrationRun, work: () => Promise<void>): Promise<void> {
  const scope = new CancellationScope();
  let isDone = false;
  const working = scope.run(work).finally(() => {
    isDone = true;
  });
  // Awaited below; until then a failure is nobody's.
  working.catch(() => undefined);
  await condition(() => isDone || run.hasRuling);
  if (!isDone) scope.cancel();
  await working;
}
