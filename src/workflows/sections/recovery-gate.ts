/** The gate `recovery`. */
import type { Announcement } from '../../contract/evidence/actions.ts';
import { messageCommands } from '../../contract/commands.ts';
import type { RecoveryAction } from '../../contract/messages.ts';
import { RETRIES } from '../bounds.ts';
import { nextRuling } from '../gate.ts';
import type { MigrationRun } from '../run.ts';
import { tell } from '../telling.ts';

/**
 * The gate `recovery`: open until a person decides, with reminders, from the second one on to whom the profile escalates.
 */
export async function decide(
  run: MigrationRun,
  trouble: string,
  possible: readonly RecoveryAction[],
): Promise<RecoveryAction> {
  const { approvals, recovery } = run.profile;
  const actions = allowedActions(run, possible);
  const why =
    actions.length < possible.length
      ? `${trouble}; "retry" and "continue" were chosen ${RETRIES} times: a run is not repeated for ever, take over with "accept"`
      : trouble;
  run.enter('gate-recovery');
  run.open({ gate: 'recovery', actions }, { for: 'recovery', gate: 'recovery', actions, why });
  const ruling = await nextRuling(run, {
    remindEvery: recovery.remindEvery,
    announce: async () => {
      await tell(run, 'gate.recovery/notify', approvals.notify, recoveryMessage(run, why, actions, 'gate-opened'));
    },
    remind: async (count) => {
      await tell(run, 'gate.recovery/remind', approvals.notify, recoveryMessage(run, why, actions, 'gate-reminder'));
      if (count > 1) {
        await tell(
          run,
          'gate.recovery/escalate',
          recovery.escalate,
          recoveryMessage(run, why, actions, 'gate-escalation'),
        );
      }
    },
  });
  run.close();
  if (ruling === 'timed-out' || ruling.kind !== 'recover') throw new Error('the gate recovery takes only recover');
  run.state.intervened = true;
  if (ruling.action === 'retry' || ruling.action === 'continue') run.state.retries += 1;
  return ruling.action;
}

/** Of what is possible: a run is not repeated for ever. */
export const allowedActions = (run: MigrationRun, possible: readonly RecoveryAction[]): readonly RecoveryAction[] =>
  run.state.retries >= RETRIES ? possible.filter((action) => action !== 'retry' && action !== 'continue') : possible;

function recoveryMessage(
  run: MigrationRun,
  why: string,
  actions: readonly RecoveryAction[],
  kind: 'gate-opened' | 'gate-reminder' | 'gate-escalation',
): Announcement {
  const { service, releaseTag, changeTicket } = run.request;
  const commands = actions.map((action) =>
    messageCommands(service, 'recover', { by: 'you@example.com', action, reason: 'why' }),
  );
  return {
    kind,
    title: `A person must decide: ${service} ${releaseTag}`,
    text: [
      why,
      `Possible: ${actions.join(', ')}.`,
      ...commands.map(({ runbook }) => runbook),
      commands[0]?.temporal ?? '',
      commands[0]?.tctl ?? '',
    ].join('\n'),
    facts: { service, releaseTag, changeTicket, why, actions, wayBack: { ...run.state.wayBack?.total } },
  };
}
