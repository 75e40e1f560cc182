import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { ProcessNotStarted } from './errors.ts';

export interface ForegroundOptions {
  /** Looked up on PATH. */
  readonly file: string;
  readonly args: readonly string[];
  /** Standard input, whole. */
  readonly input: string;
}

/**
 * Runs a program for the person at the terminal: it has this process's whole environment and terminal, so that it can ask
 * for a passphrase or talk to an agent, and what it says on standard error is seen as it is. Only for commands people type;
 * everything else goes through `runProcess`.
 *
 * @throws ProcessNotStarted
 */
export async function runInForeground({
  file,
  args,
  input,
}: ForegroundOptions): Promise<{ readonly code: number | null; readonly stdout: string }> {
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', (error) => {
      const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
      reject(
        new ProcessNotStarted(
          missing ? 'program-not-found' : 'not-spawned',
          `${file} could not be started: ${error.message}`,
        ),
      );
    });
    child.once('close', resolve);
  });
  // A program that gives up early does not read its input.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const [code, stdout] = await Promise.all([ended, text(child.stdout).catch(() => '')]);
  return { code, stdout };
}
