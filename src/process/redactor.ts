const shortestSecret = 4;
const mask = '[redacted]';

/**
 * Replaces known secret values in text that leaves the process: log lines, tails, error messages.
 *
 * A value of fewer than four characters is not replaced: it would blank out ordinary text and protect nothing.
 * Each value is found as written, percent-encoded, with `%` doubled (as in an alembic.ini) and as the inside of a JSON
 * or Python string. Of a URL, or of a `password=...` connection string, the password alone is found too.
 */
export class Redactor {
  readonly #values: ReadonlySet<string>;
  readonly #pattern: RegExp | undefined;
  /** Length in characters of the longest text that is replaced; 0 when nothing is. */
  readonly longest: number;

  constructor(values: Iterable<string> = []) {
    this.#values = new Set(values);
    const written = new Set<string>();
    for (const value of this.#values) {
      for (const form of writtenForms(value)) {
        if (form.length >= shortestSecret) written.add(form);
      }
    }
    // The longest first: in an alternation the first match wins, and a secret may contain another.
    const forms = [...written].sort((a, b) => b.length - a.length);
    this.longest = forms[0]?.length ?? 0;
    this.#pattern = forms.length === 0 ? undefined : new RegExp(forms.map(escapePattern).join('|'), 'g');
  }

  /** A redactor that also knows the given values. */
  with(values: Iterable<string>): Redactor {
    return new Redactor([...this.#values, ...values]);
  }

  redact(text: string): string {
    return this.#pattern === undefined ? text : text.replace(this.#pattern, mask);
  }

  /**
   * The redacted form of the first `limit` characters of `text`. A secret that begins before the limit is masked whole,
   * provided that `text` holds at least `limit + longest` characters or is complete.
   */
  redactStart(text: string, limit: number): string {
    if (text.length <= limit) return this.redact(text);
    let shown = '';
    let position = 0;
    for (const match of this.#pattern === undefined ? [] : text.matchAll(this.#pattern)) {
      if (match.index >= limit) break;
      shown += text.slice(position, match.index) + mask;
      position = match.index + match[0].length;
    }
    return position >= limit ? shown : shown + text.slice(position, limit);
  }
}

export function createRedactor(values: Iterable<string>): Redactor {
  return new Redactor(values);
}

function* writtenForms(value: string): Generator<string> {
  for (const secret of secretsIn(value)) {
    const percentEncoded = safeEncode(secret);
    const strictlyEncoded = percentEncoded.replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
    for (const form of [
      secret,
      percentEncoded,
      strictlyEncoded,
      lowerCaseEscapes(percentEncoded),
      lowerCaseEscapes(strictlyEncoded),
      // Python's quote_plus, and form encoding.
      strictlyEncoded.replaceAll('%20', '+'),
      // SQLAlchemy renders a URL with these three escaped only.
      secret.replace(/[%@:/]/g, (c) => encodeURIComponent(c)),
    ]) {
      yield form;
      yield form.replaceAll('%', '%%');
    }
    yield JSON.stringify(secret).slice(1, -1);
    yield secret.replaceAll('\\', '\\\\').replaceAll("'", "\\'");
    // Output is redacted line by line, so a secret of several lines (a key) must be known by its lines.
    if (secret.includes('\n')) yield* secret.split(/\r?\n/).map((line) => line.trim());
  }
}

function* secretsIn(value: string): Generator<string> {
  yield value;
  const address = /^[a-z][a-z0-9+.-]*:\/\/(?<authority>[^/?#]*)/i.exec(value);
  if (address?.groups?.authority !== undefined) {
    const userinfo = address.groups.authority.slice(0, Math.max(0, address.groups.authority.lastIndexOf('@')));
    const colon = userinfo.indexOf(':');
    if (colon >= 0) yield* rawAndDecoded(userinfo.slice(colon + 1));
  }
  for (const parameter of value.matchAll(
    /(?:^|[?&\s])(?:ssl)?password\s*=\s*(?:'(?<quoted>(?:[^'\\]|\\.)*)'|(?<plain>[^&\s']+))/gi,
  )) {
    const quoted = parameter.groups?.quoted;
    if (quoted !== undefined) yield quoted.replace(/\\(.)/g, '$1');
    else yield* rawAndDecoded(parameter.groups?.plain ?? '');
  }
}

function* rawAndDecoded(written: string): Generator<string> {
  yield written;
  try {
    yield decodeURIComponent(written);
  } catch {
    // Not percent-encoded after all: the raw form is the password.
  }
}

function safeEncode(secret: string): string {
  return encodeURIComponent(secret.toWellFormed());
}

function lowerCaseEscapes(encoded: string): string {
  return encoded.replace(/%[0-9A-F]{2}/g, (escape) => escape.toLowerCase());
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
}
