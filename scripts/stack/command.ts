import { execFile } from 'node:child_process';
import { basename } from 'node:path';

export interface CommandOptions {
  readonly directory: string;
  readonly environment?: Readonly<Record<string, string>>;
}

/** Runs a program to its end and returns what it wrote to standard output.
 * @throws Error with the end of its standard error; without the environment, which may hold secrets. */
export function runCommand(
  program: string,
  commandArguments: readonly string[],
  options: CommandOptions,
): Promise<string> {
  const environment = {
    PATH: process.env['PATH'] ?? '/usr/bin:/bin',
    HOME: options.directory,
    LC_ALL: 'C.UTF-8',
    TZ: 'UTC',
    ...options.environment,
  };
  return new Promise((resolve, reject) => {
    execFile(
      program,
      commandArguments,
      { cwd: options.directory, env: environment, maxBuffer: 16 * 1024 * 1024 },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else
          reject(
            new Error(
              `${basename(program)} failed: ${(stderr || stdout || error.code || '').toString().trim().slice(-1500)}`,
            ),
          );
      },
    );
  });
}
