import type { Client } from 'pg';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import { dropMarkedRole, listMarkedRoles } from '../postgres/restore/role-mark.ts';
import { endSessions } from '../postgres/sessions.ts';
import type { Leftover } from './leftover.ts';
import { runStartedAt } from './run-time.ts';

type LeftoverRole = Leftover & { readonly kind: 'role' };

/** Logins of the scratch server that carry a mark of the service. */
export async function findLeftoverRoles(client: Client, service: string): Promise<LeftoverRole[]> {
  const roles = await listMarkedRoles(client);
  return roles
    .filter(({ mark }) => mark.service === service)
    .map(({ name, oid, mark }) => ({
      kind: 'role',
      server: 'scratch',
      name,
      oid,
      owner: { service, runId: mark.runId, workflowId: mark.workflowId, step: 'dry-run.rehearsal' },
      since: runStartedAt(mark.runId),
      expiresAt: mark.expiresAt,
      bytes: null,
    }));
}

/**
 * Drops a login that was found before, if it is still the one that was found, whoever is logged in with it.
 *
 * @throws StepError `StateUnexpected` where it is no longer what was found
 */
export async function dropLeftoverRole(
  client: Client,
  { name, oid, owner, expiresAt }: LeftoverRole,
  signal: AbortSignal,
): Promise<void> {
  const now = (await listMarkedRoles(client)).find((role) => role.oid === oid);
  if (now?.name !== name || now.mark.runId !== owner.runId || now.mark.expiresAt !== expiresAt) {
    throw new StepError(
      STEP_ERRORS.stateUnexpected,
      `role "${name}" is no longer what was found: it was renamed, dropped or marked anew`,
    );
  }
  await endSessions(client, { of: { role: name }, signal });
  await dropMarkedRole(client, name);
}
