/** SQL that arrives line by line, literals struck out: whatever begins in one line and ends in another is known as such. */
export class SqlLines {
  readonly #extent: 'in-brackets' | 'to-next-entry';
  /** How many brackets are open, SQLAlchemy's own included. */
  #depth = 1;
  /** The literal, comment or quoted name that the last line ended in. */
  #inside: Quoting | undefined;
  #numbers: 'shown' | 'struck-out' | undefined;

  /** @param extent `in-brackets`: it ends with the bracket that SQLAlchemy puts behind it */
  constructor(extent: 'in-brackets' | 'to-next-entry') {
    this.#extent = extent;
  }

  /** @returns `rest` is what stands behind the end; undefined where the statement goes on */
  strike(line: string): { readonly shown: string; readonly rest: string | undefined } {
    let [shown, at] = ['', 0];
    while (at < line.length) {
      if (this.#inside !== undefined) {
        const end = endOf(this.#inside, line, at);
        if (this.#inside.kind === 'name') shown += line.slice(at, end ?? line.length);
        if (end === undefined) break;
        this.#inside = undefined;
        at = end;
        continue;
      }
      OPENING.lastIndex = at;
      const opening = OPENING.exec(line);
      const code = line.slice(at, opening?.index ?? line.length);
      const closing = this.#extent === 'in-brackets' ? this.#closing(code) : undefined;
      if (closing !== undefined) {
        return { shown: shown + this.#struck(code.slice(0, closing)), rest: line.slice(at + closing) };
      }
      shown += this.#struck(code);
      if (opening === null) break;
      this.#inside = quotingOf(opening[0]);
      shown += this.#inside.shown;
      at = opening.index + opening[0].length;
    }
    if (this.#inside?.kind === 'line-comment') this.#inside = undefined;
    return { shown: shown.trimEnd(), rest: undefined };
  }

  #struck(code: string): string {
    // Of a definition numbers are lengths and defaults, of anything else they may be values of rows.
    if (this.#numbers === undefined && /\w/.test(code)) {
      this.#numbers = /^\W*(?:create|alter|drop|comment|grant|revoke|set)\b/i.test(code) ? 'shown' : 'struck-out';
    }
    return this.#numbers === 'struck-out' ? code.replaceAll(/(?<![\w."$:])\d[\d.]*(?:e[+-]?\d+)?/gi, '?') : code;
  }

  /** Behind the bracket that closes the first one. */
  #closing(code: string): number | undefined {
    for (const { 0: bracket, index } of code.matchAll(/[[\]]/g)) {
      this.#depth += bracket === '[' ? 1 : -1;
      if (this.#depth === 0) return index + 1;
    }
    return undefined;
  }
}

type Quoting =
  | { readonly kind: 'name' | 'literal'; readonly shown: string; readonly body: RegExp }
  | { readonly kind: 'until'; readonly shown: string; readonly end: string }
  | { readonly kind: 'line-comment'; readonly shown: string };

const OPENING = /\be'|'|"|\$(?:[A-Za-z_]\w*)?\$|--|\/\*/gi;

function quotingOf(opening: string): Quoting {
  switch (opening) {
    case '"':
      return { kind: 'name', shown: '"', body: /(?:[^"]|"")*/y };
    case "'":
      return { kind: 'literal', shown: "'?'", body: /(?:[^']|'')*/y };
    case '--':
      return { kind: 'line-comment', shown: '' };
    case '/*':
      return { kind: 'until', shown: '', end: '*/' };
    default:
      return opening.startsWith('$')
        ? { kind: 'until', shown: "'?'", end: opening }
        : { kind: 'literal', shown: "'?'", body: /(?:[^'\\]|\\.|'')*/y };
  }
}

/** Where it has ended; undefined where it goes on in the next line. */
function endOf(quoting: Quoting, line: string, at: number): number | undefined {
  if (quoting.kind === 'line-comment') return undefined;
  if (quoting.kind === 'until') {
    const end = line.indexOf(quoting.end, at);
    return end < 0 ? undefined : end + quoting.end.length;
  }
  quoting.body.lastIndex = at;
  const end = at + (quoting.body.exec(line)?.[0].length ?? 0);
  return end < line.length ? end + 1 : undefined;
}
