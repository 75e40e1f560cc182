import type { Profile } from '../contract/profile.ts';
import type { SecretVault } from '../profile/secret-vault.ts';
import { type ObjectStore, openObjectStore } from './object-store.ts';

export interface ServiceStoreAccess {
  readonly profile: Profile;
  readonly secrets: SecretVault;
  readonly signal: AbortSignal;
}

/** Opens the service's object store with credentials that are resolved for this work alone, and closes it after. */
export async function withServiceStore<T>(
  { profile, secrets, signal }: ServiceStoreAccess,
  work: (store: ObjectStore) => Promise<T>,
): Promise<T> {
  const { backup } = profile;
  const store = openObjectStore(backup, {
    accessKeyId: await secrets.resolve(backup.accessKeyId, profile, signal),
    secretAccessKey: await secrets.resolve(backup.secretAccessKey, profile, signal),
  });
  try {
    return await work(store);
  } finally {
    store.close();
  }
}
