import type { Command } from 'commander';
import type { CommandContext } from './context.ts';
import { messageCommand, send, type SendOptions } from './send-message.ts';

export interface RejectOptions extends SendOptions {
  readonly reason: string;
  readonly gate?: string;
}

export function addReject(program: Command, context: CommandContext): void {
  messageCommand(program, 'reject')
    .description('say no at the open gate: production is left as it is; at QA’s, a person decides how to go back')
    .requiredOption('--reason <text>', 'why; kept in the report')
    .option('--gate <gate>', 'production or qa: refused where another gate is open')
    .addHelpText(
      'after',
      '\nExample:\n  runbook reject whisper-transcriber --by erin@example.com --reason "the release is not ready"',
    )
    .action((service: string, options: RejectOptions) =>
      send(context, service, 'reject', options, { reason: options.reason, gate: options.gate }),
    );
}
