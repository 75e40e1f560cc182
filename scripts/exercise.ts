/** What `npm run proof` and `npm run bench` share: finding modules by name, listing them, running one. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '..');

/** A module in `tests/proofs` or `tests/bench`: its file name is its name. */
export interface Exercise<T> {
  readonly sentence: string;
  readonly run: (say: (line: string) => void) => Promise<T>;
}

/**
 * Runs the exercise named on the command line, or lists all with `--list` (also as `list`).
 *
 * @returns the exit code
 */
export async function exercise<T>(folder: string, finish: (name: string, result: T) => boolean): Promise<number> {
  const directory = path.join(root, 'tests', folder);
  const names = (await readdir(directory))
    .filter((file) => file.endsWith('.ts'))
    .map((file) => file.slice(0, -3))
    .sort();
  const load = async (name: string): Promise<Exercise<T>> =>
    (await import(path.join(directory, `${name}.ts`))) as Exercise<T>;
  const [wanted] = process.argv.slice(2).filter((word) => word !== '--');
  if (wanted === undefined || wanted === 'list' || wanted === '--list') {
    for (const name of names) console.log(`${name.padEnd(16)} ${(await load(name)).sentence}`);
    return wanted === undefined ? 2 : 0;
  }
  if (!names.includes(wanted)) {
    console.error(`there is no "${wanted}"; there are: ${names.join(', ')}`);
    return 2;
  }
  const began = Date.now();
  const say = (line: string): void => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(6)} s  ${line}`);
  const { run } = await load(wanted);
  return finish(wanted, await run(say)) ? 0 : 1;
}
