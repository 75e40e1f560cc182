import type { BackupEvidence, BackupManifest } from '../contract/evidence/backup.ts';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import { backupKeysOf } from './backup-names.ts';
import { canonicalDigest, canonicalJson } from './canonical.ts';
import { damaged } from './damage.ts';
import { ownership } from './object-owner.ts';
import type { ObjectStore } from './object-store.ts';

const FORMAT = 'migration-runbook/backup/1';

/** As it is stored: the manifest in canonical JSON with the digest of the rest of it, so that no changed bit is believed. */
type StoredManifest = BackupManifest & { readonly digest: string };

/**
 * Writes the manifest of a backup, as the last of its objects.
 * @returns its URI
 */
export async function writeManifest(
  store: ObjectStore,
  manifest: BackupManifest,
  signal: AbortSignal,
): Promise<string> {
  const stored: StoredManifest = { ...manifest, digest: canonicalDigest(manifest) };
  const { uri } = await store.put(
    keyOf(store, manifest.backup.manifest),
    canonicalJson(stored),
    'application/json',
    signal,
    { as: 'backup', metadata: ownership(manifest) },
  );
  return uri;
}

/** Manifests read at a time: a service that is migrated often has hundreds, each a question of milliseconds. */
const AT_ONCE = 16;

/**
 * Every backup below the prefix, newest first. A manifest that cannot be read is left out and told, so that one damaged
 * object does not hide the others.
 */
export async function listManifests(
  store: ObjectStore,
  prefix: string,
  signal: AbortSignal,
  told: (finding: string) => void = () => undefined,
): Promise<readonly BackupManifest[]> {
  const keys = (await store.list(prefix, signal))
    .map(({ key }) => key)
    .filter((key) => backupKeysOf(key)?.manifest === key);
  const read = async (key: string): Promise<BackupManifest | undefined> => {
    try {
      return await readManifest(store, key, signal);
    } catch (error) {
      if (!(error instanceof StepError) || error.type !== STEP_ERRORS.backupDamaged) throw error;
      told(error.message);
      return undefined;
    }
  };
  const found: BackupManifest[] = [];
  for (let start = 0; start < keys.length; start += AT_ONCE) {
    const some = await Promise.all(keys.slice(start, start + AT_ONCE).map(read));
    found.push(...some.filter((manifest) => manifest !== undefined));
  }
  return found.sort((one, other) => (one.backup.capturedAt < other.backup.capturedAt ? 1 : -1));
}

/** The manifest that was written last below the prefix; undefined where there is none that can be read. */
export async function latestManifest(
  store: ObjectStore,
  prefix: string,
  signal: AbortSignal,
): Promise<BackupManifest | undefined> {
  const [newest] = (await store.list(prefix, signal))
    .filter(({ key }) => backupKeysOf(key)?.manifest === key)
    .sort((one, other) => (one.modifiedAt < other.modifiedAt ? 1 : -1));
  if (newest === undefined) return undefined;
  try {
    return await readManifest(store, newest.key, signal);
  } catch (error) {
    if (error instanceof StepError && error.type === STEP_ERRORS.backupDamaged) return undefined;
    throw error;
  }
}

/**
 * The manifest of the backup that a URI names: of its dump, its ledger or the manifest itself.
 * @throws StepError `StepRefused` for a URI that names no backup, or one that is absent; `BackupDamaged`
 */
export async function findManifest(store: ObjectStore, uri: string, signal: AbortSignal): Promise<BackupManifest> {
  const root = store.uri('');
  if (!uri.startsWith(root)) {
    throw refusal([`${uri.slice(0, 300)} is not in this bucket: a backup of this profile begins with ${root}.`]);
  }
  const keys = backupKeysOf(uri.slice(root.length));
  if (keys === undefined) {
    throw refusal([
      `${uri.slice(0, 300)} names no backup: give the URI of its dump (....dump.zst.age) or of its manifest (....backup.json).`,
    ]);
  }
  const manifest = await readManifest(store, keys.manifest, signal);
  if (manifest !== undefined) return manifest;
  const dump = await store.head(keys.dump, signal);
  throw refusal([
    dump === undefined
      ? `There is no backup at ${store.uri(keys.dump)}: neither the dump nor its manifest is in the store.`
      : `${store.uri(keys.dump)} has no manifest beside it: it is half made, or its manifest was deleted. Take a new backup.`,
  ]);
}

