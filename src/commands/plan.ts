import type { Command } from 'commander';
import { approveCommands } from '../contract/commands.ts';
import { DIGEST_PREFIX, type SealedPlan } from '../contract/plan.ts';
import { planFacts, schemaChanges } from '../report/plan-facts.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { withClient, withConnectionOptions } from './connection.ts';
import type { CommandContext } from './context.ts';
import { readPlan } from './run-plan.ts';
import { oneLine } from './one-line.ts';

interface PlanOptions extends TemporalAddress {
  readonly run?: string;
  readonly json?: true;
}

export function addPlan(program: Command, { output }: CommandContext): void {
  withConnectionOptions(program.command('plan'))
    .description('the plan that is approved, in words; its digest is computed anew')
    .argument('<service>', 'name of the service')
    .option('--run <id>', 'an earlier run; default the last one')
    .option('--json', 'the whole plan as one JSON document')
    .addHelpText(
      'after',
      '\nExamples:\n  runbook plan whisper-transcriber\n  runbook plan whisper-transcriber --json | jq .plan.rehearsal',
    )
    .action(async (service: string, options: PlanOptions) => {
      await withClient(options, async (client) => {
        const sealed = await readPlan(client, service, options.run);
        output.print(options.json ? JSON.stringify(sealed, null, 2) : planText(sealed));
      });
    });
}

/** Everything a person needs to decide, a line a fact; whole lists are in `--json`. */
export function planText({ plan, digest, uri }: SealedPlan): string {
  const changes = schemaChanges(plan);
  const { service, releaseTag, commit, changeTicket, requestedBy } = plan;
  const listed = (title: string, lines: readonly string[], most = 50): readonly string[] =>
    lines.length === 0
      ? []
      : [
          '',
          `${title}:`,
          ...lines.slice(0, most).map((line) => `  ${oneLine(line)}`),
          ...(lines.length > most ? [`  and ${lines.length - most} more: --json`] : []),
        ];
  return [
    `${service} ${releaseTag} (${changeTicket}), commit ${commit}, requested by ${requestedBy}`,
    `plan ${digest}`,
    `     opening ${plan.opening} of the gate, run ${plan.runId}, ${uri}`,
    '',
    ...planFacts(plan).map(([name, text]) => `${name}: ${oneLine(text)}`),
    ...listed(
      'Revisions, in order',
      plan.revisions.map(
        ({ revision, file, sha256, transactional, downgrade }) =>
          `${revision}  ${file}  sha256 ${sha256.slice(0, DIGEST_PREFIX)}  in one transaction: ${transactional}, downgrade ${downgrade}`,
      ),
    ),
    ...listed('Changes of the schema, by the rehearsal', changes),
    ...listed(
      'Linter',
      plan.findings.map(
        ({ rule, revision, message, level }) =>
          `${rule}${revision === null ? '' : ` in ${revision}`} (${level}): ${message}`,
      ),
    ),
    ...listed('Warnings', plan.warnings),
    '',
    approveCommands(service, digest, plan.approvals.signatures).runbook,
  ].join('\n');
}
