/**
 * A program's last words, the exception that a Python traceback ends with first: the cause before the way to it.
 *
 * @param ending `code 1`, or the signal's name
 */
export function lastWords(ending: string, text: string): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  if (lines.length === 0)
    return ending.startsWith('SIG') ? `${ending} from outside (out of memory, or somebody’s kill)` : ending;
  const cause = lines.findLastIndex((line) =>
    /^[A-Za-z_][\w.]*(Error|Exception|Violation|Interrupt|Exit)\b/.test(line),
  );
  const shown = cause < 0 ? lines.slice(-6) : lines.slice(cause, cause + 6);
  return `${ending}: ${shown.join(' | ').slice(0, 1200)}`;
}
