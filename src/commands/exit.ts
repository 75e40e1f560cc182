/**
 * Ends the process at once, whatever connections are still being closed, but not before all it has printed is out: a pipe
 * takes 64 kB, and the rest of a report would be gone when its reader is slower than we are.
 */
export async function exitWhenWritten(code: number): Promise<never> {
  await Promise.all([process.stdout, process.stderr].map(written));
  process.exit(code);
}

/** A reader that has gone away needs nothing more. */
const written = (stream: NodeJS.WriteStream): Promise<void> =>
  new Promise((resolve) => {
    stream.on('error', () => resolve());
    stream.write('', () => resolve());
  });
