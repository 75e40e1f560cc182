import type { UpgradeInput } from '../../contract/evidence/upgrade.ts';
import type { ArchivedFootprint } from '../../contract/evidence/rehearsal.ts';
import { conflicts, isWithin } from '../../postgres/lock-modes.ts';
import type { HeldLock, LockWait } from '../../postgres/lock-waits.ts';
import type { RunStore } from '../run-store.ts';
import { readStoredObjectMap, readStoredText } from '../stored-text.ts';

export type LockJudgement = 'within' | 'beyond' | { readonly notKnown: string };

/** What the rehearsal was seen to lock, as far as a wait in production can be judged by it. */
export interface RehearsedLocks {
  /** @param revision that runs; empty where it is not known */
  judge(wait: LockWait, revision: string): LockJudgement;
  /** Does a session with these locks surely keep the migration from one that it took in the rehearsal? */
  areInTheWay(held: readonly HeldLock[]): boolean;
}

const KINDS_OF_RELATIONS: readonly string[] = ['table', 'index', 'view', 'materialized-view', 'sequence'];

/**
 * Reads the rehearsal's locks and what was there before the upgrade. A rehearsal that was only sampled, or cannot be read,
 * makes no wait suspicious: it is noted.
 */
export async function readRehearsedLocks(
  { footprint, before, graph }: UpgradeInput,
  store: RunStore,
  signal: AbortSignal,
): Promise<RehearsedLocks> {
  let rehearsed: ArchivedFootprint;
  let there: ReadonlySet<string>;
  try {
    rehearsed = JSON.parse(await readStoredText(store, footprint, signal)) as ArchivedFootprint;
    const { objects } = await readStoredObjectMap(store, before.objectMap, signal);
    there = new Set(objects.filter(({ kind }) => KINDS_OF_RELATIONS.includes(kind)).map(({ name }) => name));
  } catch (error) {
    signal.throwIfAborted();
    const why = `the rehearsal's locks cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    return { judge: ({ kind }) => (kind === 'relation' ? { notKnown: why } : 'within'), areInTheWay: () => false };
  }
  const modes = Map.groupBy(rehearsed.locks, ({ relation }) => relation);
  const wholeRevisions = new Set(
    graph.path.filter(({ transactional }) => transactional === 'yes').map(({ revision }) => revision),
  );
  const allWhole = wholeRevisions.size === graph.path.length;

  return {
    judge: ({ kind, relation, mode, session, waitedFor }, revision) => {
      // What the migration makes itself, the system's own and extensions' relations are not what the rehearsal compares.
      if (kind !== 'relation' || relation === null || !there.has(relation)) return 'within';
      const held = (modes.get(relation) ?? []).map((lock) => lock.mode);
      if (isWithin(mode, held)) return 'within';
      if (rehearsed.locksBy !== 'statements')
        return { notKnown: `${waitedFor}: the rehearsal's locks were only sampled` };
      // Locks that end with their statement may have passed unseen between two looks.
      const isWhole = revision === '' ? allWhole : wholeRevisions.has(revision);
      if (!isWhole || session.class === 'concurrent') {
        return {
          notKnown: `${waitedFor}: not seen in the rehearsal, where locks outside of a transaction may have passed unseen`,
        };
      }
      return 'beyond';
    },
    areInTheWay: (held) =>
      held.some(({ relation, mode }) => modes.get(relation)?.some((taken) => conflicts(taken.mode, mode)) ?? false),
  };
}
