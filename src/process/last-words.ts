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

/**
 * `DETAIL:  Key (email)=(ann@example.com) already exists.`, `CONTEXT:  COPY users, line 3: "..."`, SQLAlchemy's parameters;
 * also behind the name that a container's log begins with.
 */
const ROW_VALUES =
  /^(?:\S+\s*\|)?\s*(?:(?:DETAIL|CONTEXT|QUERY|STATEMENT|ZUSATZ|KONTEXT):|\[parameters:|\(Background on this error)/;
/** `DETAIL:  view addresses depends on column email of table users`: names of objects, which say what is in the way. */
const DEPENDENT_OBJECTS = /^(?:\S+\s*\|)?\s*DETAIL:\s+[a-z][a-z ]* \S+ depends on [a-z]/;
/** The parameters that an engine with `echo` logs. */
const ECHOED_PARAMETERS =
  /\[(?:generated in|cached since|no key|raw sql|caching disabled|dialect [^\]]* does not support caching)[^\]]*\]/;
const SQL = /^(?:\S+\s*\|)?\s*\[SQL:/;

const withoutRowValues = (lines: readonly string[]): string[] => {
  const shown = rowValueFilter();
  return lines.flatMap((line) => shown(line) ?? []);
};

/**
 * For the lines of one stream, in order. A statement that SQLAlchemy quotes may go over several lines; its literals are
 * values of rows too.
 *
 * @returns for each line what may be shown of it; undefined where it holds values of rows
 */
export function rowValueFilter(): (line: string) => string | undefined {
  let isSql = false;
  return (line) => {
    if (DEPENDENT_OBJECTS.test(line)) return line;
    if (ROW_VALUES.test(line) || ECHOED_PARAMETERS.test(line)) return undefined;
    isSql ||= SQL.test(line);
    const shown = isSql ? line.replaceAll(/'(?:[^']|'')*'?/g, "'?'") : line;
    if (line.trimEnd().endsWith(']')) isSql = false;
    return shown;
  };
}
