import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { BackupEvidence } from '../contract/evidence.ts';
import { sha256 } from './canonical.ts';
import { ByteCounter } from './byte-counter.ts';
import { DecryptionFailed, decrypted } from './encryption.ts';
import { type Ledger, parseLedger } from './ledger.ts';
import type { ObjectStore } from './object-store.ts';
import { ObjectChanged } from './ranged-download.ts';

/** What identifies a backup and proves that it is the one that was taken. */
export type StoredBackup = Pick<
  BackupEvidence,
  'uri' | 'key' | 'bytes' | 'sha256' | 'dumpBytes' | 'dumpSha256' | 'ledger'
>;

export interface OpenBackup {
  readonly store: ObjectStore;
  readonly backup: StoredBackup;
  /** age identity, resolved. */
  readonly identity: string;
  readonly signal: AbortSignal;
  /** Bytes of the dump handed on so far. */
  readonly progress?: (bytes: number) => void;
}

/**
 * The decrypted dump of a stored backup, as a stream. Its last chunk is handed on only once the size and the digest of
 * both the object and the dump have been found to be those of the day it was taken. So whoever has read it to its end has
 * read exactly that dump; otherwise it throws, and a reader such as pg_restore never gets a whole archive.
 *
 * @throws StepError `BackupDamaged`, naming the place; `StepRefused` where the object is right and the identity is not
 */
export async function* openBackup(open: OpenBackup): AsyncGenerator<Uint8Array, void, undefined> {
  const { backup, signal, store } = open;
  const object = await store.head(backup.key, signal);
  if (object === undefined) throw damaged(backup, 'the object is no longer in the store');
  if (object.bytes !== backup.bytes) {
    throw damaged(
      backup,
      `the object has ${object.bytes} bytes, ${backup.bytes} were stored: it was truncated or replaced`,
    );
  }
  const cipher = new ByteCounter();
  const dump = new ByteCounter();
  try {
    const source = cipher.count(store.download(backup.key, backup.bytes, signal));
    let held: Uint8Array | undefined;
    for await (const chunk of decrypted(source, open.identity)) {
      dump.add(chunk);
      if (held !== undefined) yield held;
      held = chunk;
      open.progress?.(dump.bytes);
    }
    requireDigest(backup, 'object', cipher, backup.bytes, backup.sha256);
    requireDigest(backup, 'decrypted dump', dump, backup.dumpBytes, backup.dumpSha256);
    if (held !== undefined) yield held;
  } catch (error) {
    if (error instanceof ObjectChanged)
      throw damaged(backup, `while it was read, the object changed: ${error.message}`);
    if (error instanceof DecryptionFailed) throw await decryptionFailure(open, error, cipher.bytes);
    throw error;
  }
}

/** The ledger of a backup. @throws StepError `BackupDamaged` */
export async function fetchLedger(store: ObjectStore, backup: StoredBackup, signal: AbortSignal): Promise<Ledger> {
  const key = backup.ledger.uri.slice(store.uri('').length);
  const content = await store.get(key, signal);
  if (content === undefined) throw damaged(backup, `its ledger ${backup.ledger.uri} is no longer in the store`);
  if (content.byteLength !== backup.ledger.bytes || sha256(content) !== backup.ledger.sha256) {
    throw damaged(backup, `its ledger ${backup.ledger.uri} is not the one that was stored`);
  }
  return parseLedger(Buffer.from(content).toString('utf8'));
}

export const damaged = (backup: Pick<StoredBackup, 'uri'>, what: string): StepError =>
  new StepError(STEP_ERRORS.backupDamaged, `The backup ${backup.uri} cannot be trusted: ${what}. Take a new one.`, {
    uri: backup.uri,
    place: what,
  });

function requireDigest(
  backup: StoredBackup,
  part: 'object' | 'decrypted dump',
  found: ByteCounter,
  bytes: number,
  digest: string,
): void {
  if (found.bytes !== bytes) throw damaged(backup, `the ${part} has ${found.bytes} bytes, ${bytes} were stored`);
  const foundDigest = found.digest();
  if (foundDigest !== digest) {
    throw damaged(
      backup,
      `the ${part} has the SHA-256 ${foundDigest}, stored was ${digest}: it was changed or replaced`,
    );
  }
}

/** Decryption fails on changed bytes and with another identity; which of the two it is, the object's own digest tells. */
async function decryptionFailure(open: OpenBackup, failure: DecryptionFailed, read: number): Promise<StepError> {
  const { backup, signal, store } = open;
  const whole = new ByteCounter();
  try {
    for await (const chunk of store.download(backup.key, backup.bytes, signal)) whole.add(chunk);
  } catch (error) {
    if (error instanceof ObjectChanged)
      return damaged(backup, `while it was read, the object changed: ${error.message}`);
    throw error;
  }
  if (whole.digest() !== backup.sha256) {
    return damaged(
      backup,
      `the object was changed or replaced: near byte ${read} of ${backup.bytes} ${failure.message}`,
    );
  }
  if (failure.reason === 'wrong-identity') {
    return new StepError(
      STEP_ERRORS.refused,
      `The backup ${backup.uri} is intact, but backup.identity is not the key of one of its recipients. Correct the secret reference backup.identity or backup.recipients.`,
      { uri: backup.uri },
    );
  }
  return damaged(backup, `near byte ${read} of ${backup.bytes} ${failure.message}`);
}
