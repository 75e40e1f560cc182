import { rowValueFilter } from './row-values.ts';

const EXCEPTION = /^[A-Za-z_][\w.]*(Error|Exception|Violation|Interrupt|Exit|Shutdown|Failure)\b/;
const WHILE_HANDLING = 'During handling of the above exception, another exception occurred:';

/**
 * A program's last words, the exception that a Python traceback ends with first: the cause before the way to it. Where that
 * one came up while another was handled, as when SQLAlchemy cleans up after a connection that was lost, the first is told
 * too. Values of rows, which PostgreSQL and SQLAlchemy put beside an error, are left out: these words go into plans, tickets
 * and histories.
 *
 * @param ending `code 1`, or the signal's name
 */
export function lastWords(ending: string, text: string): string {
  const lines = withoutRowValues(text.split('\n').filter((line) => line.trim() !== ''));
  if (lines.length === 0)
    return ending.startsWith('SIG') ? `${ending} from outside (out of memory, or somebody’s kill)` : ending;
  const cause = lines.findLastIndex((line) => EXCEPTION.test(line));
  const shown = cause < 0 ? lines.slice(-6) : lines.slice(cause, cause + 6);
  return `${ending}: ${shown.join(' | ').slice(0, 1200)}${handled(lines)}`;
}

/** The first exception of the traceback, where the last came up while it was handled. */
function handled(lines: readonly string[]): string {
  const first = lines.slice(0, Math.max(0, lines.indexOf(WHILE_HANDLING))).findLast((line) => EXCEPTION.test(line));
  return first === undefined ? '' : ` | while handling ${first.slice(0, 400)}`;
}

/** A field of the server's, or parameters, of which nothing is left. */
const IS_STRUCK_OUT = /(?:: {1,2}\?|\[parameters: \?\])\s*$/;
const BACKGROUND = /^\s*\(Background on this error/;

function withoutRowValues(lines: readonly string[]): string[] {
  const shown = rowValueFilter();
  return lines
    .flatMap((line) => shown(line) ?? [])
    .filter((line) => !IS_STRUCK_OUT.test(line) && !BACKGROUND.test(line));
}
