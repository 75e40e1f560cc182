/** Where a command writes. Answers go to `print`, everything about how it went to `note`. */
export interface Output {
  /** Standard output, a line or several. */
  print(text: string): void;
  /** Standard error. */
  note(text: string): void;
  /** Replaces the last line that was replaced, on a terminal; elsewhere nothing happens. */
  replace(line: string): void;
  readonly isTerminal: boolean;
}

export function processOutput(): Output {
  const { stdout, stderr } = process;
  const isTerminal = stdout.isTTY;
  let hasLine = false;
  const clear = (): void => {
    if (hasLine) stdout.write('\r\u001B[2K');
    hasLine = false;
  };
  return {
    isTerminal,
    print: (text) => {
      clear();
      stdout.write(text.endsWith('\n') ? text : `${text}\n`);
    },
    note: (text) => {
      clear();
      stderr.write(`${text}\n`);
    },
    replace: (line) => {
      if (!isTerminal) return;
      clear();
      stdout.write(line.slice(0, Math.max(20, stdout.columns - 1)));
      hasLine = true;
    },
  };
}
