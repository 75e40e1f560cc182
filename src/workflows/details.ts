import { approveCommands } from '../contract/commands.ts';
import type { RunStatus } from '../contract/status.ts';

/** The Markdown that the Temporal UI shows as current details of a run. */
export function detailsMarkdown(status: RunStatus): string {
  const lines = [
    `**${status.service} ${status.releaseTag}** for ${status.changeTicket}, requested by ${status.requestedBy}`,
    '',
    `Stage: **${status.outcome ?? status.stage}**${status.step ? `, step \`${status.step.id}\` (${status.step.summary})` : ''}`,
  ];
  if (status.trouble) lines.push('', `Trouble: ${status.trouble}`);
  if (status.windowEnd) {
    const until = status.pointOfNoReturn ? `; point of no return: ${status.pointOfNoReturn}` : '';
    lines.push('', `The change window ends ${status.windowEnd}${until}`);
  }
  lines.push(...waitingLines(status));
  if (status.obligations.length > 0) {
    lines.push(
      '',
      'Obligations:',
      ...status.obligations.map(({ name, kind, status: state }) => `- ${kind} \`${name}\`: ${state}`),
    );
  }
  if (status.refusals.count > 0) {
    const last = status.refusals.last.at(-1);
    lines.push(
      '',
      `Refused messages: ${status.refusals.count}${last ? `, the last: ${last.message}: ${last.why}` : ''}`,
    );
  }
  return lines.join('\n').slice(0, 15_000);
}

function waitingLines(status: RunStatus): string[] {
  const { waiting, service } = status;
  if (!waiting) return [];
  switch (waiting.for) {
    case 'approval': {
      const given = waiting.approvedBy.length > 0 ? ` (given by ${waiting.approvedBy.join(', ')})` : '';
      return [
        '',
        `Waits for **${waiting.missing}** approval(s)${given} of plan \`${waiting.planDigest}\` until ${waiting.until}`,
        '',
        '```',
        ...Object.values(approveCommands(service, waiting.planDigest, waiting.signatures)),
        '```',
      ];
    }
    case 'qa':
      return ['', `Waits for QA until ${waiting.until}`];
    case 'window':
      return ['', `Waits for the change window to open at ${waiting.until}`];
    case 'recovery':
      return ['', `**A person must decide**: ${waiting.why}`, '', `Possible: ${waiting.actions.join(', ')}`];
  }
}
