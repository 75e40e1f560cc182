/** Paste-ready commands, the same in notifications, errors, `runbook status` and the UI. */
import { workflowIdOf } from './request.ts';

export interface PasteReady {
  readonly runbook: string;
  readonly temporal: string;
  readonly tctl: string;
}

export function messageCommands(service: string, name: string, fields: Readonly<Record<string, string>>): PasteReady {
  const id = workflowIdOf(service);
  const json = JSON.stringify(fields);
  const options = Object.entries(fields)
    .map(([field, value]) => ` ${OPTION_OF[field] ?? `--${field}`} ${quoted(value)}`)
    .join('');
  return {
    runbook: `runbook ${name} ${service}${options}`,
    temporal: `temporal workflow signal --workflow-id ${id} --name ${name} --input ${quoted(json)}`,
    tctl: `tctl workflow signal --workflow_id ${id} --name ${name} --input ${quoted(json)}`,
  };
}

/**
 * The commands that approve a plan. A signature is made by `runbook` alone, from a key that each approver names; by hand it is
 * described in the operator's guide.
 */
export function approveCommands(
  service: string,
  planDigest: string,
  signatures: 'optional' | 'required' | undefined,
): Pick<PasteReady, 'runbook'> & Partial<PasteReady> {
  const commands = messageCommands(service, 'approve', { by: 'you@example.com', planDigest });
  return signatures === 'required' ? { runbook: `${commands.runbook} --sign ~/.ssh/id_ed25519` } : commands;
}

const OPTION_OF: Readonly<Record<string, string>> = { planDigest: '--plan' };

/** One POSIX shell word. */
export const quoted = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
