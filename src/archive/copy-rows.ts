import { parseQualifiedName, relationKey } from './relation-name.ts';

const NEWLINE = 0x0a;
const BACKSLASH = 0x5c;
const DOT = 0x2e;

/** Longest SQL line kept while looking for a COPY statement; one with 1,600 columns of 63 bytes fits. */
const LONGEST_LINE = 256 * 1024;

/** Header of their data; `BLOB` in dumps of old versions. */
const LARGE_OBJECTS = /^-- Data for Name: .*; Type: (?:BLOBS|BLOB);/;

/**
 * Counts the rows of each table, and the large objects, in the SQL that `pg_restore --file=-` writes. In COPY's text format a line break inside a
 * value is escaped, so a line is a row and the line `\.` ends the table (PostgreSQL documentation, "COPY").
 */
export class CopyRowCounter {
  readonly rows = new Map<string, number>();
  #bytes = 0;
  #largeObjects = 0;
  #inLargeObjects: 'yes' | 'no' = 'no';
  /** The table whose data is passing; undefined between tables. */
  #table: string | undefined;
  #count = 0;
  /** Data of a table follows its comment header: SQL text inside a function that looks like COPY is not taken for one. */
  #announced = false;
  /** Beginning of the line that the last chunk left open, and its whole length. */
  #open: Buffer = Buffer.alloc(0);
  #openLength = 0;

  get bytes(): number {
    return this.#bytes;
  }

  /** Large objects whose data was written. */
  get largeObjects(): number {
    return this.#largeObjects;
  }

  add(chunk: Buffer): void {
    this.#bytes += chunk.byteLength;
    let start = 0;
    while (start < chunk.byteLength) {
      const end = chunk.indexOf(NEWLINE, start);
      if (end < 0) {
        this.#keepOpen(chunk.subarray(start));
        return;
      }
      if (this.#table === undefined) this.#sqlLine(this.#wholeLine(chunk, start, end));
      else this.#dataLine(chunk, start, end);
      this.#openLength = 0;
      start = end + 1;
    }
  }

  #dataLine(chunk: Buffer, start: number, end: number): void {
    const line = this.#openLength === 0 ? undefined : this.#wholeLine(chunk, start, end);
    const isEnd =
      line === undefined
        ? end - start === 2 && chunk[start] === BACKSLASH && chunk[start + 1] === DOT
        : line.byteLength === 2 && line[0] === BACKSLASH && line[1] === DOT;
    if (!isEnd) {
      this.#count += 1;
      return;
    }
    this.rows.set(this.#table!, (this.rows.get(this.#table!) ?? 0) + this.#count);
    this.#table = undefined;
    this.#count = 0;
  }

  #sqlLine(line: Buffer): void {
    if (line.byteLength === 0) return;
    const text = line.toString('utf8');
    if (text.startsWith('-- ')) this.#inLargeObjects = LARGE_OBJECTS.test(text) ? 'yes' : 'no';
    else if (this.#inLargeObjects === 'yes' && text.startsWith('SELECT pg_catalog.lo_open(')) this.#largeObjects += 1;
    if (text.startsWith('-- Data for Name: ') || text.startsWith('-- Data Pos: ')) this.#announced = true;
    else if (this.#announced && text.startsWith('COPY ') && text.endsWith(' FROM stdin;')) {
      this.#table = relationKey(parseQualifiedName(text.slice('COPY '.length)));
      this.#announced = false;
    } else if (text !== '--') this.#announced = false;
  }

  #keepOpen(piece: Buffer): void {
    const room = (this.#table === undefined ? LONGEST_LINE : 3) - this.#openLength;
    if (this.#openLength === 0) this.#open = Buffer.alloc(0);
    if (room > 0) this.#open = Buffer.concat([this.#open, piece.subarray(0, room)]);
    this.#openLength += piece.byteLength;
  }

  /** The line as far as it was kept: enough of it to tell what it is. */
  #wholeLine(chunk: Buffer, start: number, end: number): Buffer {
    const rest = chunk.subarray(start, end);
    return this.#openLength === 0 ? rest : Buffer.concat([this.#open, rest]);
  }
}
