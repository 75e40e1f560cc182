import type { BackupEvidence } from '../contract/evidence/backup.ts';
import { ByteCounter } from './byte-counter.ts';
import { decompressed } from './compression.ts';
import { damaged, wrongIdentity } from './damage.ts';
import { DecryptionFailed, decrypted } from './encryption.ts';
import { fleeting } from './fleeting.ts';
import { describeOwner } from './object-owner.ts';
import type { ObjectStore } from './object-store.ts';
import { TRANSFER_PATIENCE } from './patience.ts';
import { ObjectChanged } from './ranged-download.ts';

export { fetchLedger } from './stored-ledger.ts';

/** What identifies a backup and proves that it is the one that was taken. */
export type StoredBackup = Pick<
  BackupEvidence,
  'uri' | 'key' | 'bytes' | 'sha256' | 'dumpBytes' | 'dumpSha256' | 'ledger' | 'manifest'
>;

export interface OpenBackup {
  readonly store: ObjectStore;
  readonly backup: StoredBackup;
  /** age identity, resolved. */
  readonly identity: string;
  readonly signal: AbortSignal;
  /** Bytes of the dump handed on so far. */
  readonly progress?: (bytes: number) => void;
  /** Milliseconds a store that does not answer is waited for, with each range. @default 90000 */
  readonly patience?: number;
  /** Told since when the store has not answered, and `undefined` once it does again. */
  readonly storeSilent?: (since: Date | undefined) => void;
}

/**
 * The dump of a stored backup, decrypted and decompressed: what `pg_dump -Fc -Z0` wrote. Its last chunk is handed on only
 * once the size and the digest of both the object and the dump have been found to be those of the day it was taken. So
 * whoever has read it to its end has read exactly that dump; otherwise it throws, and a reader such as pg_restore never gets
 * a whole archive.
 *
 * @throws StepError `BackupDamaged`, naming the place; `StepRefused` where the object is right and the identity is not
 */
export async function* openBackup(open: OpenBackup): AsyncGenerator<Uint8Array, void, undefined> {
  const { backup, signal } = open;
  const store = open.store.patient({
    milliseconds: open.patience ?? TRANSFER_PATIENCE,
    ...(open.storeSilent === undefined ? {} : { silent: open.storeSilent }),
  });
  const object = await store.head(backup.key, signal);
  if (object === undefined) throw damaged(backup, 'the object is no longer in the store');
  const owner = describeOwner(object);
  if (owner !== undefined) throw damaged(backup, `the object is not the one that was stored: ${owner}`);
  if (object.bytes !== backup.bytes) {
    throw damaged(
      backup,
      `the object has ${object.bytes} bytes, ${backup.bytes} were stored: it was ${object.bytes < backup.bytes ? `truncated at byte ${object.bytes}, or replaced` : 'replaced'}`,
    );
  }
  const cipher = new ByteCounter();
  const dump = new ByteCounter();
  try {
    const source = cipher.count(store.download(backup.key, backup.bytes, signal));
    let held: Uint8Array | undefined;
    for await (const chunk of decompressed(fleeting(decrypted(source, open.identity)))) {
      dump.add(chunk);
      if (dump.bytes > backup.dumpBytes) {
        throw damaged(backup, `the dump has more than the ${backup.dumpBytes} bytes that were taken`);
      }
      if (held !== undefined) yield held;
      held = chunk;
      open.progress?.(dump.bytes);
    }
    requireDigest(backup, 'object', cipher, backup.bytes, backup.sha256);
    requireDigest(backup, 'dump', dump, backup.dumpBytes, backup.dumpSha256);
    if (held !== undefined) yield held;
  } catch (error) {
    if (error instanceof ObjectChanged)
      throw damaged(backup, `while it was read, the object changed: ${error.message}`);
    if (error instanceof DecryptionFailed)
      throw error.reason === 'damaged'
        ? damaged(backup, `the object was changed or replaced: ${error.message}`)
        : await identityFailure({ ...open, store });
    if (isDecompressionError(error)) {
      throw damaged(
        backup,
        `it does not decompress (${error.message.slice(0, 200)}) behind byte ${dump.bytes} of the dump, near byte ${cipher.bytes} of the object`,
      );
    }
    throw error;
  }
}

const isDecompressionError = (error: unknown): error is Error =>
  error instanceof Error && /^(ZSTD_|Z_)/.test(String((error as NodeJS.ErrnoException).code));

function requireDigest(
  backup: StoredBackup,
  part: 'object' | 'dump',
  found: ByteCounter,
  bytes: number,
  digest: string,
): void {
  if (found.bytes !== bytes) throw damaged(backup, `the ${part} has ${found.bytes} bytes, ${bytes} were stored`);
  const foundDigest = found.digest();
  if (foundDigest !== digest) {
    throw damaged(
      backup,
      `the ${part} has the SHA-256 ${foundDigest}, stored was ${digest}: bytes 0 to ${bytes} were changed or replaced`,
    );
  }
}

/** No recipient of the header fits: another identity, or a changed header. Which of the two it is, the object's digest tells. */
async function identityFailure({ backup, signal, store }: OpenBackup): Promise<Error> {
  const whole = new ByteCounter();
  try {
    for await (const chunk of store.download(backup.key, backup.bytes, signal)) whole.add(chunk);
  } catch (error) {
    if (error instanceof ObjectChanged)
      return damaged(backup, `while it was read, the object changed: ${error.message}`);
    throw error;
  }
  return whole.digest() === backup.sha256
    ? wrongIdentity(backup)
    : damaged(backup, 'the object was changed or replaced: its age header (byte 0 on) fits no identity');
}
