import type { Readable } from 'node:stream';

/** Chunks that are read ahead of whoever asks for them. */
const AHEAD = 4;

/**
 * The chunks of a stream one by one, as they were made. (Iterating over the stream itself joins what is buffered: one more
 * copy of everything.) Leaving early destroys the stream.
 * @throws the stream's error; Error where it was closed before its end
 */
export async function* chunksOf<Chunk extends Uint8Array = Buffer>(
  stream: Readable,
): AsyncGenerator<Chunk, void, undefined> {
  const waiting: Chunk[] = [];
  const end = { reached: 'no' as 'no' | 'yes', failure: undefined as { readonly error: unknown } | undefined };
  let wake = (): void => undefined;
  const fail = (error: unknown): void => {
    if (end.reached === 'no') end.failure ??= { error };
    wake();
  };
  const closed = (): void => fail(stream.errored ?? new Error('the stream was closed before its end'));
  stream.on('end', () => {
    end.reached = 'yes';
    wake();
  });
  stream.on('error', fail);
  stream.on('close', closed);
  if (stream.destroyed) closed();
  stream.on('data', (chunk: Chunk) => {
    waiting.push(chunk);
    if (waiting.length >= AHEAD) stream.pause();
    wake();
  });
  try {
    for (;;) {
      const chunk = waiting.shift();
      if (chunk !== undefined) {
        yield chunk;
        if (waiting.length < AHEAD && stream.isPaused()) stream.resume();
        continue;
      }
      if (end.failure !== undefined) throw end.failure.error;
      if (end.reached === 'yes') return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    stream.destroy();
  }
}