/**
 * Notes in the manifest that the backup was verified.
 * @param by who or what verified it
 */
export async function recordVerification(
  store: ObjectStore,
  backup: BackupEvidence,
  verified: NonNullable<BackupManifest['verified']>,
  signal: AbortSignal,
): Promise<void> {
  const manifest = await requireManifest(store, backup, signal);
  await writeManifest(store, { ...manifest, verified }, signal);
}

/**
 * The manifest beside a backup that is known from elsewhere, which must speak of the same backup.
 * @throws StepError `BackupDamaged`
 */
export async function requireManifest(
  store: ObjectStore,
  backup: Pick<BackupEvidence, 'uri' | 'manifest' | 'sha256' | 'dumpSha256' | 'ledger'>,
  signal: AbortSignal,
): Promise<BackupManifest> {
  const manifest = await readManifest(store, keyOf(store, backup.manifest), signal);
  if (manifest === undefined) {
    throw damaged(backup, `its manifest ${backup.manifest} is no longer in the store`);
  }
  const other = manifest.backup;
  const differing = (['uri', 'sha256', 'dumpSha256'] as const).filter((name) => other[name] !== backup[name]);
  if (other.ledger.sha256 !== backup.ledger.sha256) {
    throw damaged(backup, describeOther(manifest, [...differing, 'ledger.sha256']));
  }
  if (differing.length > 0) throw damaged(backup, describeOther(manifest, differing));
  return manifest;
}

const describeOther = (manifest: BackupManifest, differing: readonly string[]): string =>
  `its manifest speaks of another backup, taken ${manifest.backup.capturedAt} by run ${manifest.runId} of ${manifest.service}, step ${manifest.step} (${differing.join(', ')} differ)`;

/** Of the object at this key; undefined where there is none. @throws StepError `BackupDamaged` */
async function readManifest(store: ObjectStore, key: string, signal: AbortSignal): Promise<BackupManifest | undefined> {
  const content = await store.get(key, signal);
  if (content === undefined) return undefined;
  const text = Buffer.from(content).toString('utf8');
  const broken = (what: string): StepError => damaged({ uri: store.uri(backupKeysOf(key)?.dump ?? key) }, what);
  const place = `its manifest ${store.uri(key)} (${content.byteLength} bytes)`;
  let value: Partial<StoredManifest> | null;
  try {
    value = JSON.parse(text) as Partial<StoredManifest> | null;
  } catch (error) {
    throw broken(`${place} is no JSON: ${error instanceof Error ? error.message.slice(0, 200) : 'unreadable'}`);
  }
  if (value?.format !== FORMAT) throw broken(`${place} is not of the format ${FORMAT}`);
  const { digest, ...manifest } = value as StoredManifest;
  // The text, too: another way to write the same values is a change nobody of us has made.
  if (digest !== canonicalDigest(manifest) || text !== canonicalJson(value)) {
    throw broken(`${place} was changed: its content does not have the digest it carries`);
  }
  // The digest is no signature: another's program may have made it, of something else.
  if (typeof manifest.backup?.manifest !== 'string' || typeof manifest.backup.capturedAt !== 'string') {
    throw broken(`${place} names no backup`);
  }
  if (manifest.backup.manifest !== store.uri(key)) {
    throw broken(
      `${place} is that of another backup, ${manifest.backup.uri} of run ${manifest.runId}, service ${manifest.service}`,
    );
  }
  return manifest;
}

const keyOf = (store: ObjectStore, uri: string): string => uri.slice(store.uri('').length);
