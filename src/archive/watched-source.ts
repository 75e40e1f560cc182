export interface WatchedSource {
  readonly stream: AsyncGenerator<Uint8Array, void, undefined>;
  /** Throws what the source threw, if it did. */
  throwIfFailed(): void;
}

/**
 * A stream that remembers how it failed. What reads it may wrap the error as its own or fail by itself: with this the two
 * can be told apart, and the first cause reported.
 */
export function watchSource(source: AsyncIterable<Uint8Array>): WatchedSource {
  let failure: { readonly error: unknown } | undefined;
  async function* watched(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      yield* source;
    } catch (error) {
      failure ??= { error };
      throw error;
    }
  }
  return {
    stream: watched(),
    throwIfFailed: () => {
      if (failure !== undefined) throw failure.error;
    },
  };
}
