/** Environment files such as `.env.staging`: given to the service's own processes and to nothing else. */
import { readFile } from 'node:fs/promises';
import { parse } from 'dotenv';
import { refusal } from '../contract/errors.ts';

/**
 * Parses an environment file: `NAME=value`, quotes, spaces, `#` inside quotes, values of several lines in quotes. No shell
 * reads it, so `$NAME` and backquotes are plain text.
 *
 * @throws StepError `StepRefused` naming the variable, never its value
 */
export function parseEnvironmentFile(text: string, name: string): Record<string, string> {
  const variables = parse(text);
  const unclosed = Object.entries(variables).filter(([, value]) => /^(['"`])(?!.*\1$)/s.test(value));
  if (unclosed.length > 0) {
    throw refusal(
      unclosed.map(([variable]) => `${name}: the quote that begins the value of ${variable} is not closed`),
    );
  }
  if (Object.keys(variables).length === 0) throw refusal([`${name} defines no variable`]);
  return variables;
}

/** @throws StepError `StepRefused` */
export async function readEnvironmentFile(path: string): Promise<Record<string, string>> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw refusal([`the environment file ${path} cannot be read (${error.code ?? 'unknown reason'})`]);
  });
  return parseEnvironmentFile(text, path);
}
