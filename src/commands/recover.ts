import { type Command, Option } from 'commander';
import { RECOVERY_ACTIONS, type RecoveryAction } from '../contract/messages.ts';
import type { CommandContext } from './context.ts';
import { messageCommand, send, type SendOptions } from './send-message.ts';

export interface RecoverOptions extends SendOptions {
  readonly action: RecoveryAction;
  readonly reason: string;
}

export function addRecover(program: Command, context: CommandContext): void {
  messageCommand(program, 'recover')
    .description('decide how a run goes on that waits for a person at the gate recovery')
    .addOption(new Option('--action <action>', 'what to do').choices(RECOVERY_ACTIONS).makeOptionMandatory())
    .requiredOption('--reason <text>', 'why; kept in the report')
    .addHelpText(
      'after',
      `
Actions; runbook status lists those that are possible now:
  retry     do again what failed
  continue  a false alarm: go on, recorded as overruled
  rollback  the planned Alembic downgrade
  restore   the backup into a fresh database, then swap it in; what was written since the backup is in the old one, kept aside
  accept    close out and hand over with production as it is

Example:
  runbook recover whisper-transcriber --by erin@example.com --action restore --reason "transcripts are damaged"`,
    )
    .action((service: string, options: RecoverOptions) =>
      send(context, service, 'recover', options, { action: options.action, reason: options.reason }),
    );
}
