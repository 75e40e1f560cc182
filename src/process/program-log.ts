import type { OutputStream } from './options.ts';

/** Characters kept of the end; what is cut is said. */
const KEPT = 8 * 1024 * 1024;

const HEAD = [
  '# Values of rows that PostgreSQL and SQLAlchemy put beside statements and errors are struck out: ? stands for them.',
  "# What the service's own code prints stands as it was written, but for the secrets of the profile.",
];

/** What programs wrote, in order, bounded, for the object store. Lines arrive redacted, and with `rowValues: 'struck-out'`. */
export class ProgramLog {
  readonly #lines: string[] = [];
  #length = 0;
  #dropped = 0;

  line(stream: OutputStream, text: string): void {
    this.#add(`${new Date().toISOString()} ${stream}: ${text}`);
  }

  /** What a reader should know beside it. */
  note(text: string): void {
    this.line('stderr', `[migration-runbook] ${text}`);
  }

  /** Which program comes next. */
  heading(text: string): void {
    this.#add(`${this.#lines.length === 0 ? '' : '\n'}==> ${text}`);
  }

  get text(): string {
    const cut = this.#dropped > 0 ? [`[${this.#dropped} earlier lines were dropped]`] : [];
    return `${[...HEAD, ...cut, ...this.#lines].join('\n')}\n`;
  }

  #add(line: string): void {
    this.#lines.push(line);
    this.#length += line.length + 1;
    while (this.#length > KEPT) {
      this.#length -= this.#lines.shift()!.length + 1;
      this.#dropped += 1;
    }
  }
}
