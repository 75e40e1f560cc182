/** Section 7.3 of the document: restoration from the backup, and what it costs. */
import type { RestoreInput, SwapEvidence, SwapInput, WayBackCost } from '../../contract/evidence/restore.ts';
import { isRefusal } from '../failure.ts';
import { raiseFence, withPoolerPaused } from '../obligations.ts';
import type { MigrationRun } from '../run.ts';
import { CHANGE, EXPORT, LOOK, TRANSFER } from '../step-policies.ts';
import type { Before } from './apply.ts';

/** What a restore would take back, for whoever decides. A decision does not wait for a number that cannot be had. */
export async function estimateWayBack(run: MigrationRun, before: Before): Promise<void> {
  try {
    run.state.wayBack = await run.step(
      'recovery.cost',
      'What a restore would take back, estimated',
      LOOK,
      (activities) => activities.estimateWayBack(restoreInput(run, before)),
    );
  } catch (error) {
    run.troubleOf(error);
    run.state.wayBack = undefined;
  }
}

function restoreInput(run: MigrationRun, before: Before): RestoreInput {
  const { latestBackup: backup, provenFence, isBackupBehindFence } = run.state;
  if (!backup) throw new Error('restore was offered without a verified backup');
  const fencedSince = provenFence && isBackupBehindFence ? backup.capturedAt : undefined;
  return { ...run.input(), backup, before: before.state, ...(fencedSince !== undefined && { fencedSince }) };
}

/**
 * Where the fence was lifted already it is raised again: what is written while the copy is made ready would be in nobody's
 * list. A restore does not wait for it at any price.
 */
async function stopWrites(run: MigrationRun): Promise<void> {
  if (run.state.fence !== undefined) return;
  try {
    await raiseFence(run, 'recovery.fence', 'restore');
  } catch (error) {
    run.troubleOf(error);
    run.state.openItems.push(
      'the fence could not be raised again for the restore: what was written during it is in the database kept aside alone',
    );
  }
}

/** The backup in the place of production, which is kept aside. Production is untouched until the swap. */
export async function restore(run: MigrationRun, before: Before): Promise<void> {
  const isEarlierUnanswered = run.state.isSwapUnanswered;
  await stopWrites(run);
  const input = restoreInput(run, before);
  const restored = await run.step(
    'recovery.restore',
    'The backup into a fresh database, compared with its ledger',
    TRANSFER,
    (activities) => activities.restoreFreshDatabase(input),
  );
  await salvage(run, { ...input, restored });
  const swapped = await withPoolerPaused(run, 'recovery.restore/pooler', () => {
    run.state.isSwapUnanswered = true;
    return run
      .step('recovery.restore/swap', 'Swap the fresh database in, keep the old one aside', CHANGE, (activities) =>
        activities.swapDatabases({ ...input, restored }),
      )
      .catch((error: unknown) => {
        // Whoever refuses has found the restored database still beside production.
        if (isRefusal(error)) run.state.isSwapUnanswered = isEarlierUnanswered;
        throw error;
      });
  });
  run.state.isSwapUnanswered = isEarlierUnanswered;
  run.state.keptAside = swapped.keptAside;
  run.state.openItems.push(...swapped.openItems);
  if (input.fencedSince === undefined) run.state.openItems.push(broughtBackText(run, swapped));
}

/** What a swap that has not answered may have done, for the gate and for the end; empty where none is. */
export const unansweredSwapText = ({ state }: MigrationRun): string =>
  state.isSwapUnanswered
    ? `a swap of databases was begun and has not answered: if it went through, production is the restored backup, and what was production is kept aside ("runbook quarantine list"), with what users wrote since the backup`
    : '';

/** Production was written until the swap: what came after the export is in the replaced database alone. */
function broughtBackText({ state }: MigrationRun, { keptAside, quarantineUntil }: SwapEvidence): string {
  const exported = state.salvaged.length === 0 ? 'nothing was exported' : `exported: ${state.salvaged.join(', ')}`;
  return `rows that users wrote after the backup wait to be brought back (${exported}; those between the export and the swap are in database ${keptAside} only, kept until ${quarantineUntil}). Sequences stand where the backup had them: new rows may have taken numbers of these`;
}

/** Neither the backup nor the replaced database has it: people must not look for it in the export. */
function tellLost({ state: { openItems } }: MigrationRun, { since }: WayBackCost, lost: readonly string[]): void {
  const text = `what users wrote between the backup (${since}) and the migration to what it dropped is lost, unless it moved it elsewhere: ${lost.join(', ')}`;
  // A second export of the same run finds the same.
  if (lost.length > 0 && !openItems.includes(text)) openItems.push(text);
}

/**
 * Exports the rows that only the replaced database has. The database itself is kept aside: production does not wait, broken,
 * for an export that fails.
 */
async function salvage(run: MigrationRun, input: SwapInput): Promise<void> {
  const { fencedSince } = input;
  if (fencedSince !== undefined) {
    // Production is down meanwhile, and nobody but the migration has written since the backup.
    run.judge('recovery.salvage', 'Nothing of the users’ is taken back: the fence was up', () => ({ fencedSince }));
    return;
  }
  try {
    const { cost, lost, archive } = await run.step(
      'recovery.salvage',
      'Rows that only the replaced database has, exported',
      EXPORT,
      (activities) => activities.salvageRows(input),
    );
    run.state.wayBack = cost;
    tellLost(run, cost, lost);
    // An export of an earlier try is kept: a swap whose answer was lost has taken its rows out of production.
    if (archive) run.state.salvaged.push(archive.uri);
  } catch (error) {
    run.troubleOf(error);
    run.state.openItems.push(
      'the rows that a restore takes back could not be exported (recovery.salvage): the database kept aside has them',
    );
  }
}
