import type { Command } from 'commander';
import { SIGNATURE_NAMESPACE } from '../contract/messages.ts';
import { withClient } from './connection.ts';
import type { CommandContext } from './context.ts';
import { messageCommand, send, type SendOptions } from './send-message.ts';
import { signPlan } from './sign-plan.ts';

export interface ApproveOptions extends SendOptions {
  readonly plan?: string;
  readonly gate?: string;
  readonly comment?: string;
  readonly sign?: string;
}

export function addApprove(program: Command, context: CommandContext): void {
  messageCommand(program, 'approve')
    .description('approve the plan a run waits with, or what QA has looked at')
    .option(
      '--plan <digest>',
      'digest of the plan you have read, its first 12 digits or more; the gate production wants it',
    )
    .option('--gate <gate>', 'production or qa: refused where another gate is open')
    .option('--comment <text>', 'kept in the report')
    .option(
      '--sign <key>',
      'sign the plan with this SSH key, by ssh-keygen: a private key, or the public key of one that your agent holds',
    )
    .addHelpText(
      'after',
      `
Who requested a run cannot approve it. Exits 1 with the reason when the run refuses.

With --sign the plan is read from the run, its digest is computed here and compared with --plan, and that digest is signed:
ssh-keygen -Y sign -n ${SIGNATURE_NAMESPACE}. Your public key must stand under approvals.signers of the profile.

Read it first: runbook plan SERVICE

Examples:
  runbook approve whisper-transcriber --by erin@example.com --plan 3f2a9c61b07d
  runbook approve whisper-transcriber --by erin@example.com --plan 3f2a9c61b07d --sign ~/.ssh/id_ed25519`,
    )
    .action(async (service: string, options: ApproveOptions) => {
      const { plan, gate, comment, sign } = options;
      const signed =
        sign === undefined
          ? { planDigest: plan }
          : await withClient(options, (client) => signPlan(client, service, plan, sign));
      await send(context, service, 'approve', options, { ...signed, gate, comment });
    });
}
