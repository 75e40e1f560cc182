/** What a row is matched by, what must be equal for it to be the same row, and where it is. The first two in ASCII. */
export type MergedRow = readonly [key: string, digest: string, place: string];

export interface DifferingRow {
  /** `inserted`: only production has it. `deleted`: only the copy has it. `updated`: both, by key, with other values. */
  readonly kind: 'inserted' | 'updated' | 'deleted';
  /** In production for `inserted` and `updated`, in the copy for `deleted`. */
  readonly place: string;
}

/** Rows of one side in the order of key and digest, by code units, fetched some thousand at a time. */
export class SortedRows {
  readonly #fetch: () => Promise<readonly MergedRow[]>;
  #rows: readonly MergedRow[] = [];
  #place = 0;
  #ended = false;

  /** @param fetch the next rows; none at the end */
  constructor(fetch: () => Promise<readonly MergedRow[]>) {
    this.#fetch = fetch;
  }

  /** Undefined at the end, and before `fill`. */
  get row(): MergedRow | undefined {
    return this.#rows[this.#place];
  }

  /** All that was fetched has been read. */
  get drained(): boolean {
    return this.#place >= this.#rows.length && !this.#ended;
  }

  advance(): void {
    this.#place += 1;
  }

  async fill(): Promise<void> {
    if (!this.drained) return;
    this.#rows = await this.#fetch();
    this.#place = 0;
    this.#ended = this.#rows.length === 0;
  }
}

/** Both sides in step, with a few thousand rows of each in memory. Equal rows are paired off one by one, so duplicates count. */
export async function* mergeSorted(
  production: SortedRows,
  copy: SortedRows,
): AsyncGenerator<DifferingRow, void, undefined> {
  for (;;) {
    if (production.drained || copy.drained) await both(production.fill(), copy.fill());
    const [our, their] = [production.row, copy.row];
    if (our === undefined && their === undefined) return;
    if (our !== undefined && (their === undefined || our[0] < their[0])) {
      yield { kind: 'inserted', place: our[2] };
      production.advance();
    } else if (their !== undefined && (our === undefined || their[0] < our[0])) {
      yield { kind: 'deleted', place: their[2] };
      copy.advance();
    } else {
      if (our![1] !== their![1]) yield { kind: 'updated', place: our![2] };
      production.advance();
      copy.advance();
    }
  }
}

/** Waits for both, so that neither session is still busy when the other has failed. */
export async function both<A, B>(one: Promise<A>, other: Promise<B>): Promise<[A, B]> {
  const [first, second] = await Promise.allSettled([one, other]);
  if (first.status === 'rejected') throw first.reason;
  if (second.status === 'rejected') throw second.reason;
  return [first.value, second.value];
}
