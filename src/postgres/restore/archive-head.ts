import { STEP_ERRORS, StepError } from '../../contract/errors.ts';

/** Does this beginning of a dump hold its whole contents list? `pg_restore --list` fails on one that does not. */
export type HoldsContentsList = (beginning: Buffer) => Promise<boolean>;

const FIRST_TRY = 256 * 1024;
/** A million large objects of a server before PostgreSQL 17, which listed each, take about 200 MB. */
const LIMIT = 1024 ** 3;

/**
 * The first part of a custom-format dump: header and contents list, which holds the definition of everything, indexes and
 * constraints included. After it come the rows. Collected while the stream passes by, then cut off where the list ends, so
 * that what is kept of a dump holds no row of the database.
 *
 * Where the list ends is not written anywhere. It is found by trying: whether `pg_restore` can read the list of a
 * beginning depends on nothing but its length.
 */
export class ArchiveHead {
  readonly #holdsList: HoldsContentsList;
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #tried = 0;
  #nextTry = FIRST_TRY;
  #found: Promise<Buffer> | undefined;

  constructor(holdsList: HoldsContentsList) {
    this.#holdsList = holdsList;
  }

  /** Takes the next chunk of the stream. Waits, now and then, for an attempt to read the list. */
  async add(chunk: Uint8Array): Promise<void> {
    if (this.#found !== undefined) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.byteLength;
    if (this.#bytes >= this.#nextTry) await this.#try();
  }

  /**
   * Header and contents list, to the byte. To be asked for when the stream has ended.
   *
   * @throws StepError `BackupDamaged` when there is none
   */
  async contentsList(): Promise<Buffer> {
    if (this.#found === undefined) await this.#try();
    if (this.#found === undefined) throw withoutList('its contents list cannot be read');
    return this.#found;
  }

  async #try(): Promise<void> {
    const beginning = Buffer.concat(this.#chunks);
    if (await this.#holdsList(beginning)) {
      this.#chunks = [];
      this.#found = this.#cut(beginning);
      // Runs beside the stream; a failure is met by whoever asks for the list.
      this.#found.catch(() => undefined);
      return;
    }
    if (this.#bytes >= LIMIT) throw withoutList(`its contents list does not end within ${LIMIT} bytes`);
    this.#chunks = [beginning];
    this.#tried = this.#bytes;
    this.#nextTry = Math.min(2 * this.#bytes, LIMIT);
  }

  async #cut(beginning: Buffer): Promise<Buffer> {
    let [tooShort, enough] = [this.#tried, beginning.byteLength];
    while (enough - tooShort > 1) {
      const middle = Math.floor((tooShort + enough) / 2);
      if (await this.#holdsList(beginning.subarray(0, middle))) enough = middle;
      else tooShort = middle;
    }
    return Buffer.from(beginning.subarray(0, enough));
  }
}

const withoutList = (what: string): StepError =>
  new StepError(STEP_ERRORS.backupDamaged, `The backup is no dump that can be restored: ${what}.`);
