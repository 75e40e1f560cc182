import { backupKeysOf, serviceFolder } from '../archive/backup-names.ts';
import type { ObjectStore } from '../archive/object-store.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { BackupProfile } from '../contract/profile.ts';
import { workflowIdOf } from '../contract/request.ts';
import type { Leftover, LeftoverOwner } from './leftover.ts';

type LeftoverUpload = Leftover & { readonly kind: 'upload' };
type LeftoverObject = Leftover & { readonly kind: 'object' };

/** A dump that takes longer than this has a run that is running, and is left alone for that. */
const EXPIRES_AFTER = 24 * 60 * 60 * 1000;

/** Dumps and ledgers below the service's folder that have no manifest, and uploads that were never completed. */
export async function findLeftoverObjects(
  store: ObjectStore,
  backup: Pick<BackupProfile, 'prefix'>,
  service: string,
  signal: AbortSignal,
): Promise<(LeftoverUpload | LeftoverObject)[]> {
  // With the slash: another service's name may begin alike.
  const folder = `${serviceFolder(backup, service)}/`;
  const objects = await store.list(folder, signal);
  const present = new Set(objects.map(({ key }) => key));
  const halfMade = objects.flatMap(({ key, bytes, modifiedAt }): LeftoverObject[] => {
    const keys = backupKeysOf(key);
    if (keys === undefined || present.has(keys.manifest) || !isOfRun(key, folder)) return [];
    return [
      {
        kind: 'object',
        uri: store.uri(key),
        key,
        manifestKey: keys.manifest,
        owner: ownerOf(key, folder, service),
        ...times(modifiedAt),
        bytes,
      },
    ];
  });
  const interrupted = await store.interruptedUploads(folder, signal);
  const uploads = interrupted
    .filter(({ key }) => isOfRun(key, folder))
    .map(
      ({ key, uploadId, startedAt }): LeftoverUpload => ({
        kind: 'upload',
        uri: store.uri(key),
        key,
        uploadId,
        owner: ownerOf(key, folder, service),
        ...times(startedAt),
        bytes: null,
      }),
    );
  return [...halfMade, ...uploads];
}

/** `<folder>/<run id>/...`: what else lies there is nothing of a run, for example of a service whose prefix leads there. */
const isOfRun = (key: string, folder: string): boolean => /^[0-9a-f-]{36}\//.test(key.slice(folder.length));

/** `<folder>/<run id>/<step>.<ending>`. */
function ownerOf(key: string, folder: string, service: string): LeftoverOwner {
  const [runId = '', ...rest] = key.slice(folder.length).split('/');
  const step = rest.join('/').replace(/\.(?:dump|ledger|backup|sql)\b.*$/, '');
  return { service, runId, workflowId: workflowIdOf(service), step };
}

function times(since: string): { readonly since: string; readonly expiresAt: string } {
  return { since, expiresAt: new Date(Date.parse(since) + EXPIRES_AFTER).toISOString() };
}

/** @throws StepError `StateUnexpected` where the object has become part of a whole backup meanwhile */
export async function deleteLeftoverObject(
  store: ObjectStore,
  { key, uri, manifestKey }: LeftoverObject,
  signal: AbortSignal,
): Promise<void> {
  if ((await store.head(manifestKey, signal)) !== undefined) {
    throw new StepError(STEP_ERRORS.stateUnexpected, `${uri} has a manifest now: it is a whole backup`);
  }
  await store.delete(key, signal);
  if ((await store.head(key, signal)) !== undefined) {
    throw new StepError(STEP_ERRORS.stateUnexpected, `${uri} is still there after it was deleted`);
  }
}

/** Gives the upload up, and with it all others of the same object: they are of the same run and step. */
export async function abortLeftoverUpload(
  store: ObjectStore,
  { key }: LeftoverUpload,
  signal: AbortSignal,
): Promise<void> {
  await store.abortUploads(key, signal);
}
