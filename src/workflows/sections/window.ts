/** The change window: what is left to do, the way back included, must fit into what is left of it. */
import { CancellationScope, isCancellation, sleep } from '@temporalio/workflow';
import { stepRefused } from '../failure.ts';
import type { MigrationRun } from '../run.ts';

/** Waits for the window to open. Without one it opens now, that is at the approval. */
export async function awaitWindow(run: MigrationRun): Promise<void> {
  const opens = run.state.windowStart === undefined ? Date.now() : Date.parse(run.state.windowStart);
  if (opens <= Date.now()) return;
  run.wait({ for: 'window', until: new Date(opens).toISOString() });
  await sleep(opens - Date.now());
  run.wait(undefined);
}

/**
 * Predicted upgrade and predicted recovery, one after the other, fit into what is left of the window: judged before
 * anything is switched, and again once the backup has been taken. From here on the window's end is known, and with it the
 * point of no return.
 */
export function judgeWindow(run: MigrationRun, backup: 'backup to be taken' | 'backup taken'): void {
  run.judge('apply.window', 'The change window is open, and the rest fits', () => {
    const now = Date.now();
    const end = run.state.windowEnd === undefined ? now + run.profile.window.length : Date.parse(run.state.windowEnd);
    run.state.windowStart ??= new Date(now).toISOString();
    run.state.windowEnd ??= new Date(end).toISOString();
    run.learn({ windowStart: run.state.windowStart, windowEnd: run.state.windowEnd });
    const predictions = run.state.predictions;
    run.state.upgradeUntil = end - predictions.recovery;
    const dumpAgain = backup === 'backup to be taken' ? predictions.backup : 0;
    const needed = dumpAgain + predictions.upgrade + predictions.recovery;
    const left = Math.max(0, end - now);
    if (left <= needed) {
      const text = `${dumpAgain > 0 ? `backup (${dumpAgain} ms), ` : ''}upgrade (${predictions.upgrade} ms) and recovery (${predictions.recovery} ms) are predicted to take ${needed} ms together, by the ${predictions.from}, and ${left} ms of the window are left: ask for a longer window, or prepare a faster way back (recoveryPoint.snapshot, where the rollback is lossless)`;
      throw stepRefused(text);
    }
    return {
      windowStart: run.state.windowStart,
      windowEnd: run.state.windowEnd,
      left,
      predictions,
      pointOfNoReturn: run.state.pointOfNoReturn,
    };
  });
}

/**
 * Right before what cannot be taken back without loss or effort: is there time for the way back? Overruled by a person once,
 * it is not asked again.
 *
 * @param ahead milliseconds of what is about to be done, without the way back
 */
export function judgeWayBack(run: MigrationRun, step: string, ahead: number): void {
  if (run.state.isOverruled(step)) return;
  run.judge(step, 'A way back still fits into the window', () => {
    const end = run.state.upgradeUntil;
    const left = end === undefined ? 0 : Math.max(0, end - Date.now());
    if (left <= ahead) {
      throw stepRefused(
        `the point of no return (${run.state.pointOfNoReturn ?? 'unknown'}) is too near or has passed: what is ahead takes ${ahead} ms, and a way back (${run.state.predictions.recovery} ms) must end inside the window`,
      );
    }
    return { left, ahead, recovery: run.state.predictions.recovery };
  });
}

/** Runs work that is interrupted at the point of no return: recovery then ends inside the window. */
export async function withDeadline(run: MigrationRun, work: () => Promise<void>): Promise<void> {
  const deadline = new CancellationScope();
  deadline
    .run(() => interruptAt(run, run.state.upgradeUntil ?? Date.now()))
    .catch((error: unknown) => {
      if (!isCancellation(error)) throw error;
    });
  try {
    await work();
  } finally {
    deadline.cancel();
  }
}

async function interruptAt(run: MigrationRun, at: number): Promise<void> {
  await sleep(Math.max(1, at - Date.now()));
  run.interrupt({
    kind: 'deadline',
    message: `the upgrade was not done at the point of no return (${new Date(at).toISOString()}): from there on a way back, predicted to take ${run.state.predictions.recovery} ms, would not end inside the change window (${run.state.windowEnd ?? 'unknown'})`,
  });
}
