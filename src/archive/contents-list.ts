import type { RelationName } from './relation-name.ts';

/**
 * The contents list of an archive, read line by line from `pg_restore --list`. A line is
 * `215; 1259 16385 TABLE DATA public customer owner`: names are not quoted there, only line breaks are replaced by spaces.
 */
export class ContentsList {
  /** Every beginning, up to a space, of the `schema name owner` of a table's data: names themselves may hold spaces. */
  readonly #tableData = new Set<string>();
  #entries = 0;
  #tables = 0;

  get entries(): number {
    return this.#entries;
  }

  get tableDataEntries(): number {
    return this.#tables;
  }

  addLine(line: string): void {
    const entry = /^\d+; \d+ \d+ (?<what>.*)$/.exec(line)?.groups?.['what'];
    if (entry === undefined) return;
    this.#entries += 1;
    const data = /^TABLE DATA (?<names>.*)$/.exec(entry)?.groups?.['names'];
    if (data === undefined) return;
    this.#tables += 1;
    for (let space = data.indexOf(' '); space >= 0; space = data.indexOf(' ', space + 1)) {
      this.#tableData.add(data.slice(0, space));
    }
  }

  hasDataOf({ schema, name }: RelationName): boolean {
    return this.#tableData.has(`${schema} ${name}`.replaceAll(/[\r\n]/g, ' '));
  }
}
