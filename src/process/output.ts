import { StringDecoder } from 'node:string_decoder';
import type { Redactor } from './redactor.ts';

const cutMark = ' [cut]';

/**
 * Splits a byte stream into redacted lines with bounded memory: of a line longer than `lineLength` characters the start
 * is kept and the rest is dropped. A carriage return alone also ends a line, so progress meters are lines. Blank lines
 * are left out.
 */
export class LineSplitter {
  readonly #decoder = new StringDecoder('utf8');
  readonly #redactor: Redactor;
  readonly #lineLength: number;
  readonly #emit: (line: string) => void;
  #pending = '';
  #dropping = false;

  constructor(redactor: Redactor, lineLength: number, emit: (line: string) => void) {
    this.#redactor = redactor;
    this.#lineLength = lineLength;
    this.#emit = emit;
  }

  write(chunk: Uint8Array): void {
    this.#accept(this.#decoder.write(chunk));
  }

  end(): void {
    this.#accept(this.#decoder.end());
    if (this.#pending !== '' && !this.#dropping) this.#emit(this.#shown(this.#pending));
    this.#pending = '';
    this.#dropping = false;
  }

  #accept(text: string): void {
    const parts = text.split(/\r\n|\n|\r/);
    for (const [index, part] of parts.entries()) {
      if (index > 0) this.#endLine();
      this.#append(part);
    }
  }

  #append(part: string): void {
    if (this.#dropping) return;
    // A secret that begins inside the part shown must be seen whole to be recognised.
    const needed = this.#lineLength + this.#redactor.longest + 1;
    this.#pending += part.slice(0, Math.max(0, needed - this.#pending.length));
    if (this.#pending.length < needed) return;
    this.#emit(this.#shown(this.#pending));
    this.#pending = '';
    this.#dropping = true;
  }

  #endLine(): void {
    if (!this.#dropping && this.#pending !== '') this.#emit(this.#shown(this.#pending));
    this.#pending = '';
    this.#dropping = false;
  }

  #shown(line: string): string {
    return line.length <= this.#lineLength
      ? this.#redactor.redact(line)
      : this.#redactor.redactStart(line, this.#lineLength) + cutMark;
  }
}

/** The last `limit` characters, at most, of the lines it was given. */
export class Tail {
  readonly #limit: number;
  #text = '';

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(line: string): void {
    this.#text += `${line}\n`;
    if (this.#text.length > this.#limit * 2) this.#text = this.#text.slice(-this.#limit);
  }

  toString(): string {
    return this.#text.slice(-this.#limit);
  }
}
