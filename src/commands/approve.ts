import type { Command } from 'commander';
import type { CommandContext } from './context.ts';
import { messageCommand, send, type SendOptions } from './send-message.ts';

export interface ApproveOptions extends SendOptions {
  readonly plan?: string;
  readonly gate?: string;
  readonly comment?: string;
}

export function addApprove(program: Command, context: CommandContext): void {
  messageCommand(program, 'approve')
    .description('approve the open gate')
    .option(
      '--plan <digest>',
      'digest of the plan you have read, its first 12 digits or more; the gate production wants it',
    )
    .option('--gate <gate>', 'production or qa: refused where another gate is open')
    .option('--comment <text>', 'kept in the report')
    .addHelpText(
      'after',
      '\nWho requested a run cannot approve it. Exits 1 with the reason when the run refuses.\n\nExample:\n  runbook approve whisper-transcriber --by erin@example.com --plan 3f2a9c61b07d',
    )
    .action((service: string, options: ApproveOptions) =>
      send(context, service, 'approve', options, {
        planDigest: options.plan,
        gate: options.gate,
        comment: options.comment,
      }),
    );
}
