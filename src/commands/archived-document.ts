import { sha256 } from '../archive/canonical.ts';
import { openObjectStore } from '../archive/object-store.ts';
import type { StoredDocument } from '../contract/evidence.ts';
import { loadProfile } from '../profile/load.ts';
import { resolveSecret } from '../profile/secrets.ts';
import { CommandError } from './command-error.ts';

/**
 * The archived document itself, byte for byte, with the credentials that the service's profile refers to.
 *
 * @throws StepError or CommandError when it cannot be had or is not what was archived
 */
export async function fetchArchived(profiles: string, service: string, document: StoredDocument): Promise<string> {
  const { profile } = await loadProfile(profiles, service);
  const { backup } = profile;
  const prefix = `s3://${backup.bucket}/`;
  if (!document.uri.startsWith(prefix)) {
    throw new CommandError(`the report lies in ${document.uri}, the profile names the bucket ${backup.bucket}`);
  }
  const { signal } = new AbortController();
  const store = openObjectStore(backup, {
    accessKeyId: await resolveSecret(backup.accessKeyId, { home: profile.home, signal }),
    secretAccessKey: await resolveSecret(backup.secretAccessKey, { home: profile.home, signal }),
  });
  try {
    const content = await store.get(document.uri.slice(prefix.length), signal);
    if (content === undefined) throw new CommandError(`${document.uri} is not there any more`);
    if (sha256(content) !== document.sha256) {
      throw new CommandError(`${document.uri} is not what the run archived: its SHA-256 is not ${document.sha256}`);
    }
    return new TextDecoder().decode(content);
  } finally {
    store.close();
  }
}
