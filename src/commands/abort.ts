import type { Command } from 'commander';
import type { CommandContext } from './context.ts';
import { messageCommand, send, type SendOptions } from './send-message.ts';

export interface AbortOptions extends SendOptions {
  readonly reason: string;
}

export function addAbort(program: Command, context: CommandContext): void {
  messageCommand(program, 'abort')
    .description('stop the run, whatever it does, and put everything back')
    .requiredOption('--reason <text>', 'why; kept in the report')
    .addHelpText(
      'after',
      '\nBefore the upgrade production is left as it is. During the upgrade the run first stops it with proof, reads the database,\nthen recovers; after it a person decides, unless the plan allows a way back by itself. Undoing cannot be aborted.\n\nExample:\n  runbook abort whisper-transcriber --by erin@example.com --reason "disk alarm on db-1"',
    )
    .action((service: string, options: AbortOptions) =>
      send(context, service, 'abort', options, { reason: options.reason }),
    );
}
