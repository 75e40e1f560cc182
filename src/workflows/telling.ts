import type { Announcement } from '../contract/evidence/actions.ts';
import type { Action } from '../contract/profile.ts';
import type { MigrationRun } from './run.ts';
import { TELL } from './step-policies.ts';

/**
 * Tells people something the run does not depend on: when nobody can be reached the run goes on, and the failed step is in
 * the timeline. An interruption still interrupts.
 *
 * @returns whether it was delivered
 */
export async function tell(
  run: MigrationRun,
  id: string,
  actions: readonly Action[],
  message: Announcement,
): Promise<'delivered' | 'not-delivered'> {
  if (actions.length === 0) return 'delivered';
  try {
    await run.step(id, message.title, TELL, (activities) =>
      activities.performActions({ ...run.input(), actions, message }),
    );
    return 'delivered';
  } catch (error) {
    if (run.troubleOf(error).kind === 'failure' && !run.isStopping) return 'not-delivered';
    throw error;
  }
}
