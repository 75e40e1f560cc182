import type { ProductionState } from '../../contract/evidence/production.ts';
import type { RunStore } from '../run-store.ts';

type Standing = Pick<ProductionState, 'versionRows' | 'objectMapDigest'>;

interface Recorded {
  /** See `RollbackEvidence.uncounted`. */
  readonly notes: readonly string[];
  /** Where production stood when Alembic was started, or a command of it had ended; null once all of them had. */
  readonly begun: Standing | null;
}

const NAME = 'recovery/rollback.json';

/**
 * What a rollback writes down before it changes anything, for the attempt after it or the next decision to roll back: one that was
 * killed, or failed after its first command, has told nobody what it could not count.
 */
export class RollbackRecord {
  readonly #store: RunStore;
  #last: Standing | null = null;
  /** Where this attempt started Alembic first; null: it has not. */
  first: Standing | null = null;
  readonly earlier: Recorded;

  constructor(store: RunStore, earlier: Recorded) {
    this.#store = store;
    this.earlier = earlier;
  }

  static async read(store: RunStore, signal: AbortSignal): Promise<RollbackRecord> {
    const content = await store.store.get(`${store.folder}/${NAME}`, signal);
    const none: Recorded = { notes: [], begun: null };
    return new RollbackRecord(
      store,
      content === undefined ? none : (JSON.parse(Buffer.from(content).toString('utf8')) as Recorded),
    );
  }

  /** Notes of those before, and what they leave open if production has moved since the last of them was heard of. */
  notesOf(now: Standing): readonly string[] {
    const { notes, begun } = this.earlier;
    if (begun === null || isSame(begun, now)) return notes;
    const from = begun.versionRows.join(', ') || 'no revision';
    return [
      ...notes,
      `an earlier try did not end well, and what it dropped on the way from ${from} to ${now.versionRows.join(', ') || 'no revision'} may not have been counted`,
    ];
  }

  /** Since it was last written, by this attempt. */
  hasMoved(now: Standing): boolean {
    return this.#last !== null && !isSame(this.#last, now);
  }

  async write(notes: readonly string[], at: Standing | null): Promise<void> {
    this.#last = at;
    this.first ??= at;
    const begun = at && { versionRows: at.versionRows, objectMapDigest: at.objectMapDigest };
    await this.#store.record(NAME, JSON.stringify({ notes, begun } satisfies Recorded));
  }
}

export const isSame = (one: Standing, other: Standing): boolean =>
  one.versionRows.join() === other.versionRows.join() && one.objectMapDigest === other.objectMapDigest;
