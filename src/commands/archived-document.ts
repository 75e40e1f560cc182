import { sha256 } from '../archive/canonical.ts';
import { withServiceStore } from '../archive/service-store.ts';
import type { StoredDocument } from '../contract/evidence/step.ts';
import { CommandError } from './command-error.ts';
import { withServiceAccess } from './service-access.ts';

/**
 * The archived document itself, byte for byte, with the credentials that the service's profile refers to.
 *
 * @throws StepError or CommandError when it cannot be had or is not what was archived
 */
export const fetchArchived = (profiles: string, service: string, document: StoredDocument): Promise<string> =>
  withServiceAccess(profiles, service, async (access) => {
    const { backup } = access.profile;
    const prefix = `s3://${backup.bucket}/`;
    if (!document.uri.startsWith(prefix)) {
      throw new CommandError(`the report lies in ${document.uri}, the profile names the bucket ${backup.bucket}`);
    }
    return withServiceStore(access, async (store) => {
      const content = await store.get(document.uri.slice(prefix.length), access.signal);
      if (content === undefined) throw new CommandError(`${document.uri} is not there any more`);
      if (sha256(content) !== document.sha256) {
        throw new CommandError(`${document.uri} is not what the run archived: its SHA-256 is not ${document.sha256}`);
      }
      return new TextDecoder().decode(content);
    });
  });
