/**
 * A program's last words, the exception that a Python traceback ends with first: the cause before the way to it. Values of
 * rows, which PostgreSQL and SQLAlchemy put beside an error, are left out: these words go into plans, tickets and histories.
 *
 * @param ending `code 1`, or the signal's name
 */
export function lastWords(ending: string, text: string): string {
  const lines = withoutRowValues(text.split('\n').filter((line) => line.trim() !== ''));
  if (lines.length === 0)
    return ending.startsWith('SIG') ? `${ending} from outside (out of memory, or somebody’s kill)` : ending;
  const cause = lines.findLastIndex((line) =>
    /^[A-Za-z_][\w.]*(Error|Exception|Violation|Interrupt|Exit)\b/.test(line),
  );
  const shown = cause < 0 ? lines.slice(-6) : lines.slice(cause, cause + 6);
  return `${ending}: ${shown.join(' | ').slice(0, 1200)}`;
}

/** `DETAIL:  Key (email)=(ann@example.com) already exists.`, `CONTEXT:  COPY users, line 3: "..."`, SQLAlchemy's parameters. */
const ROW_VALUES =
  /^\s*(DETAIL|CONTEXT|QUERY|STATEMENT|ZUSATZ|KONTEXT):|^\s*\[parameters:|^\s*\(Background on this error/;
const SQL = /^\s*\[SQL:/;

/** A statement that SQLAlchemy quotes may go over several lines; its literals are values of rows too. */
function withoutRowValues(lines: readonly string[]): string[] {
  let isSql = false;
  return lines
    .filter((line) => !ROW_VALUES.test(line))
    .map((line) => {
      isSql ||= SQL.test(line);
      const shown = isSql ? line.replaceAll(/'(?:[^']|'')*'?/g, "'?'") : line;
      if (line.trimEnd().endsWith(']')) isSql = false;
      return shown;
    });
}
