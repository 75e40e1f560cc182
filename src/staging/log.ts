/** What the programs of a dry run wrote, in order, bounded, for the object store. Lines arrive redacted. */
export class StagingLog {
  static readonly limit = 4 * 1024 * 1024;
  #text = '';
  #dropped = 0;

  heading(text: string): void {
    this.#add(`${this.#text === '' ? '' : '\n'}==> ${text}`);
  }

  line(text: string): void {
    this.#add(text);
  }

  #add(text: string): void {
    if (this.#text.length + text.length > StagingLog.limit) this.#dropped += 1;
    else this.#text += `${text}\n`;
  }

  toString(): string {
    return this.#dropped === 0 ? this.#text : `${this.#text}[${this.#dropped} more lines]\n`;
  }
}
