import { condition, setCurrentDetails } from '@temporalio/workflow';

/** Who holds the lease, for whoever finds it in the list of workflows. */
export interface LeaseHolder {
  readonly workflowId: string;
  readonly runId: string;
  readonly database: string;
}

/**
 * One run per database. The workflow id names the database and the server keeps it unique; the lease does nothing but
 * exist, and ends with its parent, however that ends.
 */
export async function databaseLease(holder: LeaseHolder): Promise<void> {
  setCurrentDetails(`Held by **${holder.workflowId}** (run ${holder.runId}) for the database \`${holder.database}\``);
  await condition(() => false);
}

export const leaseIdOf = (systemIdentifier: string, database: string): string =>
  `lease-${systemIdentifier}-${database}`;
