/**
 * Who works under a migration lock. A worker that was frozen (a paused machine, SIGSTOP) goes on where it stood, while a later
 * attempt has taken the lock over long ago: what it does next may be sent before it hears of that. So each session opened
 * under the lock is registered on the server, where whoever takes the lock over ends it, and is good for nothing unless the
 * lock is still held by the same backend.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

export interface LockScope {
  /** The server on which the lock is held: sessions on others are none of its business. */
  readonly host: string;
  readonly port: number;
  /** Keys of the lock. */
  readonly namespace: number;
  readonly key: number;
  /** Backend that holds it. */
  readonly pid: number;
}

/** First key of the locks by which sessions are registered ("mrls"); the second one is that of the migration lock. */
export const SESSION_NAMESPACE = 0x6d72_6c73;

const scope = new AsyncLocalStorage<LockScope | undefined>();

/** Every connection that `work` opens on that server is bound to the lock. */
export const underLock = <T>(lock: LockScope, work: () => Promise<T>): Promise<T> => scope.run(lock, work);

/** For what has to be done after the loss of the lock too: stopping, and letting connections in again. */
export const withoutLock = <T>(work: () => Promise<T>): Promise<T> => scope.run(undefined, work);

/** Undefined outside of `underLock`. */
export const currentLock = (): LockScope | undefined => scope.getStore();
