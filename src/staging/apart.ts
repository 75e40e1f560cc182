/** Staging is not production: looked at before anything writes, not believed from a profile. */
import type { DatabaseIdentity } from '../contract/evidence/production.ts';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import { findConfusion } from '../postgres/access.ts';
import { type ConnectionOptions, withConnection } from '../postgres/connection.ts';
import { isSameDatabase, readIdentity } from '../postgres/identity.ts';

export interface ApartRequest {
  /** Resolved addresses. */
  readonly production: string;
  readonly stagingMigrator: string;
  /** Addresses in the children's environments, by variable. */
  readonly addresses: Readonly<Record<string, string>>;
  /** The variable the service reads its database from. */
  readonly urlVariable: string;
  /** What production was found to be at the beginning of the run, where that is known. */
  readonly expected?: DatabaseIdentity;
  readonly session: ConnectionOptions;
}

/**
 * @throws StepError `StepRefused` with every finding; `OutsideUnavailable` when production or staging cannot be asked, for
 *   what cannot be told apart is not written to
 */
export async function requireApart(request: ApartRequest): Promise<void> {
  const { production, stagingMigrator, session } = request;
  const findings: string[] = [];
  if (request.expected !== undefined)
    findings.push(...(await changedProduction(production, request.expected, session)));
  const asProduction = { url: production, options: session };
  await withConnection(stagingMigrator, session, async (staging) => {
    findings.push(...(await findConfusion(staging, 'databases.staging', asProduction)));
    for (const [variable, address] of Object.entries(request.addresses)) {
      const subject = `${variable} of staging's environment`;
      const own = variable === request.urlVariable;
      const reached = await reach(address, session, async (client) => {
        findings.push(...(await findConfusion(client, subject, asProduction)));
        if (own && !(await isSameDatabase(client, staging))) {
          findings.push(
            `${subject} leads to another database than databases.staging: the tests and the application would not see what was migrated`,
          );
        }
      });
      // What cannot be reached from here cannot be written from here either; but the service needs its own.
      if (reached !== undefined && own) findings.push(`${subject}: ${reached.message}`);
    }
  });
  if (findings.length > 0) throw refusal(findings);
}

async function changedProduction(
  production: string,
  expected: DatabaseIdentity,
  session: ConnectionOptions,
): Promise<string[]> {
  const found = await withConnection(production, session, (client) => readIdentity(client));
  return found.systemIdentifier === expected.systemIdentifier && found.database === expected.database
    ? []
    : ['databases.production leads to another database than at the beginning of the run'];
}

/** @returns why it cannot be reached, undefined when it was */
async function reach(
  address: string,
  session: ConnectionOptions,
  work: (client: Parameters<typeof readIdentity>[0]) => Promise<void>,
): Promise<StepError | undefined> {
  try {
    await withConnection(address, session, work);
    return undefined;
  } catch (error) {
    if (session.signal.aborted || !(error instanceof StepError)) throw error;
    if (error.type !== STEP_ERRORS.refused && error.type !== STEP_ERRORS.unavailable) throw error;
    return error;
  }
}
