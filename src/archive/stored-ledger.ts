import type { BackupEvidence } from '../contract/evidence/backup.ts';
import type { StoredDocument } from '../contract/evidence/step.ts';
import { sha256 } from './canonical.ts';
import { compressDocument, decompressDocument } from './compression.ts';
import { damaged, wrongIdentity } from './damage.ts';
import { DecryptionFailed, decrypted, encrypted } from './encryption.ts';
import { type Ledger, parseLedger, serializeLedger } from './ledger.ts';
import { describeOwner } from './object-owner.ts';
import type { ObjectStore } from './object-store.ts';

/** No object map of a real database is near it. */
const LARGEST_LEDGER = 1024 * 1024 * 1024;

export interface LedgerToStore {
  readonly ledger: Ledger;
  readonly recipients: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
}

/** Stores a ledger compressed and encrypted like the dump: definitions can hold knowledge that is nobody else's business. */
export async function storeLedger(
  store: ObjectStore,
  key: string,
  { ledger, recipients, metadata }: LedgerToStore,
  signal: AbortSignal,
): Promise<StoredDocument> {
  const content = await collected(encrypted(once(compressDocument(serializeLedger(ledger))), recipients));
  return store.put(key, content, 'application/octet-stream', signal, { as: 'backup', metadata });
}

/**
 * The ledger of a backup.
 * @param identity age identity, resolved
 * @throws StepError `BackupDamaged`, naming the place; `StepRefused` where the ledger is right and the identity is not
 */
export async function fetchLedger(
  store: ObjectStore,
  backup: Pick<BackupEvidence, 'uri' | 'ledger'>,
  identity: string,
  signal: AbortSignal,
): Promise<Ledger> {
  const { uri, bytes } = backup.ledger;
  const key = uri.slice(store.uri('').length);
  const content = await store.get(key, signal);
  if (content === undefined) throw damaged(backup, `its ledger ${uri} is no longer in the store`);
  if (content.byteLength !== bytes || sha256(content) !== backup.ledger.sha256) {
    const owner = describeOwner(await store.head(key, signal));
    const place =
      owner ??
      (content.byteLength === bytes
        ? await placeOfDamage(content, identity)
        : `it has ${content.byteLength} bytes, ${bytes} were stored: it was truncated or replaced`);
    throw damaged(backup, `its ledger ${uri} is not the one that was stored: ${place}`);
  }
  try {
    const packed = await collected(decrypted(once(content), identity));
    return parseLedger(Buffer.from(decompressDocument(packed, LARGEST_LEDGER)).toString('utf8'));
  } catch (error) {
    if (error instanceof DecryptionFailed && error.reason === 'wrong-identity') throw wrongIdentity(backup);
    // Its bytes are those that were stored: what fails now was wrong then.
    if (error instanceof DecryptionFailed || error instanceof SyntaxError || isZlibError(error))
      throw damaged(backup, `its ledger ${uri} cannot be read (${error.message.slice(0, 200)})`);
    throw error;
  }
}

async function placeOfDamage(content: Uint8Array, identity: string): Promise<string> {
  try {
    await collected(decrypted(once(content), identity));
  } catch (error) {
    if (error instanceof DecryptionFailed && error.reason === 'damaged') return error.message;
    if (error instanceof DecryptionFailed) return `its age header was changed, or it is another's: byte 0 on`;
    throw error;
  }
  return `all of its ${content.byteLength} bytes are another ledger's`;
}

const isZlibError = (error: unknown): error is Error =>
  error instanceof Error && /^(ZSTD_|Z_|ERR_)/.test(String((error as NodeJS.ErrnoException).code));

async function* once(content: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  yield content;
}

async function collected(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}
