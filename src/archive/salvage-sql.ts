import { type Client, escapeLiteral } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import type { ComparableColumn } from '../postgres/contents/comparable-tables.ts';
import { boundedIdentifier, sqlName } from '../postgres/identifier.ts';

/** Which rows of a table a salvage table holds. */
export type SalvageKind = 'inserted' | 'updated' | 'deleted';

export interface SalvageTable<Kind extends string = SalvageKind> {
  /** Table of the archive. */
  readonly name: string;
  readonly source: string;
  readonly kind: Kind;
  readonly rows: number;
  /** `type` is the archive's; `was` is there where it is another one in the service's database. */
  readonly columns: readonly { readonly name: string; readonly type: string; readonly was?: string }[];
}

export interface SalvageSource<Kind extends string = SalvageKind> {
  readonly source: string;
  /** What the archive's table is named after. */
  readonly name: string;
  readonly kind: Kind;
  readonly columns: readonly Pick<ComparableColumn, 'name' | 'type' | 'builtIn'>[];
}

/**
 * The SQL text of an archive: plain SQL that psql loads into any database, all or nothing. Rows go through COPY's text
 * format from end to end, in as many pieces as they come; nothing but names is kept here.
 */
export class SalvageSql<Kind extends string = SalvageKind> {
  readonly #schema: string;
  readonly #names = new Set<string>();
  readonly #tables: (Omit<SalvageTable<Kind>, 'rows'> & { rows: number })[] = [];

  constructor(schema: string) {
    this.#schema = schema;
  }

  get tables(): readonly SalvageTable<Kind>[] {
    return this.#tables;
  }

  /** @param about lines for people, put in as comments */
  begin(about: readonly string[]): Buffer {
    return Buffer.from(
      [
        // A line break in a name would end the comment.
        ...about.map((line) => `-- ${line.replaceAll(/[\r\n]/g, ' ')}`),
        String.raw`\set ON_ERROR_STOP on`,
        'BEGIN;',
        `SET LOCAL client_encoding = 'UTF8';`,
        `SET LOCAL standard_conforming_strings = on;`,
        `SET LOCAL DateStyle = 'ISO, YMD';`,
        `SET LOCAL IntervalStyle = 'postgres';`,
        `SET LOCAL xmloption = content;`,
        `SET LOCAL statement_timeout = 0;`,
        `SET LOCAL default_tablespace = '';`,
        `CREATE SCHEMA ${sqlName(this.#schema)};`,
        '',
      ].join('\n'),
    );
  }

  end(): Buffer {
    return Buffer.from('COMMIT;\n');
  }

  /** A table of the archive. Its statement comes with the first rows, so that none stays empty. */
  table({ source, name, kind, columns }: SalvageSource<Kind>): SalvageTarget {
    const table = {
      name: this.#unused(name, kind),
      source,
      kind,
      rows: 0,
      columns: columns.map((column) =>
        column.builtIn
          ? { name: column.name, type: column.type }
          : { name: column.name, type: 'text', was: column.type },
      ),
    };
    const qualified = sqlName(this.#schema, table.name);
    const names = columns.map((column) => sqlName(column.name)).join(', ');
    const definition = (): Buffer => {
      const definitions = table.columns.map((column) => `${sqlName(column.name)} ${column.type}`).join(', ');
      return Buffer.from(
        `CREATE TABLE ${qualified} (${definitions});\nCOMMENT ON TABLE ${qualified} IS ${escapeLiteral(`${source}: rows ${kind}`)};\n`,
      );
    };
    const tables = this.#tables;
    let opened = false;
    return {
      async *copy(client, select) {
        if (!opened) {
          opened = true;
          tables.push(table);
          yield definition();
        }
        yield Buffer.from(`COPY ${qualified} (${names}) FROM stdin;\n`);
        for await (const chunk of client.query(copyTo(`COPY (${select}) TO STDOUT`)) as AsyncIterable<Buffer>) {
          table.rows += lineCount(chunk);
          yield chunk;
        }
        yield Buffer.from('\\.\n');
      },
    };
  }

  /** PostgreSQL cuts names at 63 bytes; what would then be the same gets a number. */
  #unused(name: string, kind: Kind): string {
    for (let count = 1; ; count += 1) {
      const candidate = boundedIdentifier(name, count === 1 ? `__${kind}` : `_${count}__${kind}`);
      if (this.#names.has(candidate)) continue;
      this.#names.add(candidate);
      return candidate;
    }
  }
}

export interface SalvageTarget {
  /** Rows of a query, as a COPY of their own. */
  copy(client: Client, select: string): AsyncGenerator<Buffer, void, undefined>;
}

/** In COPY's text format a line is a row: line breaks inside values are escaped (PostgreSQL documentation, "COPY"). */
function lineCount(chunk: Buffer): number {
  let count = 0;
  for (let at = chunk.indexOf(0x0a); at >= 0; at = chunk.indexOf(0x0a, at + 1)) count += 1;
  return count;
}
