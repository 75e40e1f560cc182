import { Context } from '@temporalio/activity';
import type { StepInput, StoredDocument } from '../contract/evidence/step.ts';
import { runFolder } from '../archive/backup-names.ts';
import type { ObjectStore } from '../archive/object-store.ts';
import { withServiceStore } from '../archive/service-store.ts';
import { runTag } from '../postgres/connection.ts';
import type { SecretVault } from '../profile/secret-vault.ts';

/** The part of the bucket that belongs to one run: `<prefix>/<service>/<first run id>/`. */
export interface RunStore {
  readonly store: ObjectStore;
  readonly folder: string;
  /** Stores a text below the run's folder, known secrets struck out. Stored again under the same name, it is replaced. */
  readonly archive: (name: string, text: string, contentType: string) => Promise<StoredDocument>;
  /**
   * Stores a record that a later step reads and compares, as it is: definitions of objects, revisions, digests. A word that
   * happens to be a password must not change what is compared.
   */
  readonly record: (name: string, text: string) => Promise<StoredDocument>;
}

/**
 * Name of an archive of rows. An attempt replaces what the one before it has stored; another count or export does not, nor one of
 * a reset run: the rows of the earlier one may be gone from production by then.
 */
export function rowsArchiveName(kind: 'arrivals' | 'salvage'): string {
  const { activityId, workflowExecution } = Context.current().info;
  const repetition = /#(\d+)$/.exec(activityId)?.[1] ?? '1';
  return `${kind}-${runTag(workflowExecution?.runId ?? '')}-${repetition}`;
}

/**
 * A step's name for what must not be replaced. After a workflow reset another execution of the same run does the step again: by
 * then production may have been changed, and what the execution before has kept may be the only way back.
 */
export function nameInExecution(step: string, runId: string): string {
  const current = Context.current().info.workflowExecution?.runId ?? runId;
  return current === runId ? step : `${step}-${runTag(current)}`;
}

/** Opens the run's store with credentials resolved for this step, and closes it after. */
export async function withRunStore<T>(
  secrets: SecretVault,
  { run, profile }: StepInput,
  signal: AbortSignal,
  work: (store: RunStore) => Promise<T>,
): Promise<T> {
  const folder = runFolder(profile.backup, run);
  return withServiceStore({ profile, secrets, signal }, (store) =>
    work({
      store,
      folder,
      archive: (name, text, contentType) =>
        store.put(`${folder}/${name}`, secrets.redactor.redact(text), contentType, signal),
      record: (name, text) => store.put(`${folder}/${name}`, text, 'application/json', signal),
    }),
  );
}
